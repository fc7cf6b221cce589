"""Fitting the chance that an entry answers, and from which chance on to answer.

Run as `python -m training.calibrating MODELS --kb FILE` (the model store, and entries about many
entities, such as kb.jsonl of DSTC9 Track 1); it writes `retrieval/data/confidence.json`. From the
entries it makes conversations by rule (`training.dialogues`), half of them spoken: the sample
shop alone cannot show what it counts that the conversation is about an entity.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import binom

from answering.fitting import labelled
from answering.intents import OUT_OF_SCOPE, IntentClassifier, general_examples
from answering.politeness import question_part
from answering.signals import look_ups
from core.types import FaqEntry
from retrieval.encoders.protocol import Encoder
from retrieval.entities import gist, talked_about
from retrieval.fusion import (
    AGAINST_WEIGHT,
    CALIBRATION,
    EXACT_WEIGHT,
    SIGNALS,
    Calibrator,
    Doubts,
    Signals,
)
from retrieval.index import Change, KnowledgeIndex, blended, doubts, texts_of
from retrieval.rewriting import is_chinese
from training.businesses import Asked, own_data
from training.dialogues import dialogues, split

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

TOLERANCES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2)
FEWEST_ANSWERS = 60
"""Among fewer answers a single error decides."""
DELTA = 0.1
"""The chance that a certified threshold keeps its rate only by luck."""
PENALTY = 1e-5
FOLDS = 5
NEGATIVE_LABELS = frozenset({OUT_OF_SCOPE, "greeting", "thanks", "goodbye", "human_request"})
MISSING_SHARE = 0.1
"""How much a question whose entry was taken out counts: customers ask it less often."""
TRAFFIC = {
    "customer": 1.0, "missing": 0.05, "unrelated": 0.05, "business": 0.1, "business gap": 0.03,
}  # fmt: skip
"""How often each kind of case is met, for the thresholds.

