"""Small heads on the vector of a message: does it ask something, how does it sound, what about.

They read the vector that intents and retrieval read, so that a message is encoded once; they are
fitted at start from labelled texts that come with the product (`data/seeking.csv` and
`data/sentiment.csv`, our own words) or from a team's entries, in well under a second.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from answering.intents import OUT_OF_SCOPE, general_examples
from answering.politeness import question_part
from core.types import FaqEntry, Intent, Sentiment

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Vectors = Callable[[Sequence[str]], Awaitable[Mapping[str, Vector]]]
"""From texts to their vectors as customers' messages, such as `Pipeline` makes them."""
Cues = Callable[[str], list[float]]

DATA = Path(__file__).parent / "data"
LOOK_UP = "look_up"
OTHER = "other"
RECORD = "record"
"""A question that records answer (a phone number, a balance) unless a base has an entry for it."""
NEUTRAL = "neutral"
SOCIAL = frozenset({"greeting", "thanks", "goodbye", "human_request", "feedback"})
"""General intents whose examples ask nothing that an entry could answer."""
INVERSE_PENALTY = 10.0
"""Logistic regression's C on centred unit vectors and cues; 3 to 30 are alike out of fold."""
FOLDS = 5
MOST_LOGIT = 6.0
"""Chances nearer to 0 or 1 than this say no more about each other."""
NOTHING_ASKED = 0.02
"""The chance that a message asks something of which nothing is left without its politeness."""

KNOWN_FROM = 0.5
"""A message so near to a question of the base (cosine around the centre) asks what it asks, ..."""
KNOWN = 0.9
"""... with this chance: 93% of such turns did in made conversations (`training.signals`)."""
MOST_QUESTIONS = 300
"""Of a larger base so many questions stand for the rest: each costs two encodings, once."""
_FILLERS = ("uh", "um", "like", "i mean", "so")

TOPIC_FLOOR = 0.35
MOST_TOPICS = 3
FEWEST_ENTRIES = 2
"""A tag of a single entry says no more than that entry."""
MOST_WORDINGS = 3_000
"""Of a larger base so many stand for the rest: the fit compares each wording with each."""
NEAREST = 3

_QUESTION_MARK = re.compile(
    r"[?？¿]|吗|呢|什么|怎么|怎样|如何|多少|多久|几点|哪|是否|能不能|可不可以|有没有|为什么|谁|"
    r"か[。？?]*$|ですか|ますか|どう|いつ|どこ|いくら|何"
)
_LEADS = re.compile(
    r"^(?:\W*(?:and|so|but|ok|okay|uh|um+|hmm|yeah|yes|well|great|then|also|und|et|y|oh)\b\W*)*"
    r"(?:what|whats|when|where|why|who|which|whose|how|is|are|does|do|did|can|could|will|would|"
    r"may|might|should|am|has|have|any chance|"
    r"was|wann|wo|wie|warum|wer|welche[rsnm]?|ist|sind|kann|darf|gibt|gilt|habt|haben|muss|"
    r"kostet|quand|où|comment|pourquoi|qui|quel(?:le)?s?|combien|est-ce|y a-t-il|peut|puis|avez|"
    r"qué|cuándo|dónde|cómo|por qué|quién|cuál(?:es)?|cuánt[oa]s?|puedo|hay|tienen)\b",
    re.IGNORECASE,
)
_WONDERS = re.compile(
    r"\b(?:wonder(?:ing)?|know (?:if|whether|about|what|how)|tell me|check if|not sure|"
    r"don't understand|explain)\b",
    re.IGNORECASE,
)
_ORDERS = re.compile(
    r"^\W*(?:book|reserve|find|get|add|make|i need|i want|i'd like|i would like|looking for|"
    r"i'm looking|i am looking|please|yes|no|ok|okay|my name|i'm|i am|the)\b",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"\b(?:thanks?|thank you|thx|cheers|danke|dank|merci|gracias|grazie)\b|谢|感谢|ありがとう",
    re.IGNORECASE,
)
_SHOUTED = re.compile(r"\b[A-Z]{4,}\b")
_GLAD = re.compile("[\U0001f600-\U0001f60d\U0001f642\U0001f929\U0001f44d\u2764\U0001f64f]|:-?\\)")
_CROSS = re.compile("[\U0001f612-\U0001f616\U0001f61e-\U0001f62d\U0001f92c\U0001f44e]|:-?\\(")
_DIGIT = re.compile(r"\d")
_SPOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True)
class Labelled:
    """A message with its label and language."""

    text: str
    label: str
    locale: str

    @property
    def vector_of(self) -> str:
        """The text whose vector a head reads: what is encoded for retrieval."""
        return question_part(self.text) or self.text


