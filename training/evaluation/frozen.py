"""Frozen evaluations: what a new model and the one that serves get on the same cases.

The cases are the staff's labels where there are at least 50, else a file's: for intents and
encoders JSON lines of `{"text", "intent"}` and `{"text", "entry_id"}`, for thresholds of
`{"confidence", "correct", "language"?}`, for reply adapters those of `eval replies`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from answering.fitting import IntentModel
from answering.intents import IntentClassifier
from answering.promoted import joined, read_encoder, read_head, read_thresholds, suits
from core import calibration
from core.db import faq, inboxes, intents, labels
from core.db.connect import Database
from core.db.labels import Label
from core.db.models import ModelVersion
from core.errors import ConfigurationError, Conflict, InvalidInput
from core.model_store import Store, serving
from core.risk import Labelled, Thresholds, interval
from core.settings import Settings
from core.types import (
    Author,
    FaqEntry,
    Intent,
    KnowledgeBase,
    KnowledgeBaseId,
    ModelKind,
    Utterance,
)
from core.vectors import DatabaseVectors, digest
from retrieval.encoders import Encoder, Vectors, adapter, load_encoder
from retrieval.fusion import shipped_calibrator
from retrieval.index import texts_of
from retrieval.lexical import tokens
from training.evaluation import report, retrieval
from training.evaluation.retrieval import Query

ENOUGH_LABELS = 50
NOTHING = "nothing to compare on: there are fewer than 50 labels of staff, and no --cases"

Vector = NDArray[np.float32]
Tell = Callable[[str], None]


def tell_nobody(_line: str) -> None:
    """Most callers show no progress."""


@dataclass(frozen=True)
class Evidence:
    """What two models got on the same cases, one score a case each; empty where there are none.

    Attributes:
        what: What a score is.
        source: Where the cases come from.
        sha256: Of the cases.
        note: What else there is to say.
        broken: Why the new one must not serve whatever its scores, empty if it may.
        old_breaks: The old one must not serve: to be worse than it is no fault.
    """

    old: Sequence[float] = ()
    new: Sequence[float] = ()
    what: str = ""
    source: str = ""
    sha256: str = ""
    note: str = ""
    broken: str = ""
    old_breaks: bool = False


@dataclass(frozen=True)
class _Case:
    """A labelled message of a base."""

    base: KnowledgeBase
    text: str
    intent: str | None = None
    entry_id: str | None = None
    locale: str = "en"
    confidence: float | None = None
    is_correct: bool | None = None
    history: tuple[Utterance, ...] = ()
    signals: Mapping[str, float] | None = None
    chosen: str = ""

    def values(self) -> list[object]:
        """Return what the evaluation's hash is made of."""
        return [self.base.name, self.text, self.intent, self.entry_id, self.locale,
                self.confidence, self.is_correct, [u.text for u in self.history],
                dict(self.signals or {}), self.chosen]  # fmt: skip


async def measure(
    database: Database,
    settings: Settings,
    version: ModelVersion,
    old: ModelVersion | None,
    base_id: KnowledgeBaseId | None,
    *,
    cases: Path | None = None,
    results: tuple[Path, Path] | None = None,
    tell: Tell = tell_nobody,
) -> Evidence:
    """Return what a version and the one that serves get on the frozen evaluation.

    Args:
        database: Has labels, entries and stored vectors.
        settings: Where models are.
        version: The new one.
        old: The one that serves; None is what ships.
        base_id: For which base it would serve; None for all.
        cases: For where there are few labels.
        results: Of reply adapters, what `eval replies --out` wrote with the old and the new one.
        tell: Takes one line of progress at a time.

    Raises:
        InvalidInput: A file is not in order.
        Conflict: The version does not fit the encoder that serves.
        ConfigurationError: A model cannot be loaded.
    """
    if version.kind is ModelKind.REPLY_ADAPTER:
        return _replies(results, cases)
    async with database.transaction() as conn:
        bases = [b for b in await inboxes.bases(conn) if base_id in (None, b.id)]
        known = [(b, await labels.load(conn, b.id, ["staff"])) for b in bases]
    if version.kind is ModelKind.CALIBRATION:  # the signals stand in the turns' traces
        judged = [(b, (await calibration.load(database, b.name)).usable) for b in bases]
        every = [_judged(b, each) for b, found in judged for each in found if each.certifies]
    else:
        every = [_case(base, label) for base, found in known for label in found]
    usable = [case for case in every if _is_usable(version.kind, case)]
    source = f"{len(usable)} labels of staff"
    if len(usable) < ENOUGH_LABELS:
        if cases is None:
            return Evidence(note=NOTHING)
        usable = _from_file(cases, version.kind, bases)
        source = cases.name
    tell(f"Comparing {version.name} with {old.name if old else 'what ships'} on {source}")
    scored = await _MEASURES[version.kind](database, settings, version, old, usable)
    digest = hashlib.sha256(json.dumps([case.values() for case in usable]).encode()).hexdigest()
    return replace(scored, source=source, sha256=digest)