Left-out alternates are harder than what customers say and are not counted; most messages without
an answer are recognised by their intent before a threshold is asked.
"""
LEFT_OUT_SHARE = 0.2
"""How much a left-out alternate counts: staff pick alternates to differ, customers do not."""
FOREIGN_SHARE = 0.1
UNRELATED_SHARE = 0.3
ASKED_SHARE = 0.5
SPLIT_SEED = 5
"""Half of the entities are asked for; conversations about the others are left to measure on."""
BUSINESS_SHARES = {"business": 0.1, "business missing": 0.015, "business gap": 0.05}
"""How much a question to one of our invented businesses counts: most were written to share hardly
a word with their entry, which is harder than what customers write."""
CONVERSATION_SHARE = 0.05
"""How much a conversation made by rule counts: there can be any number of them."""


@dataclass(frozen=True)
class Case:
    """A question with its candidates.

    Attributes:
        right: Which of the candidates answer; none where the entry is missing.
        group: Cases of one entry are never on both sides of a fold.
    """

    signals: tuple[Signals, ...]
    doubts: Doubts
    right: tuple[int, ...]
    weight: float
    group: str
    kind: str


class Cases:
    """Makes cases from one knowledge base.

    Args:
        entries: Published entries; ids of translations end in `-<locale>`.
        examples: Labelled messages as (text, label), the base's own and the general ones.
        questions: Customers' questions with the ids of the entries that answer them.
        encoder: The encoder whose confidence is calibrated.
    """

    def __init__(
        self,
        entries: Sequence[FaqEntry],
        examples: Sequence[tuple[str, str]],
        questions: Sequence[tuple[str, frozenset[str]]],
        encoder: Encoder,
    ) -> None:
        self._entries = entries
        self._examples = examples
        self._questions = questions
        wanted = [text for entry in entries for text in texts_of(entry)]
        self._passages = _encoded(wanted, encoder.encode_passages)
        asked = [alternate for entry in entries for alternate in entry.alternates]
        asked += [text for text, _ in [*examples, *questions]]
        asked += [*look_ups(), *(entry.question for entry in entries)]
        self._queries = _encoded(asked, encoder.encode_queries)
        self._index = KnowledgeIndex(encoder.dimensions, UNFITTED)
        self._index.apply([self._change(entry) for entry in entries])

    def make(self) -> Iterator[Case]:
        """Yield a case for each left-out alternate, missing entry and unrelated message."""
        halves = [self._classifier(0), self._classifier(1)]
        for number, entry in enumerate(self._entries):
            for alternate in entry.alternates:
                off_topic = _off_topic(halves[number % 2], self._queries[alternate])
                yield from self._of_alternate(entry, alternate, off_topic)
        for number, (text, ids) in enumerate(self._questions):
            off_topic = _off_topic(halves[number % 2], self._queries[text])
            yield from self._of_question(text, ids, off_topic)
        for number, (text, label) in enumerate(self._examples):
            if label in NEGATIVE_LABELS:
                off_topic = _off_topic(halves[(number + 1) % 2], self._queries[text])
                yield from self._unrelated(text, off_topic)

    def _of_alternate(self, entry: FaqEntry, alternate: str, off_topic: float) -> Iterator[Case]:
        rest = tuple(a for a in entry.alternates if a != alternate)
        self._index.apply([self._change(replace(entry, alternates=rest))])
        common: dict[str, Any] = {"off_topic": off_topic, "locale": entry.locale}
        yield from self._case(
            alternate, {entry.id}, kind="alternate", weight=LEFT_OUT_SHARE, **common
        )
        twins = [e.id for e in self._entries if _root(e) == _root(entry) and e is not entry]
        if twins:
            yield from self._case(
                alternate, {twins[0]}, kind="foreign", foreign=True, weight=FOREIGN_SHARE, **common
            )
        self._index.apply([self._change(entry)])

    def _of_question(self, text: str, ids: frozenset[str], off_topic: float) -> Iterator[Case]:
        yield from self._case(text, ids, off_topic=off_topic, locale="en", kind="customer")
        yield from self._case(
            text, set(), off_topic=off_topic, locale="en", kind="missing", without=ids,
            group=min(ids), weight=MISSING_SHARE,
        )  # fmt: skip

    def _unrelated(self, text: str, off_topic: float) -> Iterator[Case]:
        locale = "zh" if is_chinese(text) else "en"
        yield from self._case(
            text, set(), off_topic=off_topic, locale=locale, kind="unrelated",
            weight=UNRELATED_SHARE,
        )  # fmt: skip

    def _case(
        self,
        text: str,
        right: AbstractSet[str],
        *,
        off_topic: float,
        locale: str,
        kind: str,
        foreign: bool = False,
        without: AbstractSet[str] = frozenset(),
        group: str = "",
        weight: float = 1.0,
    ) -> Iterator[Case]:
        found = self._index.candidates(
            text, self._queries[text], locale=locale, foreign=foreign, without=without,
            about=talked_about([("customer", text)], self._index.entities),
        )  # fmt: skip
        if not found:
            return
        places = tuple(i for i, c in enumerate(found) if c.entry.id in right)
        yield Case(
            tuple(c.signals for c in found),
            doubts(text, found, off_topic),
            places,
            weight,
            group or min(right, default=text),
            kind,
        )

    def _classifier(self, half: int) -> IntentClassifier:
        """Return intents fitted on every second example, so that the others are new to it."""
        some = [e for i, e in enumerate(self._examples) if i % 2 == half]
        questions = [e.question for i, e in enumerate(self._entries) if i % 2 != half]
        given = labelled([e for e in some if e not in general_examples()], questions)
        held = {text for text, _ in some} | set(questions) | set(look_ups())
        kept = [(text, label) for text, label in given if text in held]
        vectors = np.stack([self._queries[text] for text, _ in kept])
        return IntentClassifier.fit(vectors, [label for _, label in kept])

    def _change(self, entry: FaqEntry) -> Change:
        return Change(entry, np.stack([self._passages[text] for text in texts_of(entry)]))


UNFITTED = Calibrator((0.0,) * SIGNALS, (0.0,) * 3, 0.0, {"0.05": 0.5})


def conversation_cases(
    entries: Sequence[FaqEntry],
    about: Sequence[FaqEntry],
    count: int,
    encoder: Encoder,
    seed: int = 17,
) -> Iterator[Case]:
    """Yield a case for each of some conversations that are made about entries.

    Half are written and half spoken; where nothing is to be looked up, no candidate is right.

    Args:
        entries: The base, about many entities.
        about: Those of it that are asked for.
        count: How many conversations.
        encoder: The encoder whose confidence is calibrated.
        seed: Decides which conversations.
    """
    index = KnowledgeIndex(encoder.dimensions, UNFITTED)
    passages = _encoded([t for e in entries for t in texts_of(e)], encoder.encode_passages)
    index.apply([Change(e, np.stack([passages[t] for t in texts_of(e)])) for e in entries])
    rng = random.Random(seed)
    made = [*dialogues(about, count // 2, rng), *dialogues(about, count // 2, rng, "spoken")]
    asked = [question_part(text := str(r["turns"][-1]["text"])) or text for r in made]
    gists = [gist(text, index.entities) for text in asked]
    examples = _examples_of(entries)
    queries = _encoded([*asked, *gists, *(t for t, _ in examples)], encoder.encode_queries)
    classifier = _fitted(examples, queries)
    for row, text, plain in zip(made, asked, gists, strict=True):
        said = [("customer" if t["speaker"] == "U" else "bot", t["text"]) for t in row["turns"]]
        found = index.candidates(
            text, blended(queries[text], queries[plain]), locale=entries[0].locale,
            about=talked_about(said, index.entities),
        )  # fmt: skip
        yield Case(
            tuple(c.signals for c in found),
            doubts(text, found, _off_topic(classifier, queries[text])),
            tuple(i for i, c in enumerate(found) if c.entry.id in row["relevant"]),
            CONVERSATION_SHARE,
            f"about {row['entity']}",
            "conversation" if row["relevant"] else "unrelated turn",
        )


def business_cases(
    bases: Mapping[str, Sequence[FaqEntry]], asked: Sequence[Asked], encoder: Encoder
) -> Iterator[Case]:
    """Yield what customers ask of several businesses: with its entry, without it, and gaps.

    Args:
        bases: The entries of each business, by name.
        asked: What is asked of them; None answers a gap.
        encoder: The encoder whose confidence is calibrated.
    """
    for base, entries in bases.items():
        mine = [a for a in asked if a.base == base]
        index = KnowledgeIndex(encoder.dimensions, UNFITTED)
        passages = _encoded([t for e in entries for t in texts_of(e)], encoder.encode_passages)
        index.apply([Change(e, np.stack([passages[t] for t in texts_of(e)])) for e in entries])
        examples = _examples_of(entries)
        queries = _encoded([*(a.text for a in mine), *(t for t, _ in examples)],
                           encoder.encode_queries)  # fmt: skip
        classifier = _fitted(examples, queries)
        for said in mine:
            off_topic = _off_topic(classifier, queries[said.text])
            right = {said.entry.id} if said.entry else set[str]()
            kinds = [("business", frozenset[str](), right)] if right else [
                ("business gap", frozenset[str](), right)]  # fmt: skip
            if right:
                kinds.append(("business missing", frozenset(right), set[str]()))
            for kind, without, answers in kinds:
                found = index.candidates(
                    said.text, queries[said.text], locale=entries[0].locale, without=without
                )
                yield Case(
                    tuple(c.signals for c in found),
                    doubts(said.text, found, off_topic),
                    tuple(i for i, c in enumerate(found) if c.entry.id in answers),
                    BUSINESS_SHARES[kind],
                    base,
                    kind,
                )


def _examples_of(entries: Sequence[FaqEntry]) -> list[tuple[str, str]]:
    return labelled([], [entry.question for entry in entries])


def _fitted(examples: Sequence[tuple[str, str]], queries: Any) -> IntentClassifier:
    vectors = np.stack([queries[text] for text, _ in examples])
    return IntentClassifier.fit(vectors, [label for _, label in examples])


def fit(cases: Sequence[Case]) -> Calibrator:
    """Return the calibrator under which what was right is likeliest, without thresholds.

    Where several entries are right, the chance of any of them counts.
    """
    size = max(len(case.signals) for case in cases)
    names = [field.name for field in fields(Signals)]
    table = np.zeros((len(cases), size, SIGNALS))
    allowed = np.zeros((len(cases), size + 1), np.bool_)
    right = np.zeros((len(cases), size + 1), np.bool_)
    doubt = np.asarray([[*case.doubts.values(), 1.0] for case in cases])
    weight = np.asarray([case.weight for case in cases])
    weight /= weight.sum()
    for row, case in enumerate(cases):
        table[row, : len(case.signals)] = [s.values() for s in case.signals]
        allowed[row, : len(case.signals)] = True
        right[row, list(case.right) or [size]] = True
    allowed[:, size] = True

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logits = np.concatenate(
            [table @ parameters[:SIGNALS], (doubt @ parameters[SIGNALS:])[:, None]], axis=1
        )
        chances = softmax(np.where(allowed, logits, -np.inf), axis=1)
        told = np.maximum((chances * right).sum(axis=1), 1e-12)
        surplus = (chances - chances * right / told[:, None]) * weight[:, None]
        gradient = np.concatenate(
            [np.einsum("ij,ijk->k", surplus[:, :size], table), surplus[:, size] @ doubt]
        )
        value = -(weight * np.log(told)).sum() + PENALTY * parameters @ parameters
        return value, gradient + 2 * PENALTY * parameters

    found = minimize(loss, np.zeros(SIGNALS + 4), jac=True, method="L-BFGS-B").x
    weights = list(found[:SIGNALS])
    weights[names.index("exact")] = EXACT_WEIGHT
    weights[names.index("against")] = AGAINST_WEIGHT
    return Calibrator(tuple(weights), tuple(found[SIGNALS:-1]), float(found[-1]), {})


def thresholds(
    confidences: Floats, right: NDArray[np.bool_], weights: Floats
) -> dict[str, dict[str, Any]]:
    """Return for each tolerated error rate from which confidence on answering keeps it.

    The rate holds, within one standard error of what so many answers can tell, from there on up
    to every stricter threshold. `certified` says whether so few errors would also be unlikely at
    a higher rate (Learn-then-Test); with some hundred cases hardly any rate is.

    Source: Angelopoulos et al. 2021.
    """
    grid = np.round(np.arange(0.96, 0.19, -0.02), 2)
    levels: dict[str, dict[str, Any]] = {}
    for tolerance in TOLERANCES:
        kept, certified = 0.97, False
        for threshold in grid:
            answered = confidences >= threshold
            number = weights[answered].sum()
            wrong = (weights * ~right)[answered].sum()
            slack = (tolerance * (1 - tolerance) / max(number, 1)) ** 0.5
            if number >= FEWEST_ANSWERS and wrong > (tolerance + slack) * number:
                break
            if number >= FEWEST_ANSWERS:
                kept = float(threshold)
                chance = binom.cdf(round(wrong), round(number), tolerance)
                certified = bool(chance <= DELTA)
        levels[str(tolerance)] = {"from": kept, "certified": certified}
    return levels


@dataclass(frozen=True)
class Outcome:
    """What a calibrator makes of cases it was not fitted on."""

    confidences: Floats
    right: NDArray[np.bool_]
    kinds: NDArray[np.str_]


def cross_check(cases: Sequence[Case]) -> Outcome:
    """Return each case's best chance and whether that entry was right, out of fold."""
    groups = {g: i % FOLDS for i, g in enumerate(sorted({case.group for case in cases}))}
    confidences = np.zeros(len(cases))
    right = np.zeros(len(cases), np.bool_)
    for fold in range(FOLDS):
        model = fit([case for case in cases if groups[case.group] != fold])
        for i, case in enumerate(cases):
            if groups[case.group] == fold:
                chances = model.chances(case.signals, case.doubts)
                confidences[i] = chances.max()
                right[i] = int(chances.argmax()) in case.right
    return Outcome(
        confidences,
        right,
        np.asarray([case.kind for case in cases]),
    )