@dataclass(frozen=True)
class Found:
    """How the chance that a message asks and the chance that an entry answers go together.

    The weights are of their log-odds; `training.signals` fits them.
    """

    asks: float
    found: float
    bias: float

    def chance(self, asks: float, found: float) -> float:
        """Return the chance in [0, 1] that an entry is asked for."""
        logit = self.asks * log_odds(asks) + self.found * log_odds(found) + self.bias
        return float(1 / (1 + np.exp(-logit)))

    @classmethod
    def shipped(cls) -> Found:
        """Return the weights that come with the product."""
        stored = json.loads((DATA / "seeking.json").read_text(encoding="utf-8"))
        return cls(stored["asks"], stored["found"], stored["bias"])


class Head:
    """A logistic head on centred vectors and surface cues, calibrated by a temperature."""

    def __init__(
        self,
        labels: Sequence[str],
        cues: Cues,
        centre: Floats,
        weights: Floats,
        bias: Floats,
        temperature: float,
    ) -> None:
        self.labels = tuple(labels)
        self._cues = cues
        self._centre = centre
        self._weights = weights
        self._bias = bias
        self._temperature = temperature

    @classmethod
    def fit(cls, vectors: Matrix, texts: Sequence[str], labels: Sequence[str], cues: Cues) -> Head:
        """Fit on unit vectors, shape (texts, hidden), and the texts as they were written.

        The temperature is the one under which examples are likeliest to a head that did not see
        them (Guo et al. 2017).
        """
        names = np.asarray(labels)
        logits, classes = _unseen_logits(vectors, texts, names, cues)
        temperature = _temperature(logits, np.searchsorted(classes, names))
        centre = vectors.mean(axis=0).astype(np.float64)
        inputs = _inputs(vectors, texts, centre, cues)
        found, weights, bias = _logistic(inputs, names)
        return cls(found, cues, centre, weights, bias, temperature)

    def chances(self, vector: Vector, text: str) -> dict[str, float]:
        """Return the calibrated chance of each label; they sum to 1."""
        (row,) = self.probabilities(vector[None], [text])
        return dict(zip(self.labels, map(float, row), strict=True))

    def probabilities(self, vectors: Matrix, texts: Sequence[str]) -> Floats:
        """Return calibrated chances, shape (texts, labels)."""
        inputs = _inputs(vectors, texts, self._centre, self._cues)
        return softmax((inputs @ self._weights + self._bias) / self._temperature, axis=1)


@dataclass(frozen=True)
class _Sought:
    """What the entries of one base are asked: a head, and their questions around its centre."""

    head: Head
    centre: Floats
    questions: Floats

    def nearness(self, vector: Vector) -> float:
        """Return the cosine of the nearest question, around the centre."""
        return float((self.questions @ _centred(vector[None], self.centre)[0]).max())


