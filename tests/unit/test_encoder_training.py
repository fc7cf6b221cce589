"""Tuning the encoder: what is drawn together, what is kept, and what is refused.

The encoder here is a tiny one with chance weights: how training behaves does not depend on size.
"""

from __future__ import annotations

import json
import random
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigurationError, InvalidInput
from core.types import FaqEntry
from retrieval.encoders import Encoder, adapter, load_encoder
from training.encoder import lora, session
from training.encoder.data import Labelled, Mixture, kept, labelled_batches
from training.encoder.loop import Recipe, Training, rate, tune
from training.encoder.pairs import EntryPairs, Pair, own_pairs

THINGS = [
    "tent", "pot", "pan", "lamp", "bag", "bottle", "blanket", "chair", "stove", "rope", "knife",
    "boot",
]  # fmt: skip
ASKS = {
    "price": ["what does the {} cost", "how much is the {}", "price of a {} please",
              "is the {} expensive"],
    "return": ["can i send the {} back", "i want to return my {}", "take back this {} please",
               "how do i return a {}"],
    "repair": ["my {} is broken", "can you mend the {}", "repair of a {} please",
               "the {} needs fixing"],
}  # fmt: skip
EXAMPLES = [
    (form.format(thing), label)
    for label, forms in ASKS.items() for form in forms for thing in THINGS
]  # fmt: skip
QUICK = Recipe(steps=40, learning_rate=2e-2, rank=4, warmup_share=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder of a tiny BERT."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({w for text, _ in EXAMPLES for w in text.split()} | {"query", "passage", ":"})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    plain = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    plain.normalizer = normalizers.Lowercase()
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    bare_model = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(bare_model)
    tokenizer.save_pretrained(bare_model)
    transformer = Transformer(str(bare_model))
    whole = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()], device="cpu"
    )
    place = tmp_path_factory.mktemp("models") / "tiny-e5-test"
    whole.save(str(place))
    return place


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    return load_encoder(str(folder), folder.parent, "cpu")


def apart(encoder: Encoder) -> float:
    """How much nearer texts of one label are to each other than to the others."""
    vectors = encoder.encode_queries([text for text, _ in EXAMPLES])
    labels = np.asarray([label for _, label in EXAMPLES])
    cosines, same = vectors @ vectors.T, labels[:, None] == labels[None, :]
    return float(cosines[same].mean() - cosines[~same].mean())


def entry(number: int, question: str, entity: str | None = None, **more: Any) -> FaqEntry:
    return FaqEntry(f"e{number}", question, more.pop("answer", f"answer {number}"), entity=entity,
                    **more)  # fmt: skip


def masks(
    encoder: Encoder, entries: list[FaqEntry], pairs: list[Pair], **more: Any
) -> dict[str, tuple[set[str], set[str]]]:
    """Return by question which passages are negatives of it, and which are ignored."""
    source = EntryPairs(entries, pairs, encoder.encode_queries, size=24, **more)
    negative: dict[str, tuple[set[str], set[str]]] = {}
    for seed in range(8):
        batch = source.batch(random.Random(seed))
        assert batch.positive is not None
        assert batch.ignored is not None
        for text, positive, ignored in zip(
            batch.queries, batch.positive, batch.ignored, strict=True
        ):
            pushed, left = negative.setdefault(text, (set(), set()))
            for place, passage in enumerate(batch.passages):
                if ignored[place]:
                    left.add(passage.split("\n")[0])
                elif not positive[place]:
                    pushed.add(passage.split("\n")[0])
    return negative


def test_tuning_draws_messages_of_one_intent_together(encoder: Encoder) -> None:
    tuned = tune(encoder, labelled_batches(EXAMPLES, encoder), QUICK)

    assert apart(tuned.encoder) > apart(encoder) + 0.1
    assert np.mean(tuned.losses[-3:]) < np.mean(tuned.losses[:3])


def test_the_encoder_that_is_tuned_stays_as_it_is_and_the_new_one_has_another_name(
    encoder: Encoder,
) -> None:
    before = encoder.encode_queries(["my tent is broken"])

    tuned = tune(encoder, labelled_batches(EXAMPLES), QUICK)

    assert np.array_equal(encoder.encode_queries(["my tent is broken"]), before)
    assert tuned.encoder.name == f"{encoder.name}+{tuned.adapter.digest[:8]}"
    assert not np.allclose(tuned.encoder.encode_queries(["my tent is broken"]), before, atol=1e-3)


