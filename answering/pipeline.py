"""From a question to a grounded reply: encode, intents, retrieve, decide, say, check."""

from __future__ import annotations

import asyncio
import hashlib
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from answering import saying
from answering.engine import Engine
from answering.fitting import IntentModel
from answering.intents import GENERAL, OUT_OF_SCOPE, with_cues
from answering.languages import language_of
from answering.politeness import question_part
from answering.prompting import Prompt
from answering.reading import Reading, best_reading, parts_of
from answering.saying import Generate, Said, Words
from core import telemetry, texts
from core.deciding import Policy, Seen, decide
from core.dialogue import Dialogue, follow
from core.types import (
    Choice,
    Decision,
    FaqEntry,
    Intent,
    KnowledgeBase,
    KnowledgeBaseId,
    MessageKind,
    Passage,
    Question,
    Reply,
    ReplyStyle,
    Tier,
    Trace,
)
from retrieval.fusion import Calibrator, shipped_calibrator
from retrieval.index import Change, KnowledgeIndex, texts_of
from retrieval.rewriting import Context, candidates, must_lean, new_words, points_back

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

PASSAGES = 5
"""How many passages a decision sees and a trace keeps."""
QUERY_CACHE = 2_048
"""Vectors of what was asked lately, by exact text: semantic caching would mix up orders."""
APPLY_AT_ONCE = 25
"""Entries put into an index before the loop may serve others again."""
REFIT_SHARE = 0.1
"""The intents are fitted anew when so much of a base changed: its questions are in scope."""