class SignalHeads:
    """What a message is, beyond its intent.

    Args:
        seeking: Examples of what asks for a look-up, with their vectors.
        sentiment: Examples of how messages sound.
        vectors: The vector of each example's `vector_of`.
        found: Joins the chance that a message asks with what retrieval found.
    """

    def __init__(
        self,
        seeking: Sequence[Labelled],
        sentiment: Sequence[Labelled],
        vectors: Mapping[str, Vector],
        found: Found | None = None,
    ) -> None:
        self._seeking = seeking
        self._vectors = {example.vector_of: vectors[example.vector_of] for example in seeking}
        self._asking = fit_head(as_asking(seeking), vectors, asking_cues)
        self._feeling = fit_head(sentiment, vectors, feeling_cues)
        self._sought: _Sought | None = None
        self._found = found or Found.shipped()

    @classmethod
    async def shipped(cls, vectors: Vectors) -> SignalHeads:
        """Return the heads, fitted on the texts that come with the product.

        Args:
            vectors: Makes the vectors of texts, or knows them: some 1,800 short ones.
        """
        seeking, sentiment = seeking_examples(), sentiment_examples()
        wanted = [example.vector_of for example in (*seeking, *sentiment)]
        known = await vectors(list(dict.fromkeys(wanted)))
        return await asyncio.to_thread(cls, seeking, sentiment, known)

    async def for_base(self, questions: Sequence[str], vectors: Vectors) -> SignalHeads:
        """Return these heads with one more, for what the entries of a base are asked.

        It has their questions as examples too, as written and as speech recognition might hear
        them, and takes questions that records answer for none of the base's, unless an entry is
        near: "what is your phone number" is sought where an entry says it.

        Args:
            questions: What the entries answer, best without the names of their entities.
            vectors: As for `shipped`; makes two vectors a question, of at most 300 questions.
        """
        chosen = _some_questions(questions)
        heard = [garbled(text) for text in chosen]
        known = await vectors(list(dict.fromkeys([*chosen, *heard])))
        copied = copy(self)
        if chosen:
            copied._sought = await asyncio.to_thread(self._fit_sought, chosen, heard, known)
        return copied

    def _fit_sought(
        self, questions: Sequence[str], heard: Sequence[str], known: Mapping[str, Vector]
    ) -> _Sought:
        ours = [replace(e, label=OTHER) if e.label == RECORD else e for e in self._seeking]
        texts = [*(e.text for e in ours), *questions, *heard]
        labels = [*(e.label for e in ours), *[LOOK_UP] * (len(questions) + len(heard))]
        vectors = np.stack(
            [*(self._vectors[e.vector_of] for e in ours), *(known[t] for t in questions)]
            + [known[text] for text in heard]
        )
        centre = vectors.mean(axis=0).astype(np.float64)
        theirs = _centred(np.stack([known[text] for text in questions]), centre)
        return _Sought(Head.fit(vectors, texts, labels, asking_cues), centre, theirs)

    def asks(self, vector: Vector, text: str) -> float:
        """Return the chance that a message asks or reports something at all.

        Args:
            vector: Of the message without its politeness, as retrieval reads it.
            text: The whole message.
        """
        if not question_part(text):
            return NOTHING_ASKED
        return self._asking.chances(vector, text)[LOOK_UP]

    def seeking(self, vector: Vector, text: str, found: float) -> float:
        """Return the chance that a message asks for what an entry says.

        Args:
            vector: Of the message without its politeness, as retrieval reads it.
            text: The whole message.
            found: The chance that one of the found entries answers: the sum of their confidences,
                since entries that differ in their entity alone share the chance between them.
        """
        if not question_part(text):
            return NOTHING_ASKED
        return self._found.chance(self.sought(vector, text), min(found, 1.0))

    def sought(self, vector: Vector, text: str) -> float:
        """Return the chance, from its words alone, that a message asks what entries are asked."""
        if not question_part(text):
            return NOTHING_ASKED
        if self._sought is None:
            return self._asking.chances(vector, text)[LOOK_UP]
        sought = self._sought.head.chances(vector, text)[LOOK_UP]
        return max(sought, KNOWN) if self._sought.nearness(vector) >= KNOWN_FROM else sought

    def sentiment(self, vector: Vector, text: str) -> Sentiment:
        """Return how a message sounds."""
        chances = self._feeling.chances(vector, text)
        name = max(chances, key=chances.__getitem__)
        shares = np.clip(np.asarray(list(chances.values())), 1e-12, 1.0)
        entropy = float(-(shares * np.log(shares)).sum() / np.log(len(shares)))
        return Sentiment(name, round(chances[name], 4), round(min(entropy, 1.0), 4))