def report(outcome: Outcome, answer_from: float) -> dict[str, Any]:
    """Return by kind of case how many there are, and how many are answered and how well."""
    figures: dict[str, Any] = {}
    for kind in dict.fromkeys(outcome.kinds.tolist()):
        mine = outcome.kinds == kind
        answered = mine & (outcome.confidences >= answer_from)
        figures[kind] = {
            "n": int(mine.sum()),
            "entry found first": round(float(outcome.right[mine].mean()), 3),
            "answered": round(float(answered.sum() / mine.sum()), 3),
            "right among answered": round(
                float(outcome.right[answered].mean()) if answered.any() else 1.0, 3
            ),
        }
    return figures


def calibrate(cases: Sequence[Case], note: str) -> dict[str, Any]:
    """Return what `confidence.json` holds: weights, thresholds, and how they came about."""
    outcome = cross_check(cases)
    shares = np.asarray([TRAFFIC.get(str(kind), 0.0) for kind in outcome.kinds])
    levels = thresholds(outcome.confidences, outcome.right, shares)
    model = fit(cases)
    return {
        "fitted": note,
        "weights": [round(w, 4) for w in model.weights],
        "none_weights": [round(w, 4) for w in model.none_weights],
        "bias": round(model.bias, 4),
        "thresholds": {rate: level["from"] for rate, level in levels.items()},
        "certified": [rate for rate, level in levels.items() if level["certified"]],
        "delta": DELTA,
        "out of fold at 0.05": report(outcome, levels["0.05"]["from"]),
    }


