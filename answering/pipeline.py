"""From a question to a grounded reply: encode, intents, retrieve, decide, say, check."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from answering import saying
from answering.clarifying import leaning, meant, options_of
from answering.engine import Engine
from answering.fitting import IntentModel
from answering.intents import IntentClassifier
from answering.languages import language_of
from answering.pairing import Pair
from answering.promoted import BaseModels, Promotions
from answering.prompting import Prompt
from answering.reading import Reading
from answering.saying import Generate, Said, Words
from answering.signals import SignalHeads, Topics
from answering.understanding import (
    Message,
    Predict,
    Search,
    Understood,
    after,
    off_topic,
    read,
    understand,
)
from core import telemetry, texts
from core.deciding import Policy, Seen, decide, decide_chosen, wants_person
from core.dialogue import Clarification, Option, State
from core.risk import Thresholds
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
from core.vectors import digest
from retrieval.entities import About, gist, talked_about
from retrieval.fusion import Calibrator, shipped_calibrator
from retrieval.index import Change, KnowledgeIndex, nameless, texts_of

P = ParamSpec("P")
T = TypeVar("T")

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

PASSAGES = 5
"""How many passages a decision sees and a trace keeps."""
QUERY_CACHE = 2_048
"""Vectors of what was asked lately, by exact text: semantic caching would mix up orders."""
APPLY_AT_ONCE = 25
"""Entries put into an index before the loop may serve others again."""
KEPT_AT_ONCE = 256
"""Vectors kept at once: whoever is killed while a base is encoded goes on from there."""
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
    signals: SignalHeads | None = None
    topics: Topics | None = None
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

    def timed(self, name: str, work: Callable[P, T]) -> Callable[P, T]:
        """Return a function whose calls count as a stage."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.stage(name):
                return work(*args, **kwargs)

        return run


