"""What a message is beyond its intent: small talk is no question, and a question no small talk."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from answering import preparing, signals
from answering.signals import (
    Cues,
    Found,
    Labelled,
    SignalHeads,
    Topics,
    Vectors,
    as_asking,
    asking_cues,
    feeling_cues,
    garbled,
    unseen_chances,
)
from cli.commands import sample
from core.types import FaqEntry, Sentiment
from retrieval.encoders import load_encoder
from retrieval.encoders.protocol import Encoder
from tests.answering.conftest import MODELS

Vector = NDArray[np.float32]

SMALL_TALK = {
    "en": ["thanks", "hi there!", "my name is Ann", "ok great, thank you so much", "bye", "yes",
           "I'm Tom Baker", "no that's all", "book it for six people on sunday", "perfect"],
    "zh": ["谢谢", "您好", "我叫李明", "好的", "没有别的了", "再见"],
    "de": ["danke schön", "Hallo!", "ich heiße Jonas", "nein, das ist alles", "tschüss"],
    "fr": ["merci bien", "bonjour", "je m'appelle Luc", "non, c'est tout", "oui merci"],
    "es": ["muchas gracias", "hola", "me llamo Lucía", "no, eso es todo", "sí, gracias"],
    "ja": ["ありがとう", "こんにちは", "鈴木と申します", "はい"],
}  # fmt: skip
QUESTIONS = {
    "en": ["hi, how much is shipping to Spain?", "thanks, and can I send it back later?",
           "do they let you bring a rabbit", "my name is Ann and my parcel never came",
           "what about towels", "the strap of my bag tore off"],
    "zh": ["你好，运费多少", "谢谢，那可以退吗", "能带猫吗", "我的包裹丢了怎么办"],
    "de": ["Hallo, was kostet der Versand nach Spanien?", "danke, und kann ich es zurückgeben?",
           "darf man Katzen mitbringen"],
    "fr": ["bonjour, combien coûte la livraison ?", "merci, et je peux le renvoyer ?",
           "les chats sont acceptés ?"],
    "es": ["hola, ¿cuánto cuesta el envío?", "gracias, ¿y puedo devolverlo?",
           "¿se admiten gatos?"],
    "ja": ["送料はいくらですか", "猫も泊まれますか", "返品できますか"],
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    preparing.prepare_encoder(MODELS, print)
    return load_encoder(preparing.ENCODER, MODELS, "cpu")


@pytest.fixture(scope="module")
def vectors(encoder: Encoder) -> Vectors:
    """Return what makes vectors; those of the shipped examples come with the sample shop."""
    name, shipped = sample.shipped_vectors()
    known = shipped if name == encoder.name else {}

    async def made(texts: Sequence[str]) -> Mapping[str, Vector]:
        hashes = {text: hashlib.sha256(f"query: {text}".encode()).digest() for text in texts}
        missing = [text for text, digest in hashes.items() if digest not in known]
        fresh = encoder.encode_queries(missing) if missing else ()
        found = dict(zip(missing, fresh, strict=True))
        return {
            text: found[text] if text in found else np.asarray(known[digest], np.float32)
            for text, digest in hashes.items()
        }

    return made


@pytest.fixture(scope="module")
def heads(vectors: Vectors) -> SignalHeads:
    return asyncio.run(SignalHeads.shipped(vectors))


def vector(encoder: Encoder, text: str) -> Vector:
    (found,) = encoder.encode_queries([Labelled(text, "", "").vector_of])
    return found


@pytest.mark.parametrize("text", [text for texts in SMALL_TALK.values() for text in texts])
def test_small_talk_orders_and_names_ask_for_no_entry_however_near_one_seems(
    heads: SignalHeads, encoder: Encoder, text: str
):
    assert heads.asks(vector(encoder, text), text) < 0.5
    assert heads.seeking(vector(encoder, text), text, 0.6) < 0.5


@pytest.mark.parametrize("text", [text for texts in QUESTIONS.values() for text in texts])
def test_a_question_is_one_in_any_language_and_with_thanks_around_it(
    heads: SignalHeads, encoder: Encoder, text: str
):
    assert heads.asks(vector(encoder, text), text) >= 0.5
    assert heads.seeking(vector(encoder, text), text, 0.9) >= 0.5


def test_what_is_found_moves_the_chance_that_an_entry_is_asked_for(
    heads: SignalHeads, encoder: Encoder
):
    text = "what is the postcode of that place"
    chances = [heads.seeking(vector(encoder, text), text, found) for found in (0.0, 0.3, 0.9)]
    assert chances == sorted(chances)
    assert chances[0] < 0.5 < chances[-1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("this is the fourth time I write and nobody answers, I am furious", "negative"),
        ("how do I cancel my order", "neutral"),
        ("the lid is broken, how do I get a new one", "neutral"),
        ("fantastic, that helped me a lot!", "positive"),
        ("你们的服务太差了，气死人", "negative"),
        ("怎么取消订单", "neutral"),
        ("质量很好，非常满意", "positive"),
        ("ich bin wirklich sauer über euren Service", "negative"),
    ],
)
def test_how_a_message_sounds_is_told_and_broken_things_alone_are_no_anger(
    heads: SignalHeads, encoder: Encoder, text: str, name: str
):
    told = heads.sentiment(vector(encoder, text), text)
    assert told.name == name
    assert 1 / 3 < told.probability <= 1.0
    assert 0.0 <= told.uncertainty < 1.0


def test_uncertainty_grows_as_chances_come_together():
    labels = ["negative", "neutral", "positive"] * 30
    examples = [Labelled(f"text {i}", label, "en") for i, label in enumerate(labels)]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(90, 16)).astype(np.float32)
    clear = noise.copy()
    for place in range(3):
        clear[place::3, place] += 9.0
    told = [feeling_of(examples, vectors) for vectors in (noise, clear)]
    assert told[1].name == "negative"
    assert told[1].uncertainty < 0.6 < told[0].uncertainty


def feeling_of(examples: Sequence[Labelled], vectors: Vector) -> Sentiment:
    """Return how the first of some examples sounds to heads fitted on all of them."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    known = {example.text: vector for example, vector in zip(examples, unit, strict=True)}
    heads = SignalHeads(examples, examples, known, Found(1.0, 1.0, 0.0))
    return heads.sentiment(unit[0], examples[0].text)