class VectorCache(Protocol):
    """Vectors by the hash of their text, shared by all workers."""

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        ...

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors."""
        ...


class NoVectorCache:
    """Remembers nothing: for commands that run without a database."""

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return nothing."""
        return {}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep nothing."""


@dataclass
class _Base:
    """One knowledge base in memory."""

    index: KnowledgeIndex
    intents: IntentModel
    changed: int = 0


@dataclass
class _Timer:
    milliseconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        begun = time.perf_counter()
        with telemetry.stage(name):
            yield
        taken = (time.perf_counter() - begun) * 1000
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + taken, 2)


class Pipeline:
    """Answers questions from the knowledge bases that it holds in memory.

    Args:
        engine: Runs the models; started.
        style: The process's reply style.
        speaks: Languages in which the reply model writes.
        calibrator: From signals to confidence.
        now: The time for which entries must be valid.
        heads: Folder in which fitted intent heads are kept.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        style: ReplyStyle = ReplyStyle.ADAPTIVE,
        speaks: frozenset[str] = frozenset({"en"}),
        calibrator: Calibrator | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        heads: Path | None = None,
    ) -> None:
        self.engine = engine
        self.encoder_name = engine.encoder.name
        self._style = style
        self._speaks = speaks if engine.generator is not None else frozenset[str]()
        self._calibrator = calibrator or shipped_calibrator()
        self._now = now
        self._heads = heads
        self._bases: dict[KnowledgeBaseId, _Base] = {}
        self._queries: OrderedDict[str, Vector] = OrderedDict()

    @property
    def models(self) -> Mapping[str, str]:
        """Which models answer, as the trace shows them."""
        generator = self.engine.generator
        return {"encoder": self.encoder_name, "reply": generator.name if generator else "none"}

    def close(self) -> None:
        """Stop the engine and free the models."""
        self.engine.close()
        if self.engine.generator is not None:
            self.engine.generator.close()

    async def answer(self, question: Question) -> Reply:
        """Return what to say.

        Raises:
            Unavailable: The models cannot be used now.
        """
        timer = _Timer()
        base = self._base(question.knowledge_base)
        language = self._language(question)
        if question.kind is not MessageKind.TEXT:
            seen = Seen((), (), question.kind, question.holder)
            reading = Reading("", (), ())
            return await self._reply(question, reading, seen, language, timer, base)
        reading, seen = await self._understand(question, base, language, timer)
        if seen.holder is question.holder and (parts := self._parts(question, reading)):
            several = await self._answer_parts(question, parts, base, language, timer)
            if several is not None:
                return several
        return await self._reply(question, reading, seen, language, timer, base)

    async def search(self, base_id: KnowledgeBaseId, text: str, limit: int) -> list[Passage]:
        """Return the passages that a customer's question would find, best first."""
        base = self._bases.get(base_id)
        if base is None or not text.strip():
            return []
        (vector,) = await self._encode([text])
        language = language_of(text, fallback=_main_locale(base.index))
        off_topic = _off_topic(base.intents.predict(vector))
        return base.index.search(
            text, vector, locale=language, limit=limit, at=self._now(), off_topic=off_topic
        )

    async def refresh(
        self,
        base: KnowledgeBase,
        changes: Sequence[FaqEntry],
        *,
        removed: Sequence[str] = (),
        intents: Sequence[tuple[str, str]] | None = None,
        vectors: VectorCache | None = None,
    ) -> None:
        """Take in what changed; only new texts are encoded, the rest comes from the cache.

        Args:
            base: The knowledge base.
            changes: Entries that are new or were edited, all published.
            removed: Ids that are no longer to be found.
            intents: All examples of the base as (text, label); None where they did not change.
            vectors: Where vectors are kept.
        """
        cache = vectors or NoVectorCache()
        held = self._base(base)
        wanted = [text for entry in changes for text in texts_of(entry)]
        known = await self._vectors(wanted, cache, self.engine.encode_passages, "passage")
        held.index.apply((), removed)
        for start in range(0, len(changes), APPLY_AT_ONCE):
            some = changes[start : start + APPLY_AT_ONCE]
            held.index.apply(
                [Change(e, np.stack([known[text] for text in texts_of(e)])) for e in some]
            )
            await asyncio.sleep(0)
        held.changed += len(changes) + len(removed)
        if intents is not None:
            held.intents.own = tuple(intents)
        if (
            intents is not None
            or held.intents.classifier is None
            or held.changed > REFIT_SHARE * len(held.index)
        ):
            held.changed = 0
            await held.intents.fit(
                [e.question for e in held.index.entries.values()],
                lambda texts: self._vectors(texts, cache, self.engine.encode_examples, "query"),
            )

    def _base(self, base: KnowledgeBase) -> _Base:
        if base.id not in self._bases:
            index = KnowledgeIndex(self.engine.encoder.dimensions, self._calibrator)
            self._bases[base.id] = _Base(index, IntentModel(self._heads))
        return self._bases[base.id]

    def _language(self, question: Question) -> str:
        said = [u.text for u in question.history if u.author == "customer"]
        fallback = question.locale or question.knowledge_base.locale
        return language_of(" ".join(question.messages), earlier=said, fallback=fallback)

    async def _understand(
        self, question: Question, base: _Base, language: str, timer: _Timer
    ) -> tuple[Reading, Seen]:
        """Return the best reading of a message with its passages, and what the decision sees."""
        message = "\n".join(question.messages)
        asked = question_part(message)
        query = asked or message
        entries = base.index.entries
        dialogue = follow(
            question.history,
            [entries[i] for i in question.cited if i in entries],
            _clarify_texts(question.knowledge_base),
        )
        context = _context(dialogue, base.index)
        readings = candidates(query, context) if asked else [query]
        with timer.stage("encode"):
            vectors = await self._encode(readings)
        with timer.stage("intents"):
            intents = [base.intents.predict(vector) for vector in vectors]
            intents[0] = with_cues(query, intents[0])
        if _is_social(intents[0]):  # "wonderful, thanks" continues nothing
            readings, vectors, intents = readings[:1], vectors[:1], intents[:1]
        with timer.stage("retrieve"):
            found = [
                Reading(
                    text,
                    base.index.search(
                        text,
                        vector,
                        locale=language,
                        limit=PASSAGES,
                        at=self._now(),
                        off_topic=_off_topic(wanted),
                    ),
                    wanted,
                )
                for text, vector, wanted in zip(readings, vectors, intents, strict=True)
            ]
            reading = best_reading(
                found,
                must_lean=must_lean(query) or points_back(query, context),
                fresh=new_words(query, context),
            )
        seen = Seen(
            reading.intents,
            reading.passages,
            question.kind,
            question.holder,
            is_polite_only=not asked,
            asked_back=dialogue.asked_back,
        )
        return reading, seen

    def _parts(self, question: Question, reading: Reading) -> list[str]:
        parts = parts_of("\n".join(question.messages))
        return parts if len(parts) > 1 else []

    async def _answer_parts(
        self,
        question: Question,
        parts: Sequence[str],
        base: _Base,
        language: str,
        timer: _Timer,
    ) -> Reply | None:
        """Answer several questions in their order, where each has an entry of its own."""
        policy = self._policy(question.knowledge_base)
        with timer.stage("encode"):
            vectors = await self._encode(parts)
        with timer.stage("retrieve"):
            found = [
                base.index.search(
                    part, vector, locale=language, limit=PASSAGES, at=self._now(),
                    off_topic=_off_topic(base.intents.predict(vector)),
                )
                for part, vector in zip(parts, vectors, strict=True)
            ]  # fmt: skip
        best = [passages[0] for passages in found if passages]
        if len(best) < len(parts) or any(p.confidence < policy.answer_from for p in best):
            return None
        if len({p.entry.id for p in best}) < len(best):
            return None
        words = self._words(language)
        said: list[Said] = []
        with timer.stage("say"):
            for part, passage in zip(parts, best, strict=True):
                alone = replace(question, messages=(part,))
                choice = Choice(Decision.ANSWER, "one of several questions", (passage,))
                said.append(await saying.answer(alone, part, choice, words, self._generate(timer)))
        choice = Choice(Decision.ANSWER, "each question has an entry of its own", tuple(best))
        whole = saying.joined(said)
        whole = replace(whole, suggestions=self._suggestions(question, found[0], best, base))
        return self._made(
            question, "\n".join(parts), choice, whole, language, timer, (), best,
            min(p.confidence for p in best),
        )  # fmt: skip

    async def _reply(
        self,
        question: Question,
        reading: Reading,
        seen: Seen,
        language: str,
        timer: _Timer,
        base: _Base,
    ) -> Reply:
        with timer.stage("decide"):
            choice = decide(seen, self._policy(question.knowledge_base))
        with timer.stage("say"):
            said = await self._say(question, reading, seen, choice, language, timer, base)
        confidence = _confidence(choice, seen)
        return self._made(
            question, reading.text, choice, said, language, timer, seen.intents,
            seen.passages, confidence,
        )  # fmt: skip

    async def _say(
        self,
        question: Question,
        reading: Reading,
        seen: Seen,
        choice: Choice,
        language: str,
        timer: _Timer,
        base: _Base,
    ) -> Said:
        if choice.decision is Decision.ANSWER:
            said = await saying.answer(
                question, reading.text, choice, self._words(language), self._generate(timer)
            )
            suggestions = self._suggestions(question, seen.passages, choice.passages, base)
            return replace(said, suggestions=suggestions)
        if choice.decision is Decision.CLARIFY:
            return saying.clarify(question, choice, language)
        intent = seen.intents[0].name if seen.intents else ""
        return saying.system_text(question, choice, intent, language)

    def _suggestions(
        self,
        question: Question,
        passages: Sequence[Passage],
        chosen: Sequence[Passage],
        base: _Base,
    ) -> tuple[str, ...]:
        asked = [u.text for u in question.history] + list(question.messages)
        return saying.related(
            passages, [p.entry for p in chosen], tuple(base.index.entries.values()), asked
        )

    def _made(
        self,
        question: Question,
        query: str,
        choice: Choice,
        said: Said,
        language: str,
        timer: _Timer,
        intents: Sequence[Intent],
        passages: Sequence[Passage],
        confidence: float,
    ) -> Reply:
        policy = self._policy(question.knowledge_base)
        quoted = said.tier is Tier.APPROVED and choice.decision is Decision.ANSWER
        spoken = choice.passages[0].entry.locale.split("-")[0] if quoted else language
        return Reply(
            choice,
            said.text,
            said.tier,
            spoken,
            is_markdown=said.is_markdown,
            citations=said.citations,
            suggestions=said.suggestions,
            confidence=round(confidence, 4),
            trace=Trace(
                intents=tuple(intents[:3]),
                passages=tuple(passages),
                query=query,
                why=choice.why,
                checks=said.checks,
                models=self.models,
                milliseconds=timer.milliseconds,
                thresholds={
                    "answer_from": policy.answer_from,
                    "clarify_from": policy.clarify_from,
                    "together_from": policy.together_from,
                    "person_from": policy.person_from,
                    "small_talk_from": policy.small_talk_from,
                    "refuse_from": policy.refuse_from,
                },
            ),
        )

    def _policy(self, base: KnowledgeBase) -> Policy:
        return Policy(answer_from=self._calibrator.answer_from(base.tolerated_error))

    def _words(self, language: str) -> Words:
        return Words(language, self._style, self._speaks, self.engine.seconds_a_reply)

    def _generate(self, timer: _Timer) -> Generate | None:
        if self.engine.generator is None:
            return None

        async def generate(prompt: Prompt, seconds: float) -> saying.Generated:
            with timer.stage("generate"):
                return await self.engine.generate(prompt, seconds, saying.NEW_TOKENS)

        return generate

    async def _encode(self, wanted: Sequence[str]) -> list[Vector]:
        """Return the vectors of questions; what was asked lately is not encoded again."""
        keys = [" ".join(unicodedata.normalize("NFKC", text).split()) for text in wanted]
        missing = [key for key in dict.fromkeys(keys) if key not in self._queries]
        fresh = dict(zip(missing, await self.engine.encode(missing), strict=True))
        vectors = [fresh[key] if key in fresh else self._queries[key] for key in keys]
        for key, vector in zip(keys, vectors, strict=True):
            self._queries[key] = vector
            self._queries.move_to_end(key)
        while len(self._queries) > QUERY_CACHE:
            self._queries.popitem(last=False)
        return vectors

    async def _vectors(
        self,
        wanted: Sequence[str],
        cache: VectorCache,
        encode: Callable[[Sequence[str]], Awaitable[Matrix]],
        role: str,
    ) -> Mapping[str, Vector]:
        """Return the vectors of texts of a base, from the cache where they are known."""
        hashes = {
            text: hashlib.sha256(f"{role}: {text}".encode()).digest()
            for text in dict.fromkeys(wanted)
        }
        known = await cache.get(list(hashes.values())) if hashes else {}
        found = {
            text: np.asarray(known[digest], np.float32)
            for text, digest in hashes.items()
            if digest in known
        }
        missing = [text for text in hashes if text not in found]
        if missing:
            fresh = dict(zip(missing, await encode(missing), strict=True))
            await cache.put({hashes[text]: vector.tolist() for text, vector in fresh.items()})
            found |= fresh
        return found