class Topics:
    """A team's own topics, from the tags of its entries.

    Each tag is told by how near a message is to the middle of its wordings and to the nearest
    few, against the best other tag. One logistic map makes chances of these for all tags; it is
    fitted on the wordings themselves, each compared with all the others but itself. Wordings
    without a tag show what is none of the topics.
    """

    def __init__(
        self, names: Sequence[str], centre: Floats, known: Matrix, member: Floats, weights: Floats
    ) -> None:
        self.names = tuple(names)
        self._centre = centre
        self._known = known
        self._member = member
        self._weights = weights

    @classmethod
    def fit(cls, vectors: Matrix, tags: Sequence[Sequence[str]]) -> Topics | None:
        """Return the topics, or None where no tag stands at two wordings.

        Args:
            vectors: Of wordings, shape (wordings, hidden).
            tags: The topics of each wording; none for what is about nothing of the team's.
        """
        names = _shared_tags(tags)
        if not names:
            return None
        member = np.asarray(
            [[*(name in mine for name in names), not mine] for mine in tags], np.float64
        )
        centre = vectors.mean(axis=0).astype(np.float64)
        known = _centred(vectors, centre).astype(np.float32)
        signals = _topic_signals(known, known, member, itself=True)
        weights = _topic_weights(signals, member[:, :-1])
        return cls(names, centre, known, member, weights)

    @classmethod
    async def of_base(
        cls,
        entries: Sequence[FaqEntry],
        own: Sequence[tuple[str, str]],
        passages: Vectors,
        queries: Vectors,
    ) -> Topics | None:
        """Return the topics of a base: its entries' tags, or its own intents where none is tagged.

        Args:
            entries: All entries; their wordings are read as they are kept for retrieval, which
                costs no encoding and names fewer wrong topics than to encode them as messages.
            own: The base's examples of intents as (text, label).
            passages: From texts to their vectors as passages.
            queries: From texts to their vectors as messages.
        """
        wordings = [(t, e.tags) for e in entries for t in (e.question, *e.alternates) if e.tags]
        if len(wordings) > MOST_WORDINGS:
            wordings = random.Random(7).sample(wordings, MOST_WORDINGS)
        said = [
            (text, ()) for text, label in general_examples() if label in (*SOCIAL, OUT_OF_SCOPE)
        ]
        if not wordings:
            said += [(text, (label,) if label != OUT_OF_SCOPE else ()) for text, label in own]
        known = [
            await passages(list(dict.fromkeys(text for text, _ in wordings))),
            await queries(list(dict.fromkeys(text for text, _ in said))),
        ]
        vectors = [known[0][text] for text, _ in wordings] + [known[1][text] for text, _ in said]
        tags = [mine for _, mine in (*wordings, *said)]
        return await asyncio.to_thread(cls.fit, np.stack(vectors), tags)

    def of(self, vector: Vector) -> tuple[Intent, ...]:
        """Return the likeliest topics above the floor, or `other` where there is none."""
        near = _centred(vector[None], self._centre).astype(np.float32)
        signals = _topic_signals(near, self._known, self._member, itself=False)[0]
        chances = 1 / (1 + np.exp(-signals @ self._weights))
        order = np.argsort(-chances, kind="stable")[:MOST_TOPICS]
        told = [Intent(self.names[i], round(float(chances[i]), 4)) for i in order]
        above = tuple(topic for topic in told if topic.probability >= TOPIC_FLOOR)
        return above or (Intent(OTHER, round(1 - float(chances.max()), 4)),)


def seeking_examples() -> list[Labelled]:
    """Return the shipped examples of what asks for a look-up, and of what does not."""
    ours = _read("seeking.csv")
    taken = {example.text for example in ours}
    social = [
        Labelled(text, OTHER, "")
        for text, label in general_examples()
        if label in SOCIAL and text not in taken
    ]
    return [*ours, *social]


def look_ups() -> list[str]:
    """Return what customers ask of businesses of all kinds, in six languages."""
    return [row.text for row in _read("seeking.csv") if row.label == LOOK_UP]


def as_asking(examples: Sequence[Labelled]) -> list[Labelled]:
    """Return examples of what asks anything: a question that records answer is one, too."""
    return [replace(e, label=LOOK_UP) if e.label == RECORD else e for e in examples]


def sentiment_examples() -> list[Labelled]:
    """Return the shipped examples of how messages sound."""
    return _read("sentiment.csv")