async def require_whole(database: Database, settings: Settings, version: ModelVersion) -> None:
    """Make sure that a version holds what its kind needs, whoever forces it.

    Raises:
        ConfigurationError: It does not.
        Unavailable: Its files cannot be fetched.
    """
    folder = await Store(database, settings.models_dir).folder(version)
    if version.kind is ModelKind.INTENTS:
        read_head(folder)
    elif version.kind is ModelKind.CALIBRATION:
        read_thresholds(folder)
    elif not any((folder / name).is_file() for name in _NEEDED[version.kind]):
        raise ConfigurationError(
            f"{version.name} holds none of {', '.join(_NEEDED[version.kind])}: it is no "
            f"{version.kind}"
        )


_NEEDED = {
    ModelKind.ENCODER: (adapter.CONFIG, "modules.json", "config.json"),
    ModelKind.REPLY_ADAPTER: (adapter.CONFIG,),
}


def _case(base: KnowledgeBase, label: Label) -> _Case:
    return _Case(
        base, label.text, label.intent, label.entry_id, label.locale, label.confidence,
        label.is_correct,
        tuple(Utterance(Author(said["author"]), said["text"]) for said in label.history),
    )  # fmt: skip


def _judged(base: KnowledgeBase, label: Labelled) -> _Case:
    """Return a label as thresholds see it."""
    return _Case(
        base, label.group, locale=label.language, confidence=label.signals["confidence"],
        is_correct=label.is_right, signals=label.signals, chosen=label.entry,
    )  # fmt: skip


def _is_usable(kind: ModelKind, case: _Case) -> bool:
    if kind is ModelKind.INTENTS:
        return case.intent is not None
    if kind is ModelKind.ENCODER:
        return case.entry_id is not None
    return case.confidence is not None and case.is_correct is not None


def _from_file(path: Path, kind: ModelKind, bases: Sequence[KnowledgeBase]) -> list[_Case]:
    """Return a file's cases; they are about the base that is named, or the only one there is."""
    if kind is ModelKind.INTENTS:
        base = bases[0]
        if path.suffix == ".csv":
            return [_Case(base, t, intent=label) for t, label in report.read_labelled(path)]
        return [
            _Case(base, str(row["text"]), intent=str(row["intent"]))
            for row in report.read_jsonl(path, ("text", "intent"))
        ]
    if len(bases) != 1:
        raise InvalidInput("Say by --base about which knowledge base the cases are.", field="base")
    if kind is ModelKind.ENCODER:
        return [
            _Case(bases[0], str(row["text"]), entry_id=str(row["entry_id"]))
            for row in report.read_jsonl(path, ("text", "entry_id"))
        ]
    return [
        _Case(
            bases[0], "", locale=str(row.get("language") or bases[0].locale),
            confidence=float(row["confidence"]), is_correct=bool(row["correct"]),
        )
        for row in report.read_jsonl(path, ("confidence", "correct"))
    ]  # fmt: skip


# --- intents -------------------------------------------------------------------------------------


async def _intents(
    database: Database,
    settings: Settings,
    version: ModelVersion,
    old: ModelVersion | None,
    cases: Sequence[_Case],
) -> Evidence:
    """Score 1 where the likeliest intent is the labelled one."""
    encoder = await _serving_encoder(database, settings)
    if not suits(version, encoder.name):
        raise Conflict(
            f"{version.name} was made on the encoder {version.settings.get('encoder')}, and "
            f"{encoder.name} serves: train it anew, or promote that encoder first."
        )
    store = Store(database, settings.models_dir)
    new_head = read_head(await store.folder(version))
    is_comparable = old is not None and suits(old, encoder.name)
    old_head = read_head(await store.folder(old)) if old and is_comparable else None
    new: list[float] = []
    before: list[float] = []
    for base in {case.base.id: case.base for case in cases}.values():
        some = [case for case in cases if case.base.id == base.id]
        vectors = await asyncio.to_thread(encoder.encode_queries, [case.text for case in some])
        texts = [case.text for case in some]
        general = _told(await _fitted(database, encoder, base), vectors, texts)
        new += _hits(_joined(general, new_head, vectors, texts), some)
        before += _hits(_joined(general, old_head, vectors, texts), some)
    return Evidence(before, new, "intents told right")


