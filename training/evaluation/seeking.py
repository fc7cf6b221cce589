"""How well messages that ask for what an entry says are told from all others."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from answering.fitting import labelled
from answering.intents import OUT_OF_SCOPE, IntentClassifier, general_examples
from answering.signals import (
    LOOK_UP,
    Found,
    Labelled,
    SignalHeads,
    as_asking,
    asking_cues,
    feeling_cues,
    seeking_examples,
    sentiment_examples,
    unseen_chances,
)
from answering.understanding import read, understand
from core.types import (
    Author,
    FaqEntry,
    Intent,
    KnowledgeBase,
    KnowledgeBaseId,
    Passage,
    Question,
    Utterance,
)
from retrieval.dense import Vector
from retrieval.encoders.protocol import Encoder
from retrieval.index import KnowledgeIndex, nameless
from training.dialogues import dialogues
from training.evaluation.retrieval import build_index
from training.noise import misheard, mistyped

Floats = NDArray[np.float64]
PASSAGES = 5
BINS = 15
OTHER_SHARE = 1.0
"""Turns without a look-up for each with one; about half of the DSTC9 and DSTC10 turns are such."""

BOOKING_TURNS = (
    "I want a place in the centre with four stars.", "Something cheap would be better.",
    "We need it for five people on Saturday.", "Can you reserve that for two nights?",
    "Please book a table for three at half past six.", "Is there another one that is free then?",
    "Alright, how about just one night then?", "Could you try it for Monday?",
    "I would like the reference number please.", "Can I have the booking code?",
    "Please find me a train that gets to Ely by ten.", "I am leaving from Norwich on Tuesday.",
    "Which of them do you suggest?", "You pick one for me.", "I'm also looking for a museum.",
    "Get me a cab that brings us back to the hotel at nine.", "The taxi should come at 17:45.",
    "There will be seven of us.", "That time works for me.", "Great, let's do that.",
    "No, I think that is all for today.", "Thank you, you were a great help.", "Yes please.",
    "I really need it to be in the east.", "Are there any Indian restaurants around there?",
    "Do you have any guesthouses with free parking?", "Is there a college I could visit in town?",
    "What about Korean food then?", "Okay, book that one for the same people.",
    "My name is Sophie.", "It is under Hernandez.", "I'll be there at noon.", "Nothing else, bye.",
    "Not yet, I only wanted to look.", "I don't mind which part of town.", "Any price is okay.",
    "Perfect, go ahead.", "I said Thursday, not Tuesday.", "Make that four seats.", "Lovely.",
    "Good, and now I need something to eat nearby.", "Let me ask my wife first.",
    "We are going to be in San Francisco next week.", "I would rather have a hotel.",
)  # fmt: skip
"""What customers say between their questions when they book; our words."""
RECORD_REQUESTS = (
    "What is their phone number?", "Can I get the address please?", "What's the postcode?",
    "May I have the phone number and the postcode?", "Which area is it in?",
    "What is the price range?", "How many stars does it have?", "How much is the entrance fee?",
    "How long is the train ride?", "When does it arrive?", "How much is a ticket?",
    "What is the train ID?", "What kind of food do they have?", "What type of car will it be?",
    "What time does that train leave?", "Where exactly is it?",
)  # fmt: skip
"""Questions that a booking system answers from its records and no entry of such an FAQ does."""


@dataclass(frozen=True)
class Turn:
    """A customer's message with what was said before it as (speaker U or S, text).

    Attributes:
        seeks: An entry answers it.
        kind: `entry`, `booking`, `record`, `unrelated`: where it comes from.
    """

    text: str
    before: tuple[tuple[str, str], ...]
    seeks: bool
    kind: str


@dataclass(frozen=True)
class Scored:
    """What the two signals say of a turn."""

    turn: Turn
    asks: float
    found: float


def turns_of(
    entries: Sequence[FaqEntry],
    count: int,
    rng: random.Random,
    noise: Literal["written", "spoken"],
) -> list[Turn]:
    """Return turns of made conversations about entries: as many that seek one as that do not.

    Raises:
        ValueError: No entry is about an entity and a known subject.
    """
    noisy = {"written": mistyped, "spoken": misheard}[noise]
    made: list[Turn] = []
    for row in dialogues(entries, count, rng, noise):
        said = [(turn["speaker"], turn["text"]) for turn in row["turns"]]
        before, last = tuple(said[:-1]), said[-1][1]
        seeks = bool(row["relevant"])
        made.append(Turn(last, before, seeks, "entry" if seeks else "booking"))
        if seeks and before and rng.random() < OTHER_SHARE:
            kind, lines = rng.choice(
                (
                    ("booking", BOOKING_TURNS),
                    ("booking", BOOKING_TURNS),
                    ("record", RECORD_REQUESTS),
                )
            )
            made.append(Turn(noisy(rng.choice(lines), rng), before, False, kind))
    return made


def unrelated_turns() -> list[Turn]:
    """Return messages that have nothing to do with any business."""
    return [
        Turn(t, (), False, "unrelated") for t, label in general_examples() if label == OUT_OF_SCOPE
    ]


async def scored(
    turns: Sequence[Turn],
    index: KnowledgeIndex,
    encoder: Encoder,
    locale_of: Callable[[str], str],
) -> list[Scored]:
    """Return what the heads of a base and what is found say of turns, as answering sees them."""
    heads = await shipped_heads(encoder, index)
    predict = _intents([e.question for e in index.entries.values()], encoder)
    asked = [_question(turn, locale_of(turn.text)) for turn in turns]
    messages = [read(question, index, ()) for question in asked]
    texts = list(dict.fromkeys(text for message in messages for text in message.texts))
    vectors = dict(zip(texts, encoder.encode_queries(texts), strict=True))
    found: list[Scored] = []
    for turn, question, message in zip(turns, asked, messages, strict=True):
        own = [vectors[text] for text in message.texts]
        understood = understand(
            message, own, question, predict=predict, search=_search(index, question)
        )
        chance = understood.signals["found"]
        found.append(Scored(turn, heads.sought(own[0], turn.text), chance))
    return found


def _question(turn: Turn, locale: str) -> Question:
    base = KnowledgeBase(KnowledgeBaseId(0), "evaluated", locale)
    history = [
        Utterance(Author.CUSTOMER if speaker == "U" else Author.BOT, text)
        for speaker, text in turn.before
    ]
    return Question(base, (turn.text,), history=tuple(history), locale=locale)


def _search(index: KnowledgeIndex, question: Question) -> Callable[..., list[Passage]]:
    def find(text: str, vector: Vector, off_topic: float, *more: Any) -> list[Passage]:
        about, *gist = more
        return index.search(
            text, vector, locale=question.locale or "en", limit=PASSAGES, off_topic=off_topic,
            about=about, gist=gist[0] if gist else None,
        )  # fmt: skip

    return find


def _intents(
    questions: Sequence[str], encoder: Encoder
) -> Callable[[Vector, str], Sequence[Intent]]:
    examples = labelled((), questions)
    vectors = encoder.encode_queries([text for text, _ in examples])
    classifier = IntentClassifier.fit(vectors, [label for _, label in examples])
    return lambda vector, text: classifier.predict(vector[None])[0]


async def shipped_heads(encoder: Encoder, index: KnowledgeIndex | None = None) -> SignalHeads:
    """Return the heads that come with the product, those of a base as workers fit them."""

    async def vectors(texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(texts, encoder.encode_queries(texts), strict=True))

    heads = await SignalHeads.shipped(vectors)
    if index is None:
        return heads
    return await heads.for_base([nameless(e) for e in index.entries.values()], vectors)


def detection(seeks: Sequence[bool], chances: Sequence[float]) -> dict[str, float]:
    """Return precision, recall and F1 of chances from one half on, and their calibration error."""
    true, said = np.asarray(seeks, bool), np.asarray(chances) >= 0.5
    hits = float((true & said).sum())
    precision, recall = hits / max(said.sum(), 1), hits / max(true.sum(), 1)
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "ece": calibration_error(np.asarray(chances), true),
        "n": len(true),
    }


def out_of_fold(encoder: Encoder) -> dict[str, Any]:
    """Return how well the shipped examples are told by heads that did not see them."""
    shown: dict[str, Any] = {}
    for name, examples, cues in (
        ("seeking", as_asking(seeking_examples()), asking_cues),
        ("sentiment", sentiment_examples(), feeling_cues),
    ):
        texts = list(dict.fromkeys(example.vector_of for example in examples))
        vectors = dict(zip(texts, encoder.encode_queries(texts), strict=True))
        labels, chances = unseen_chances(examples, vectors, cues)
        told = [labels[place] for place in chances.argmax(axis=1)]
        truth = [example.label for example in examples]
        shown |= {f"{name} {key}": value for key, value in _told(truth, told).items()}
        right = np.asarray(told) == np.asarray(truth)
        shown[f"{name} ece"] = calibration_error(chances.max(axis=1), right)
    return shown


async def on_files(
    seeking: Sequence[tuple[str, str]], sentiment: Sequence[tuple[str, str]], encoder: Encoder
) -> dict[str, Any]:
    """Return how well (text, label) of files are told by the shipped heads, of no base."""
    heads = await shipped_heads(encoder)
    shown: dict[str, Any] = {}
    if seeking:
        chances = [heads.asks(v, text) for v, text in _read_as(seeking, encoder)]
        told = detection([label == LOOK_UP for _, label in seeking], chances)
        shown |= {f"seeking {name}": value for name, value in told.items()}
    if sentiment:
        felt = [heads.sentiment(v, text) for v, text in _read_as(sentiment, encoder)]
        truth = [label for _, label in sentiment]
        told = _told(truth, [one.name for one in felt])
        shown |= {f"sentiment {name}": value for name, value in told.items()}
        right = np.asarray([one.name == label for one, label in zip(felt, truth, strict=True)])
        sure = np.asarray([one.probability for one in felt])
        shown["sentiment ece"] = calibration_error(sure, right)
    return shown


async def on_conversations(
    entries: Sequence[FaqEntry], count: int, encoder: Encoder, seed: int = 29
) -> dict[str, Any]:
    """Return how well turns of made conversations are told that ask for what an entry says."""
    rng = random.Random(seed)
    index = build_index(entries, encoder)
    shown: dict[str, Any] = {}
    for noise in ("written", "spoken"):
        cases = await scored(turns_of(entries, count, rng, noise), index, encoder, lambda _: "en")
        for name, told in by_signal(Found.shipped(), cases).items():
            shown |= {f"{noise} {name} {key}": value for key, value in told.items()}
    return shown


def by_signal(model: Found, cases: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """Return how well a model detects, beside the words of a message and retrieval alone."""
    seeks = [case.turn.seeks for case in cases]
    return {
        "both": detection(seeks, [model.chance(c.asks, c.found) for c in cases]),
        "words alone": detection(seeks, [c.asks for c in cases]),
        "retrieval alone": detection(seeks, [c.found for c in cases]),
    }


def _read_as(examples: Sequence[tuple[str, str]], encoder: Encoder) -> list[tuple[Vector, str]]:
    """Return texts with the vectors that answering reads them by."""
    texts = [Labelled(text, label, "").vector_of for text, label in examples]
    vectors = encoder.encode_queries(texts)
    return [(vector, text) for vector, (text, _) in zip(vectors, examples, strict=True)]


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: Naeini et al. 2015, equal-width bins."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (which == b).mean() * abs(confidence[which == b].mean() - right[which == b].mean())
        for b in np.unique(which)
    ]
    return float(sum(gaps))


def _told(truth: Sequence[str], told: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import f1_score

    right = [one == other for one, other in zip(truth, told, strict=True)]
    return {
        "accuracy": sum(right) / len(right),
        "macro_f1": float(f1_score(truth, told, average="macro")),
        "n": len(right),
    }