def fit_head(examples: Sequence[Labelled], vectors: Mapping[str, Vector], cues: Cues) -> Head:
    """Return the head of labelled examples."""
    return Head.fit(
        np.stack([vectors[example.vector_of] for example in examples]),
        [example.text for example in examples],
        [example.label for example in examples],
        cues,
    )


def asking_cues(text: str) -> list[float]:
    """Return what the form of a message says about whether it asks; each in [0, 1]."""
    asked = question_part(text)
    return [
        float(bool(_QUESTION_MARK.search(text))),
        float(bool(_LEADS.search(asked))),
        float(bool(_WONDERS.search(text))),
        float(bool(_DIGIT.search(text))),
        float(bool(_ORDERS.search(text))),
        min(len(asked.split()), 12) / 12,
        float(not asked),
    ]


def feeling_cues(text: str) -> list[float]:
    """Return what the form of a message says about how it sounds; each in [0, 1]."""
    return [
        float(bool(_THANKS.search(text))),
        float(bool(_QUESTION_MARK.search(text))),
        min(text.count("!") + text.count("！"), 3) / 3,
        float(bool(_SHOUTED.search(text))),
        float(bool(_GLAD.search(text))),
        float(bool(_CROSS.search(text))),
    ]


def garbled(text: str) -> str:
    """Return a message as speech recognition might hear it, always the same for a text.

    Without marks and capitals; words are cut, joined, changed or dropped, and fillers come in.
    """
    words = _SPOKEN.findall(text.lower())
    if len(words) < 3 or not text.isascii():
        return text
    rng = random.Random(text)
    heard: list[str] = []
    for word in words:
        chance = rng.random()
        if chance < 0.05:
            continue
        if chance < 0.1:
            heard.append(rng.choice(_FILLERS))
        said = _misheard(word, rng) if len(word) > 3 and rng.random() < 0.25 else word
        if heard and rng.random() < 0.06:
            heard[-1] += said
        else:
            heard.append(said)
    return " ".join(heard) or text


def log_odds(chance: float) -> float:
    """Return the log-odds of a chance, bounded."""
    inside = min(max(chance, 1e-9), 1 - 1e-9)
    return float(np.clip(np.log(inside / (1 - inside)), -MOST_LOGIT, MOST_LOGIT))


def unseen_chances(
    examples: Sequence[Labelled], vectors: Mapping[str, Vector], cues: Cues
) -> tuple[tuple[str, ...], Floats]:
    """Return the labels, and the chances that heads give to examples which they did not see."""
    names = np.asarray([example.label for example in examples])
    logits, classes = _unseen_logits(
        np.stack([vectors[example.vector_of] for example in examples]),
        [example.text for example in examples],
        names,
        cues,
    )
    temperature = _temperature(logits, np.searchsorted(classes, names))
    return tuple(map(str, classes)), softmax(logits / temperature, axis=1)


def _misheard(word: str, rng: random.Random) -> str:
    at, chance = rng.randrange(1, len(word)), rng.random()
    if chance < 0.3:
        return word[:at] + word[at + 1 :]
    if chance < 0.6:
        return word[:at] + rng.choice("aeiou") + word[at + 1 :]
    return f"{word[:at]} {word[at:]}" if chance < 0.85 else word[: at + 1]


def _some_questions(questions: Sequence[str]) -> list[str]:
    """Return questions, of many always the same: a new entry then changes few of them."""
    different = sorted({question for question in questions if question.strip()})
    different.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    return different[:MOST_QUESTIONS]


def _read(name: str) -> list[Labelled]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return [Labelled(r["text"], r["label"], r["locale"]) for r in csv.DictReader(file)]


def _inputs(vectors: Matrix, texts: Sequence[str], centre: Floats, cues: Cues) -> Floats:
    return np.column_stack([_centred(vectors, centre), np.asarray([cues(text) for text in texts])])


def _centred(vectors: Matrix, centre: Floats) -> Floats:
    """Return unit vectors around the centre: e5's lie in a narrow cone (cosines 0.7 to 1)."""
    moved = vectors - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)