def test_only_linear_layers_of_the_last_blocks_are_tuned(encoder: Encoder) -> None:
    recipe = Recipe(steps=1, rank=2, layers=1)

    layers = tune(encoder, labelled_batches(EXAMPLES), recipe).adapter.layers

    assert len(layers) == 6
    assert all(layer.startswith("encoder.layer.1.") for layer in layers)


def test_an_adapter_gives_the_same_vectors_in_memory_from_its_files_and_merged_into_a_folder(
    encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    import shutil

    tuned = tune(encoder, labelled_batches(EXAMPLES), QUICK)
    adapter.write(tuned.adapter, tmp_path / "adapter")
    again = adapter.read(tmp_path / "adapter")
    merged = tmp_path / folder.name
    shutil.copytree(folder, merged)
    adapter.merge_into_folder(merged, again)
    texts = [text for text, _ in EXAMPLES[:20]]

    from_folder = load_encoder(str(merged), tmp_path, "cpu")

    wanted = tuned.encoder.encode_queries(texts)
    assert again.digest == tuned.adapter.digest
    assert np.allclose(lora.apply(encoder, again).encode_queries(texts), wanted, atol=1e-6)
    # the folder keeps half precision, as the one of the default encoder does
    assert np.allclose(from_folder.encode_queries(texts), wanted, atol=3e-3)
    assert from_folder.name == tuned.encoder.name


def test_an_adapter_of_another_model_is_refused_by_name(encoder: Encoder) -> None:
    factors = {
        "encoder.layer.7.output.dense.lora_A.weight": np.zeros((1, 64), np.float16),
        "encoder.layer.7.output.dense.lora_B.weight": np.zeros((32, 1), np.float16),
    }

    with pytest.raises(ConfigurationError, match="made for other-model"):
        lora.apply(encoder, adapter.Adapter(factors, 1, 2, "other-model"))


@pytest.mark.parametrize("broken", [adapter.WEIGHTS, adapter.CONFIG])
def test_a_damaged_adapter_is_named(encoder: Encoder, tmp_path: Path, broken: str) -> None:
    adapter.write(tune(encoder, labelled_batches(EXAMPLES), Recipe(steps=1)).adapter, tmp_path)
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:40])

    with pytest.raises(ConfigurationError, match="holds no adapter"):
        adapter.read(tmp_path)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    encoder: Encoder, tmp_path: Path
) -> None:
    mixture = Mixture([(Labelled(EXAMPLES, size=24), 1.0)], seed=3)
    recipe = Recipe(steps=6, learning_rate=5e-3, rank=4)
    whole = tune(encoder, mixture.batches(), recipe)
    first = Training(encoder, recipe)
    for step in range(1, 4):
        first.step(mixture.batch(step))
    first.save(tmp_path / "checkpoint")

    second = Training(encoder, recipe)
    second.resume(tmp_path / "checkpoint")
    for step in range(4, 7):
        second.step(mixture.batch(step))

    assert second.tuned().losses == pytest.approx(whole.losses, abs=1e-5)
    assert second.done == 6


def test_a_checkpoint_of_other_settings_and_a_cut_one_are_refused(
    encoder: Encoder, tmp_path: Path
) -> None:
    place = tmp_path / "checkpoint"
    Training(encoder, Recipe(steps=6, rank=4)).save(place)

    with pytest.raises(InvalidInput, match="other settings"):
        Training(encoder, Recipe(steps=6, rank=2)).resume(place)

    place.write_bytes(place.read_bytes()[:200])
    with pytest.raises(InvalidInput, match="start anew"):
        Training(encoder, Recipe(steps=6, rank=4)).resume(place)


def test_entries_that_say_the_same_are_no_negatives_of_each_other(encoder: Encoder) -> None:
    entries = [entry(0, "Price of a tent please"), entry(1, "price of a tent, please!"),
               entry(2, "my boot is broken")]  # fmt: skip

    found = masks(encoder, entries, own_pairs(entries), subjects={})

    pushed, left = found["Price of a tent please"]
    assert "price of a tent, please!" in left
    assert "price of a tent, please!" not in pushed