async def _fitted(
    database: Database, encoder: Encoder, base: KnowledgeBase
) -> IntentClassifier | None:
    """Return the classifier that workers fit for a base where no head is promoted."""
    entries, examples = await _content(database, base)
    kept = await _Remembering.of(database, encoder)

    async def vectors(texts: Sequence[str]) -> Mapping[str, Vector]:
        await kept.recall("query", texts)
        encoded = await asyncio.to_thread(kept.encode_queries, texts)
        await kept.keep()
        return dict(zip(texts, encoded, strict=True))

    model = IntentModel()
    model.own = tuple(examples)
    await model.fit([entry.question for entry in entries], vectors)
    return model.classifier


def _told(
    classifier: IntentClassifier | None, vectors: Any, texts: Sequence[str]
) -> list[list[Intent]]:
    return [[] for _ in texts] if classifier is None else classifier.predict(vectors, texts)


def _joined(
    general: Sequence[Sequence[Intent]],
    head: IntentClassifier | None,
    vectors: Any,
    texts: Sequence[str],
) -> Sequence[Sequence[Intent]]:
    if head is None:
        return general
    return [joined(g, h) for g, h in zip(general, head.predict(vectors, texts), strict=True)]


def _hits(told: Sequence[Sequence[Intent]], cases: Sequence[_Case]) -> list[float]:
    return [
        float(bool(found) and found[0].name == case.intent)
        for found, case in zip(told, cases, strict=True)
    ]


# --- encoders ------------------------------------------------------------------------------------


async def _encoders(
    database: Database,
    settings: Settings,
    version: ModelVersion,
    old: ModelVersion | None,
    cases: Sequence[_Case],
) -> Evidence:
    """Score 1 where the labelled entry is found first; what is encoded stays stored for workers."""
    store = Store(database, settings.models_dir)
    scores: list[list[float]] = []
    for each in (old, version):
        folder = None if each is None else await store.folder(each)
        encoder = await asyncio.to_thread(_load, settings, folder)
        scores.append(await _found_first(database, encoder, cases))
    return Evidence(*scores, what="recall@1")


def _load(settings: Settings, folder: Path | None) -> Encoder:
    if folder is not None:
        return read_encoder(folder, settings)
    return load_encoder(settings.encoder, settings.models_dir, settings.device)


async def _serving_encoder(database: Database, settings: Settings) -> Encoder:
    version = await serving(database, ModelKind.ENCODER)
    folder = None if version is None else await Store(database, settings.models_dir).folder(version)
    return await asyncio.to_thread(_load, settings, folder)


async def _found_first(database: Database, encoder: Encoder, cases: Sequence[_Case]) -> list[float]:
    found: dict[int, float] = {}
    for base in {case.base.id: case.base for case in cases}.values():
        entries, _ = await _content(database, base)
        kept = await _Remembering.of(database, encoder)
        await kept.recall("passage", [text for entry in entries for text in texts_of(entry)])
        index = await asyncio.to_thread(retrieval.build_index, entries, kept)
        await kept.keep()
        for place, case in enumerate(cases):
            if case.base.id == base.id:
                query = Query(str(place), case.text, case.history, frozenset(), "")
                first = await asyncio.to_thread(
                    retrieval.search, index, encoder, query, case.locale, 1
                )
                found[place] = float(first[:1] == [case.entry_id])
    return [found[place] for place in range(len(cases))]


class _Remembering:
    """An encoder that knows the vectors in the database, and keeps what it has to encode."""

    def __init__(self, encoder: Encoder, vectors: DatabaseVectors) -> None:
        self.name = encoder.name
        self.dimensions = encoder.dimensions
        self._encoder = encoder
        self._vectors = vectors
        self._known: dict[bytes, Vector] = {}
        self._fresh: dict[bytes, Vector] = {}

    @classmethod
    async def of(cls, database: Database, encoder: Encoder) -> _Remembering:
        return cls(encoder, DatabaseVectors(database, encoder.name))

    async def recall(self, role: str, texts: Sequence[str]) -> None:
        """Read the vectors of texts that are stored."""
        known = await self._vectors.get([digest(role, text) for text in dict.fromkeys(texts)])
        self._known |= {key: np.asarray(vector, np.float32) for key, vector in known.items()}

    async def keep(self) -> None:
        """Store what had to be encoded: workers will not have to."""
        if self._fresh:
            await self._vectors.put({key: v.tolist() for key, v in self._fresh.items()})
            self._fresh = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoded("query", texts, self._encoder.encode_queries)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encoded("passage", texts, self._encoder.encode_passages)

    def _encoded(
        self, role: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]
    ) -> Vectors:
        keys = [digest(role, text) for text in texts]
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        fresh = dict(zip(missing, encode(list(missing.values())), strict=True)) if missing else {}
        self._known |= fresh
        self._fresh |= fresh
        return np.stack([self._known[key] for key in keys])