def _logistic(inputs: Floats, names: NDArray[np.str_]) -> tuple[list[str], Floats, Floats]:
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    model.fit(inputs, names)
    weights, bias = np.asarray(model.coef_).T, np.asarray(model.intercept_)
    if weights.shape[1] == 1:  # of two labels scikit-learn keeps only the second's
        weights = np.column_stack([np.zeros(len(weights)), weights[:, 0]])
        bias = np.asarray([0.0, bias[0]])
    return [str(label) for label in model.classes_], weights, bias


def _unseen_logits(
    vectors: Matrix, texts: Sequence[str], names: NDArray[np.str_], cues: Cues
) -> tuple[Floats, NDArray[np.str_]]:
    """Return each example's log-odds from heads fitted without its fold, and the labels.

    Folds take every fifth of each label, so that the same texts always give the same head.
    """
    classes, places = np.unique(names, return_inverse=True)
    fold = np.zeros(len(names), np.int64)
    for place in range(len(classes)):
        mine = np.flatnonzero(places == place)
        fold[np.random.default_rng(7).permutation(mine)] = np.arange(len(mine)) % FOLDS
    logits = np.zeros((len(names), len(classes)))
    for held_out in range(FOLDS):
        seen, test = fold != held_out, fold == held_out
        centre = vectors[seen].mean(axis=0).astype(np.float64)
        inputs = _inputs(vectors, texts, centre, cues)
        _, weights, bias = _logistic(inputs[seen], names[seen])
        logits[test] = inputs[test] @ weights + bias
    return logits, classes


def _temperature(logits: Floats, truth: NDArray[np.int64]) -> float:
    def loss(log_temperature: float) -> float:
        told = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(told[np.arange(len(truth)), truth].mean())

    found: Any = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    return float(np.exp(found.x))


def _shared_tags(tags: Sequence[Sequence[str]]) -> list[str]:
    counts: dict[str, int] = {}
    for mine in tags:
        for tag in dict.fromkeys(mine):
            counts[tag] = counts.get(tag, 0) + 1
    return sorted(tag for tag, count in counts.items() if count >= FEWEST_ENTRIES)


def _topic_signals(near: Matrix, known: Matrix, member: Floats, *, itself: bool) -> Floats:
    """Return for each message and tag how near it is, shape (messages, tags, 4).

    The last column of `member` is what has no tag: a tag must be nearer than that, too. With
    `itself`, the messages are the known wordings and none counts for itself.
    """
    cosines = (near @ known.T).astype(np.float64)
    own = np.eye(len(known)) if itself else np.zeros(cosines.shape)
    others = np.where(own > 0, 0.0, cosines)
    counts = np.maximum(member.sum(axis=0) - (own @ member), 1.0)
    middle = (others @ member) / counts
    nearest = np.stack([_nearest(others, member[:, tag] > 0) for tag in range(member.shape[1])], 1)
    lead = nearest - _best_other(nearest)
    return np.stack([middle, nearest, lead, np.ones_like(middle)], axis=2)[:, :-1]


def _nearest(cosines: Floats, mine: NDArray[np.bool_]) -> Floats:
    some = cosines[:, mine]
    if not some.shape[1]:
        return np.zeros(len(cosines))
    depth = min(NEAREST, some.shape[1])
    return np.sort(some, axis=1)[:, -depth:].mean(axis=1)


def _best_other(nearest: Floats) -> Floats:
    """Return for each tag the largest value of all others."""
    order = np.sort(nearest, axis=1)
    best, second = order[:, -1:], order[:, -2:-1]
    return np.where(nearest == best, second, best)


def _topic_weights(signals: Floats, member: Floats) -> Floats:
    """Return the logistic map from signals to the chance of a tag."""
    flat, truth = signals.reshape(-1, signals.shape[2]), member.reshape(-1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = flat @ weights
        chance = 1 / (1 + np.exp(-np.clip(z, -40, 40)))
        value = float(np.mean(np.logaddexp(0.0, z) - truth * z) + 5e-6 * weights @ weights)
        return value, flat.T @ (chance - truth) / len(truth) + 1e-5 * weights

    return minimize(loss, np.zeros(flat.shape[1]), jac=True, method="L-BFGS-B").x