@dataclass
class _Turn:
    """One turn on its way through the stages."""

    question: Question
    message: Message
    base: _Base
    language: str
    models: BaseModels
    timer: _Timer = field(default_factory=_Timer)


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
        engine: Engine | Pair,
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
        self._signals: SignalHeads | None = None
        self._promotions = Promotions()

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

    def use_intents(
        self, base_id: KnowledgeBaseId | None, head: IntentClassifier | None, name: str
    ) -> None:
        """Let a promoted head tell the intents of a base; turns under way end as they began.

        Args:
            base_id: The base; None for all that have no head of their own.
            head: None for what is fitted from examples.
            name: Of the version, for the trace.
        """
        self._promotions.use_head(base_id, head, name)

    def use_calibration(
        self, base_id: KnowledgeBaseId | None, thresholds: Thresholds | None, name: str
    ) -> None:
        """Let promoted thresholds decide what a base answers; turns under way end as they began.

        Args:
            base_id: The base; None for all that have no thresholds of their own.
            thresholds: None for what ships.
            name: Of the version, for the trace.
        """
        self._promotions.use_thresholds(base_id, thresholds, name)

    async def answer(self, question: Question) -> Reply:
        """Return what to say.

        Raises:
            Unavailable: The models cannot be used now.
        """
        base = self._base(question.knowledge_base)
        turn = _Turn(
            question,
            read(question, base.index, _clarify_texts(question.knowledge_base)),
            base,
            self._language(question),
            self._promotions.of(question.knowledge_base.id),
        )
        if question.kind is not MessageKind.TEXT:
            return await self._reply(turn, _unread(question))
        if (chosen := _chosen(turn)) is not None:
            return await self._answer_chosen(turn, chosen)
        understood = await self._understand(turn)
        if (leant := _leant(turn, understood)) is not None:
            return await self._answer_chosen(turn, [leant])
        several = await self._answer_parts(turn, understood)
        if several is not None:
            return several
        return await self._reply(turn, understood)

    async def search(self, base_id: KnowledgeBaseId, text: str, limit: int) -> list[Passage]:
        """Return the passages that a customer's question would find, best first."""
        base = self._bases.get(base_id)
        if base is None or not text.strip():
            return []
        plain = gist(text, base.index.entities)
        vector, plain_vector = await self._encode([text, plain])
        language = language_of(text, fallback=_main_locale(base.index))
        return base.index.search(
            text, vector, locale=language, limit=limit, at=self._now(),
            gist=None if plain == text else plain_vector,
            off_topic=off_topic(_predictor(base, self._promotions.of(base_id))(vector, text)),
            about=talked_about([("customer", text)], base.index.entities),
        )  # fmt: skip

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
        more = held.index.catch_up()
        while more:  # a large base builds its graph in slices, and others are served between
            await asyncio.sleep(0)
            more = held.index.catch_up()
        held.changed += len(changes) + len(removed)
        if intents is not None:
            held.intents.own = tuple(intents)
        if (
            intents is not None
            or held.intents.classifier is None
            or held.changed > REFIT_SHARE * len(held.index)
        ):
            held.changed = 0
            await self._refit(held, cache)

    async def _refit(self, held: _Base, cache: VectorCache) -> None:
        """Fit the heads of a base, and once the ones that all bases share."""

        async def vectors(wanted: Sequence[str]) -> Mapping[str, Vector]:
            return await self._vectors(wanted, cache, self.engine.encode_examples, "query")

        async def passages(wanted: Sequence[str]) -> Mapping[str, Vector]:
            return await self._vectors(wanted, cache, self.engine.encode_passages, "passage")

        if self._signals is None:
            self._signals = await SignalHeads.shipped(vectors)
        entries = tuple(held.index.entries.values())
        await held.intents.fit([entry.question for entry in entries], vectors)
        held.signals = await self._signals.for_base([nameless(e) for e in entries], vectors)
        held.topics = await Topics.of_base(entries, held.intents.own, passages, vectors)

    def _base(self, base: KnowledgeBase) -> _Base:
        if base.id not in self._bases:
            index = KnowledgeIndex(self.engine.encoder.dimensions, self._calibrator)
            self._bases[base.id] = _Base(index, IntentModel(self._heads))
        return self._bases[base.id]

    def _language(self, question: Question) -> str:
        said = [u.text for u in question.history if u.author == "customer"]
        fallback = question.locale or question.knowledge_base.locale
        return language_of(" ".join(question.messages), earlier=said, fallback=fallback)

    async def _understand(self, turn: _Turn) -> Understood:
        """Return what a message means; all its readings and parts are encoded in one pass."""
        with turn.timer.stage("encode"):
            vectors = await self._encode(turn.message.texts)
        understood = understand(
            turn.message,
            vectors,
            turn.question,
            predict=turn.timer.timed("intents", _predictor(turn.base, turn.models)),
            search=turn.timer.timed("retrieve", self._searcher(turn.base, turn.language)),
            heads=turn.base.signals,
            topics=turn.base.topics,
        )
        # The decision goes by calibrated chances; the trace keeps what thresholds are fitted on.
        passages = turn.models.calibrated(
            understood.seen.passages, understood.seen.intents, understood.signals, turn.language
        )
        return replace(understood, seen=replace(understood.seen, passages=passages))

    def _searcher(self, base: _Base, language: str) -> Search:
        at = self._now()

        def search(
            text: str,
            vector: Vector,
            off_topic: float,
            about: Sequence[About],
            gist: Vector | None,
        ) -> list[Passage]:
            return base.index.search(
                text, vector, locale=language, limit=PASSAGES, at=at, off_topic=off_topic,
                about=about, gist=gist,
            )  # fmt: skip

        return search

    async def _answer_chosen(self, turn: _Turn, entries: Sequence[FaqEntry]) -> Reply:
        """Answer with what the customer chose of the entries offered, without another search."""
        choice = decide_chosen(entries)
        asked = turn.message.state.question
        understood = Understood(Reading(asked, choice.passages, ()), Seen((), choice.passages))
        if len(entries) > 1:
            said = await self._say_each(
                turn, [(e.question, p) for e, p in zip(entries, choice.passages, strict=True)]
            )
        else:
            said = await self._say(turn, understood, choice)
        return self._made(turn, understood, choice, said, _confidence(choice, understood.seen))

    async def _answer_parts(self, turn: _Turn, understood: Understood) -> Reply | None:
        """Answer several questions in their order, where each has an entry of its own."""
        parts = understood.parts
        policy = self._policy(turn)
        best = [part.passages[0] for part in parts if part.passages]
        if len(parts) < 2 or len(best) < len(parts) or wants_person(understood.seen, policy):
            return None
        sure = [self._sure(turn, part, understood) for part in parts]
        if min(sure) < policy.answer_from:
            return None
        if len({p.entry.id for p in best}) < len(best):
            return None
        said = await self._say_each(turn, [(r.text, p) for r, p in zip(parts, best, strict=True)])
        choice = Choice(Decision.ANSWER, "each question has an entry of its own", tuple(best))
        suggestions = self._suggestions(turn, parts[0].passages, best)
        whole = replace(understood, reading=Reading("\n".join(p.text for p in parts), best, ()))
        return self._made(
            turn, whole, choice, replace(said, suggestions=suggestions), min(sure),
        )  # fmt: skip

    def _sure(self, turn: _Turn, part: Reading, understood: Understood) -> float:
        """Return the chance that the best entry of one of several questions answers it."""
        passages = turn.models.calibrated(
            part.passages, part.intents, understood.signals, turn.language
        )
        return passages[0].confidence

    async def _reply(self, turn: _Turn, understood: Understood) -> Reply:
        with turn.timer.stage("decide"):
            choice = decide(understood.seen, self._policy(turn))
        said = await self._say(turn, understood, choice)
        return self._made(turn, understood, choice, said, _confidence(choice, understood.seen))

    async def _say(self, turn: _Turn, understood: Understood, choice: Choice) -> Said:
        question, language = turn.question, turn.language
        if choice.decision is Decision.ANSWER:
            with turn.timer.stage("say"):
                said = await saying.answer(
                    question, understood.reading.text, choice, self._words(language),
                    self._generate(turn),
                )  # fmt: skip
            suggestions = self._suggestions(turn, understood.seen.passages, choice.passages)
            return replace(said, suggestions=suggestions)
        if choice.decision is Decision.CLARIFY:
            return saying.clarify(question, _options(choice), language)
        intents = understood.seen.intents
        return saying.system_text(question, choice, intents[0].name if intents else "", language)

    async def _say_each(self, turn: _Turn, asked: Sequence[tuple[str, Passage]]) -> Said:
        """Return the answers to several questions, one after the other."""
        words = self._words(turn.language)
        said: list[Said] = []
        with turn.timer.stage("say"):
            for query, passage in asked:
                alone = replace(turn.question, messages=(query,))
                choice = Choice(Decision.ANSWER, "one of several questions", (passage,))
                said.append(await saying.answer(alone, query, choice, words, self._generate(turn)))
        return saying.joined(said)

    def _suggestions(
        self, turn: _Turn, passages: Sequence[Passage], chosen: Sequence[Passage]
    ) -> tuple[str, ...]:
        asked = [u.text for u in turn.question.history] + list(turn.question.messages)
        entries = tuple(turn.base.index.entries.values())
        return saying.related(passages, [p.entry for p in chosen], entries, asked)

    def _made(
        self,
        turn: _Turn,
        understood: Understood,
        choice: Choice,
        said: Said,
        confidence: float,
    ) -> Reply:
        policy = self._policy(turn)
        quoted = said.tier is Tier.APPROVED and choice.decision is Decision.ANSWER
        state = _state_after(turn, understood, choice)
        return Reply(
            choice,
            said.text,
            said.tier,
            choice.passages[0].entry.locale.split("-")[0] if quoted else turn.language,
            is_markdown=said.is_markdown,
            citations=said.citations,
            suggestions=said.suggestions,
            confidence=round(confidence, 4),
            dialogue=state.to_json(),
            insight=understood.insight,
            trace=Trace(
                intents=tuple(understood.seen.intents[:3]),
                passages=tuple(understood.reading.passages),
                query=understood.reading.text,
                why=choice.why,
                checks=said.checks,
                models={**self.models, **turn.models.names},
                milliseconds=turn.timer.milliseconds,
                thresholds=asdict(policy),
                dialogue=state.to_json(telemetry.mask),
                signals=understood.signals,
            ),
        )

    def _policy(self, turn: _Turn) -> Policy:
        tolerated = turn.question.knowledge_base.tolerated_error
        shipped = self._calibrator.answer_from(tolerated)
        return Policy(answer_from=turn.models.answer_from(shipped, tolerated, turn.language))

    def _words(self, language: str) -> Words:
        return Words(language, self._style, self._speaks, self.engine.seconds_a_reply)

    def _generate(self, turn: _Turn) -> Generate | None:
        if self.engine.generator is None:
            return None

        async def generate(prompt: Prompt, seconds: float) -> saying.Generated:
            with turn.timer.stage("generate"):
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
        hashes = {text: digest(role, text) for text in dict.fromkeys(wanted)}
        known = await cache.get(list(hashes.values())) if hashes else {}
        found = {
            text: np.asarray(known[key], np.float32) for text, key in hashes.items() if key in known
        }
        missing = [text for text in hashes if text not in found]
        for start in range(0, len(missing), KEPT_AT_ONCE):
            some = missing[start : start + KEPT_AT_ONCE]
            fresh = dict(zip(some, await encode(some), strict=True))
            await cache.put({hashes[text]: vector.tolist() for text, vector in fresh.items()})
            found |= fresh
        return found