def test_the_same_question_about_another_entity_is_a_negative_only_where_the_entity_is_named(
    encoder: Encoder,
) -> None:
    entries = [entry(0, "is the tent expensive at Heron", "Heron", answer="no"),
               entry(1, "how much is the tent at Otter", "Otter", answer="40 euros"),
               entry(2, "my boot is broken", "Otter")]  # fmt: skip
    subjects = {"e0": "price", "e1": "price", "e2": "repair"}
    pairs = [Pair("is it expensive", frozenset({"e0"})),
             Pair("is the tent of heron expensive", frozenset({"e0"})),
             *own_pairs(entries)]  # fmt: skip

    found = masks(encoder, entries, pairs, subjects=subjects)

    assert "how much is the tent at Otter" not in found["is it expensive"][0]
    assert "how much is the tent at Otter" in found["is the tent of heron expensive"][0]


def test_what_staff_refuted_is_pushed_away_although_it_looks_alike(encoder: Encoder) -> None:
    entries = [entry(0, "price of a tent please", answer="see the list"),
               entry(1, "price of a pot please", answer="see the list"),
               entry(2, "my boot is broken")]  # fmt: skip
    pairs = [Pair("what does it cost", frozenset({"e0"}), frozenset({"e1"})), *own_pairs(entries)]

    found = masks(encoder, entries, pairs, subjects={"e0": "price", "e1": "price"})

    pushed, left = found["what does it cost"]
    assert "price of a pot please" in pushed
    assert "price of a pot please" not in left


def test_what_is_out_of_scope_only_pushes() -> None:
    outside = [(f"strange thing {number}", "out_of_scope") for number in range(20)]

    batch = Labelled([*EXAMPLES, *outside], size=32).batch(random.Random(0))

    assert batch.positive is not None
    rows = [place for place, text in enumerate(batch.queries) if text.startswith("strange")]
    assert rows
    assert not batch.positive[rows].any()


def test_one_label_cannot_be_told_from_anything(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="two labels"):
        next(labelled_batches([("a", "x"), ("b", "x"), ("c", "y")]))


def test_texts_to_keep_move_less_than_they_would(encoder: Encoder) -> None:
    stay = ["wo ist mein zelt", "meine lampe ist kaputt", "was kostet the pot", "bag please",
            "knife knife", "my stove", "a rope", "boot broken"]  # fmt: skip
    vectors = encoder.encode_queries(stay)
    source = [(Labelled(EXAMPLES, size=24), 1.0)]
    recipe = Recipe(steps=30, learning_rate=2e-2, rank=4, keep_weight=5.0)

    free = tune(encoder, Mixture(source).batches(), recipe).encoder
    held = tune(encoder, Mixture(source, kept(stay, encoder)).batches(), recipe).encoder

    def moved(tuned: Encoder) -> float:
        now = tuned.encode_queries(stay)
        return float(np.abs(now @ now.T - vectors @ vectors.T).mean())

    assert moved(held) < moved(free)


def test_going_half_way_lies_between_the_given_encoder_and_the_tuned_one(encoder: Encoder) -> None:
    from dataclasses import replace

    batches = list(zip(range(QUICK.steps), labelled_batches(EXAMPLES), strict=False))
    whole = tune(encoder, (batch for _, batch in batches), QUICK)
    half = tune(encoder, (batch for _, batch in batches), replace(QUICK, share=0.5))

    for layer in whole.adapter.layers:
        assert np.allclose(half.adapter.delta(layer), whole.adapter.delta(layer) / 2, atol=1e-4)


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    assert rate(1, 100, 0.1) == pytest.approx(0.1)
    assert rate(10, 100, 0.1) == 1.0
    assert rate(100, 100, 0.1) == pytest.approx(0.0)


def shop() -> list[FaqEntry]:
    """Thirty-six entries: each thing and subject with the first wording as its question."""
    return [
        FaqEntry(f"{label}-{thing}", forms[0].format(thing), f"about the {thing}",
                 alternates=tuple(form.format(thing) for form in forms[1:]))
        for label, forms in ASKS.items() for thing in THINGS
    ]  # fmt: skip