def test_a_base_knows_which_records_its_entries_hold(
    heads: SignalHeads, encoder: Encoder, vectors: Vectors
):
    text = "and what is their phone number please"
    others = ["Do you allow pets?", "Is there a lift?", "Can I park there?", "Is smoking allowed?"]
    without = asyncio.run(heads.for_base(others, vectors))
    having = asyncio.run(heads.for_base([*others, "What is the phone number?"], vectors))
    asked = vector(encoder, text)
    assert without.sought(asked, text) < 0.5 < having.sought(asked, text)
    assert heads.asks(asked, text) > 0.5
    assert without.asks(asked, text) == heads.asks(asked, text)


def test_what_speech_recognition_might_hear_is_the_same_each_time_and_keeps_other_scripts():
    text = "Could you tell me whether they have parking for guests?"
    assert garbled(text) == garbled(text) != text
    assert set(garbled(text)) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert garbled("可以带宠物吗，谢谢 你 们") == "可以带宠物吗，谢谢 你 们"


@pytest.mark.parametrize(
    ("read", "cues", "least"),
    [
        (lambda: as_asking(signals.seeking_examples()), asking_cues, 0.93),
        (signals.sentiment_examples, feeling_cues, 0.88),
    ],
)
def test_the_shipped_examples_are_told_by_heads_that_did_not_see_them(
    vectors: Vectors, read: Callable[[], list[Labelled]], cues: Cues, least: float
):
    examples = read()
    texts = list(dict.fromkeys(example.vector_of for example in examples))
    labels, chances = unseen_chances(examples, asyncio.run(vectors(texts)), cues)
    right = [labels[row.argmax()] == e.label for row, e in zip(chances, examples, strict=True)]
    assert np.mean(right) > least
    assert abs(float(chances.max(axis=1).mean()) - float(np.mean(right))) < 0.03


def clouds(middles: Sequence[int], count: int, seed: int) -> Vector:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(middles) * count, 24)) * 0.15 + 1.0
    for place, middle in enumerate(middles):
        vectors[place * count : (place + 1) * count, middle] += 2.0
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_topics_are_the_tags_that_a_message_is_near_to_and_other_where_it_is_near_none():
    tags = [("orders",)] * 12 + [("payment", "money")] * 12 + [()] * 12
    topics = Topics.fit(clouds([0, 1, 2], 12, 1), tags)
    assert topics is not None
    assert topics.names == ("money", "orders", "payment")
    paid = topics.of(clouds([1], 1, 9)[0])
    assert {topic.name for topic in paid} == {"payment", "money"}
    assert all(0.35 <= topic.probability <= 1.0 for topic in paid)
    assert [topic.name for topic in topics.of(clouds([2], 1, 9)[0])] == ["other"]


def test_without_a_tag_that_two_wordings_share_there_are_no_topics():
    assert Topics.fit(clouds([0], 3, 1), [(), (), ("lonely",)]) is None


def test_a_base_without_tags_has_its_own_intents_as_topics():
    async def vectors(texts: Sequence[str]) -> Mapping[str, Vector]:
        made = {text: clouds([3], 1, i)[0] for i, text in enumerate(texts)}
        made |= {text: clouds([0], 1, int(text[-1]))[0] for text in texts if text in own}
        return made

    own = {f"own example {i}": "billing" for i in range(6)}
    entries = [FaqEntry("1", "question", "answer")]
    topics = asyncio.run(Topics.of_base(entries, list(own.items()), vectors, vectors))
    assert topics is not None
    assert [topic.name for topic in topics.of(clouds([0], 1, 50)[0])] == ["billing"]
    assert [topic.name for topic in topics.of(clouds([3], 1, 50)[0])] == ["other"]
