"""The cross-encoder: trained on pairs, written, read, and served beside its encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError, InvalidInput
from retrieval.encoders import cross, load_encoder
from retrieval.encoders.cross import CrossEncoder
from retrieval.encoders.protocol import Encoder, Vectors
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder
from training.cross.loop import PairExample, Recipe, Training, train

WORDS = ["red", "green", "blue", "round", "square", "heavy", "light", "soft"]
CLASSES = ("same", "other")
EXAMPLES = [
    PairExample(f"it is {a}", f"the thing is {b}", int(a != b))
    for a in WORDS for b in (a, WORDS[(WORDS.index(a) + 3) % 8])
]  # fmt: skip
QUICK = Recipe(epochs=40, learning_rate=1e-2, rank=4, batch=16, head_rate=1.0, smoothing=0.0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A tiny BERT with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {
        word: number
        for number, word in enumerate(["[PAD]", "[UNK]", "[SEP]", "it", "is", "the", "thing",
                                       *WORDS])
    }  # fmt: skip
    plain = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(1)
    bare = tmp_path_factory.mktemp("bert")
    BertModel(
        BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2,
                   num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    ).save_pretrained(bare)  # fmt: skip
    tokenizer.save_pretrained(bare)
    whole = SentenceTransformer(
        modules=[Transformer(str(bare)), Pooling(32, pooling_mode="mean"), Normalize()],
        device="cpu",
    )
    place = tmp_path_factory.mktemp("models") / "tiny-cross-test"
    whole.save(str(place))
    return load_encoder(place.name, place.parent, "cpu")


@pytest.fixture(scope="module")
def weights(encoder: Encoder) -> cross.CrossWeights:
    return train(encoder, EXAMPLES, CLASSES, QUICK)


def pairs() -> list[tuple[str, str]]:
    return [(example.a, example.b) for example in EXAMPLES]


def test_it_learns_what_only_both_texts_together_tell(
    encoder: Encoder, weights: cross.CrossWeights
):
    scores = CrossEncoder.load(encoder, weights).score(pairs())

    right = scores.argmax(axis=1) == [example.target for example in EXAMPLES]
    assert right.mean() >= 0.9


def test_what_is_written_scores_as_what_was_trained(
    encoder: Encoder, weights: cross.CrossWeights, tmp_path: Path
):
    cross.write(weights, tmp_path)

    again = CrossEncoder.load(encoder, tmp_path)

    trained = CrossEncoder.load(encoder, weights)
    assert again.name == trained.name
    assert again.classes == CLASSES
    np.testing.assert_allclose(again.score(pairs()), trained.score(pairs()), atol=1e-5)


def test_a_pair_scores_the_same_whatever_stands_beside_it(
    encoder: Encoder, weights: cross.CrossWeights
):
    scorer = CrossEncoder.load(encoder, weights)
    long = [("it is red " * 12, "the thing is blue " * 3)]

    beside = scorer.score([*pairs(), *long])

    np.testing.assert_allclose(scorer.score(pairs()[3:4])[0], beside[3], atol=1e-4)
    np.testing.assert_allclose(scorer.score(long)[0], beside[-1], atol=1e-4)


def test_no_pairs_have_no_scores(encoder: Encoder, weights: cross.CrossWeights):
    assert CrossEncoder.load(encoder, weights).score([]).shape == (0, 2)


def test_the_encoder_stays_as_it_was_and_lends_its_word_embeddings(
    encoder: Encoder, weights: cross.CrossWeights
):
    assert isinstance(encoder, SentenceTransformerEncoder)
    before = encoder.encode_queries(["it is red"])

    network = cross.Network(encoder, 2)
    CrossEncoder.load(encoder, weights).score(pairs())

    first = encoder.model[0]
    theirs = network.transformer.get_input_embeddings().weight
    assert theirs is first.auto_model.get_input_embeddings().weight  # pyright: ignore
    np.testing.assert_array_equal(encoder.encode_queries(["it is red"]), before)


def test_weights_of_another_encoder_are_refused(encoder: Encoder, weights: cross.CrossWeights):
    from dataclasses import replace

    foreign = replace(weights, adapter=replace(weights.adapter, base="another"))

    with pytest.raises(ConfigurationError, match="trained on another"):
        CrossEncoder.load(encoder, foreign)


def test_files_of_two_trainings_are_refused(weights: cross.CrossWeights, tmp_path: Path):
    cross.write(weights, tmp_path)
    config = json.loads((tmp_path / cross.CONFIG).read_text())
    (tmp_path / cross.CONFIG).write_text(json.dumps(config | {"digest": "0"}))

    with pytest.raises(ConfigurationError, match="two trainings"):
        cross.read(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        cross.read(tmp_path)


def test_an_interrupted_training_goes_on_to_the_same_weights(encoder: Encoder, tmp_path: Path):
    place = tmp_path / "checkpoint.pt"
    plan = Recipe(epochs=6, learning_rate=1e-2, rank=4, batch=8)

    class Stop(Exception):
        pass

    def interrupt(line: str) -> None:
        if line.startswith("step 8"):
            raise Stop

    with pytest.raises(Stop):
        train(encoder, EXAMPLES, CLASSES, plan, interrupt, place, every=4)
    told: list[str] = []
    resumed = train(encoder, EXAMPLES, CLASSES, plan, told.append, place, every=4)

    assert told[0] == "going on at step 4"
    assert resumed.digest == train(encoder, EXAMPLES, CLASSES, plan).digest
    assert not place.exists()


def test_a_checkpoint_of_another_training_is_refused(encoder: Encoder, tmp_path: Path):
    Training(encoder, CLASSES, Recipe(rank=4)).save(tmp_path / "c.pt")

    with pytest.raises(InvalidInput, match="other settings"):
        Training(encoder, CLASSES, Recipe(rank=4, seed=1)).resume(tmp_path / "c.pt")


def test_a_target_that_is_no_class_is_refused(encoder: Encoder):
    with pytest.raises(InvalidInput, match="no class"):
        train(encoder, [PairExample("a", "b", 2)], CLASSES, QUICK)


class Plain:
    """An encoder without a transformer."""

    name = "plain"
    dimensions = 2

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 2), np.float32)

    encode_passages = encode_queries


def test_only_an_encoder_that_can_be_tuned_is_taken(weights: cross.CrossWeights):
    with pytest.raises(ConfigurationError, match="takes no adapter"):
        CrossEncoder.load(Plain(), weights)