def _context(dialogue: Dialogue, index: KnowledgeIndex) -> Context:
    """Return what is talked about; what the customer named counts before what was cited."""
    entity = index.mentioned(dialogue.said) or dialogue.entity
    return Context(dialogue.question, entity, dialogue.topic)


def _off_topic(intents: Sequence[Intent]) -> float:
    return next((i.probability for i in intents if i.name == OUT_OF_SCOPE), 0.0)


def _is_social(intents: Sequence[Intent]) -> bool:
    return bool(intents) and intents[0].name in GENERAL and intents[0].probability > 0.7


def _main_locale(index: KnowledgeIndex) -> str:
    counts: dict[str, int] = {}
    for entry in index.entries.values():
        counts[entry.locale] = counts.get(entry.locale, 0) + 1
    return max(counts, key=counts.__getitem__, default="en")


def _clarify_texts(base: KnowledgeBase) -> set[str]:
    languages = {*texts.shipped(), *base.texts}
    return {texts.text(base, "clarify", language) for language in languages}


def _confidence(choice: Choice, seen: Seen) -> float:
    best = seen.passages[0].confidence if seen.passages else 0.0
    if choice.decision is Decision.ANSWER:
        return best
    if choice.decision is Decision.CLARIFY:
        return min(sum(p.confidence for p in choice.passages), 1.0)
    if choice.decision is Decision.HAND_OFF:
        return 1.0 - best
    return seen.intents[0].probability if seen.intents else 1.0