async def _content(
    database: Database, base: KnowledgeBase
) -> tuple[list[FaqEntry], list[tuple[str, str]]]:
    """Return the published entries of a base, and its intent examples."""
    async with database.transaction() as conn:
        _, entries = await faq.changed_since(conn, base.id, 0)
        examples = await intents.load(conn, base.id)
    published = [entry for entry in entries if entry.status == "published"]
    return published, [(e.text, e.label) for e in examples]


# --- thresholds ----------------------------------------------------------------------------------


async def _thresholds(
    database: Database,
    settings: Settings,
    version: ModelVersion,
    old: ModelVersion | None,
    cases: Sequence[_Case],
) -> Evidence:
    """Score 1 where a question is answered, as long as the tolerated rate is kept."""
    store = Store(database, settings.models_dir)
    new = read_thresholds(await store.folder(version))
    before = None if old is None else read_thresholds(await store.folder(old))
    answered = [_answers(new, case) for case in cases]
    were = [_answers(before, case) for case in cases]
    return Evidence(
        [float(each) for each in were],
        [float(each) for each in answered],
        "share answered",
        broken=_breach(answered, cases),
        old_breaks=bool(_breach(were, cases)),
    )


def _answers(thresholds: Thresholds | None, case: _Case) -> bool:
    assert case.confidence is not None
    if thresholds is None:
        return case.confidence >= shipped_calibrator().answer_from(case.base.tolerated_error)
    signals = case.signals or {"confidence": case.confidence}
    confidence = thresholds.confidence(signals, case.locale, case.chosen)
    return confidence >= thresholds.answer_from(case.locale)


def _breach(answered: Sequence[bool], cases: Sequence[_Case]) -> str:
    """Return how the tolerated rate is surely broken, empty where it may be kept."""
    tolerated = max(case.base.tolerated_error for case in cases)
    failures = sum(a and not c.is_correct for a, c in zip(answered, cases, strict=True))
    low, _ = interval(failures, sum(answered))
    if not sum(answered) or low <= tolerated:
        return ""
    return (
        f"{failures} of {sum(answered)} answers are wrong, surely more than the tolerated "
        f"{tolerated:.0%}"
    )


# --- reply adapters ------------------------------------------------------------------------------


def _replies(results: tuple[Path, Path] | None, cases: Path | None) -> Evidence:
    """Score the overlap with the reference reply, or the `score` that the lines have."""
    if results is None:
        return Evidence(
            note="nothing to compare: give --old and --new, as `eval replies --out` writes them"
        )
    old, new = (
        {str(row["id"]): row for row in report.read_jsonl(path, ("id",))} for path in results
    )
    if old.keys() != new.keys():
        raise InvalidInput(
            f"{results[0].name} and {results[1].name} are not about the same cases: "
            f"{len(old.keys() ^ new.keys())} ids are in one of them alone."
        )
    references = {
        str(row["id"]): str(row.get("reference") or "")
        for row in (report.read_jsonl(cases, ("id",)) if cases else [])
    }
    ids = [i for i in sorted(old) if "score" in old[i] or references.get(i)]
    if not ids:
        raise InvalidInput(
            "The results have no scores: give the cases with their references by --cases.",
            field="cases",
        )
    whole = json.dumps([[i, references.get(i)] for i in ids]).encode()
    return Evidence(
        [_overlap(old[i], references.get(i, "")) for i in ids],
        [_overlap(new[i], references.get(i, "")) for i in ids],
        "overlap with the reference reply (token F1)",
        source=results[1].name,
        sha256=hashlib.sha256(whole).hexdigest(),
    )


def _overlap(row: Mapping[str, Any], reference: str) -> float:
    """Return the F1 of the tokens that a reply shares with its reference (Rajpurkar 2016)."""
    if "score" in row:
        return float(row["score"])
    said, meant = Counter(tokens(str(row.get("text", "")))), Counter(tokens(reference))
    shared = sum((said & meant).values())
    return 2 * shared / (said.total() + meant.total()) if shared else 0.0


_MEASURES = {
    ModelKind.INTENTS: _intents,
    ModelKind.ENCODER: _encoders,
    ModelKind.CALIBRATION: _thresholds,
}