def _predictor(base: _Base, models: BaseModels) -> Predict:
    """Return what tells a message's intents: a promoted head, where there is one, has its say."""

    def predict(vector: Vector, text: str) -> Sequence[Intent]:
        return models.intents(base.intents.predict(vector, text), vector, text)

    return predict


def _chosen(turn: _Turn) -> list[FaqEntry] | None:
    """Return the entries that the message chooses of those offered; None where it does not."""
    clarification = turn.message.state.clarification
    if clarification is None:
        return None
    entries = turn.base.index.entries
    found = meant(turn.message.text, clarification, entries)
    return None if found is None else [entries[i] for i in found.entry_ids]


def _leant(turn: _Turn, understood: Understood) -> FaqEntry | None:
    """Return the entry offered that a short answer to a question back most likely means."""
    clarification = turn.message.state.clarification
    if clarification is None or turn.message.is_polite_only:
        return None
    found = leaning(turn.message.query, clarification, understood.reading.passages)
    return turn.base.index.entries.get(found) if found else None


def _unread(question: Question) -> Understood:
    """Return what is known of a message that is no text."""
    return Understood(Reading("", (), ()), Seen((), (), question.kind, question.holder))


def _options(choice: Choice) -> tuple[Option, ...]:
    return options_of([passage.entry for passage in choice.passages])


def _state_after(turn: _Turn, understood: Understood, choice: Choice) -> State:
    asks = choice.decision is not Decision.SMALL_TALK and turn.question.kind is MessageKind.TEXT
    asked = understood.reading.text if asks else ""
    entries = [passage.entry for passage in choice.passages]
    state = after(turn.message, turn.base.index, choice.decision, entries, asked)
    if choice.decision is not Decision.CLARIFY:
        return state
    return replace(state, clarification=Clarification(asked, _options(choice)))


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