def _encoded(texts: Sequence[str], encode: Any) -> Mapping[str, NDArray[np.float32]]:
    unique = list(dict.fromkeys(texts))
    return dict(zip(unique, encode(unique), strict=True))


def _off_topic(classifier: IntentClassifier, vector: NDArray[np.float32]) -> float:
    return float(classifier.probabilities(vector[None])[0, -1])


def _root(entry: FaqEntry) -> str:
    return entry.id.removesuffix(f"-{entry.locale}")


def main(
    models: Annotated[Path, "The model store."],
    out: Path = CALIBRATION,
    encoder: str = "multilingual-e5-small",
    kb: Annotated[Path | None, "JSONL of entries about many entities."] = None,
    conversations: int = 800,
) -> None:
    """Calibrate on the sample shop, and on conversations about a base, and write the result."""
    from retrieval.encoders.loading import load_encoder
    from training.evaluation.report import read_jsonl
    from training.evaluation.samples import (
        entry_of,
        sample_entries,
        sample_examples,
        sample_questions,
    )

    examples = [*general_examples(), *sample_examples()]
    loaded = load_encoder(encoder, models)
    made = list(Cases(sample_entries(), examples, sample_questions(), loaded).make())
    made += business_cases(*own_data(), loaded)
    if kb is not None:
        entries = [entry_of(row) for row in read_jsonl(kb, ("id", "question", "answer"))]
        part, _ = split(entries, ASKED_SHARE, random.Random(SPLIT_SEED))
        made += conversation_cases(entries, part, conversations, loaded)
    note = (
        f"python -m training.calibrating, {loaded.name}: {len(made)} cases of the sample shop: the "
        "customers' messages of its training pairs, with and without the entry that answers; each "
        "alternate left out in turn, also against the entries of the other languages; messages of "
        "other intents with a classifier that was fitted without them; what is asked of invented "
        "businesses, gaps among it; with --kb, conversations made by rule about half of its "
        "entities, half of them spoken"
    )
    stored = calibrate(made, note)
    out.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(stored, indent=2))


if __name__ == "__main__":
    typer.run(main)