def test_a_base_is_tuned_and_the_adapter_written_with_its_record(
    encoder: Encoder, tmp_path: Path
) -> None:
    told: list[str] = []
    more = [Pair("what would i pay for the tent", frozenset({"price-tent"})),
            Pair("nobody knows", frozenset({"gone"}))]  # fmt: skip
    what = session.material(shop(), more, encoder, (), 0, told.append)
    recipe = Recipe(steps=40, learning_rate=2e-2, rank=4)

    outcome = session.run(what, encoder, recipe, tmp_path, told.append, checkpoint_every=7)

    assert outcome.mrr_after > outcome.mrr_before
    assert any("1 pairs whose entries are not in the FAQ" in line for line in told)
    tuned = lora.apply(encoder, adapter.read(tmp_path))
    assert tuned.name == outcome.name
    record = json.loads((tmp_path / session.RECORD).read_text())
    assert record["metrics"]["mrr_after"] == outcome.mrr_after
    assert record["data_sha256"] == what.data_sha256
    assert str(tmp_path) not in json.dumps(record)
    assert not (tmp_path / session.CHECKPOINT).exists()


def test_held_out_entries_are_not_trained_on(encoder: Encoder) -> None:
    what = session.material(shop(), [], encoder, (), 0, lambda _: None)
    measured = {pair.text for pair in what.held_out}
    hidden = {entry_id for pair in what.held_out for entry_id in pair.relevant}

    questions = {entry.question for entry in shop() if entry.id in hidden}
    for step in range(1, 30):
        batch = what.mixture.batch(step)
        assert not measured & set(batch.queries)
        assert not questions & {passage.split("\n")[0] for passage in batch.passages}


def test_what_finds_no_more_than_before_is_not_written(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / adapter.WEIGHTS).write_bytes(b"what stood")
    what = session.material(shop(), [], encoder, (), 0, lambda _: None)

    with pytest.raises(InvalidInput, match="finds no more than before"):
        session.run(what, encoder, Recipe(steps=1, learning_rate=1e-12, rank=2), tmp_path,
                    lambda _: None)  # fmt: skip

    assert (tmp_path / adapter.WEIGHTS).read_bytes() == b"what stood"


def test_a_disk_that_fills_leaves_what_stood(encoder: Encoder, tmp_path: Path) -> None:
    what = session.material(shop(), [], encoder, (), 0, lambda _: None)
    recipe = Recipe(steps=40, learning_rate=2e-2, rank=4)
    (tmp_path / adapter.WEIGHTS).write_bytes(b"what stood")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file may grow beyond this
    try:
        with pytest.raises(ConfigurationError, match="what stood there stays"):
            session.run(what, encoder, recipe, tmp_path, lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert (tmp_path / adapter.WEIGHTS).read_bytes() == b"what stood"
    assert [path.name for path in tmp_path.iterdir()] == [adapter.WEIGHTS]


def test_too_few_questions_to_measure_with_are_refused(encoder: Encoder) -> None:
    plain = [entry(number, f"price of a {thing} please") for number, thing in enumerate(THINGS)]

    with pytest.raises(InvalidInput, match="20 are needed"):
        session.material(plain, [], encoder, (), 0, lambda _: None)


def test_pairs_are_read_with_texts_turns_and_what_was_refuted(tmp_path: Path) -> None:
    place = tmp_path / "pairs.jsonl"
    rows = [{"text": "broken", "relevant": ["a"], "not": ["b"]},
            {"turns": [{"speaker": "U", "text": "hi"}, {"speaker": "U", "text": "how much"}],
             "relevant": ["c"]}]  # fmt: skip
    place.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    assert session.read_pairs(place) == [
        Pair("broken", frozenset({"a"}), frozenset({"b"})), Pair("how much", frozenset({"c"})),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "broken"}', "line 2: the field 'relevant' is missing"),
        ('{"text": " ", "relevant": ["a"]}', "row 2: `text` or `turns` is needed"),
        ('{"text": "broken", "relevant": "a"}', "row 2: `relevant` is a list"),
        ('{"text": "broken"', "line 2: this is no JSON"),
    ],
)
def test_a_wrong_line_of_pairs_is_named(tmp_path: Path, line: str, why: str) -> None:
    place = tmp_path / "pairs.jsonl"
    place.write_text('{"text": "fine", "relevant": ["a"]}\n' + line, encoding="utf-8")

    with pytest.raises(InvalidInput, match=why):
        session.read_pairs(place)
