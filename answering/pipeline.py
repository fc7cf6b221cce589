"""From a question to a grounded reply: encode, intents, retrieve, decide, say, check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from answering import rewriting, saying
from answering.bases import Base, Bases, Vector, VectorCache
from answering.engine import Engine
from answering.intents import IntentClassifier
from answering.languages import language_of
from answering.pairing import Pair, encoding_part
from answering.promoted import Promotions
from answering.prompting import Prompt
from answering.reading import Reading
from answering.saying import Generate, OnText, Said, Words
from answering.understanding import (
    Search,
    Understood,
    off_topic,
    read,
    understand,
)
from answering.underway import (
    Underway,
    clarify_texts,
    confidence_of,
    leaned_to,
    main_locale,
    offered,
    picked,
    predictor,
    state_after,
    unread,
)
from answering.verifier import Score
from core.deciding import Policy, Seen, decide, decide_chosen, wants_person
from core.masking import mask_prose
from core.ports import Show
from core.risk import Thresholds
from core.types import (
    Choice,
    Decision,
    FaqEntry,
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
from retrieval.encoders.protocol import Scores
from retrieval.entities import About, gist, talked_about
from retrieval.fusion import Calibrator, shipped_calibrator

P = ParamSpec("P")
T = TypeVar("T")

VERIFIER = "verifier"
"""The engine's scorer that judges sentences, where one is loaded."""
PASSAGES = 5
"""How many passages a decision sees and a trace keeps."""


class Pipeline:
    """Answers questions from the knowledge bases that it holds in memory.

    Args:
        engine: Runs the models; started.
        style: The process's reply style.
        speaks: Languages in which the reply model writes.
        calibrator: From signals to confidence.
        now: The time for which entries must be valid.
        heads: Folder in which fitted intent heads are kept.
        rewrites: The reply model makes follow-ups stand alone, instead of the rules.
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
        rewrites: bool = False,
    ) -> None:
        self.engine = engine
        self.encoder_name = engine.encoder.name
        self._style = style
        self._speaks = speaks if engine.generator is not None else frozenset[str]()
        self._calibrator = calibrator or shipped_calibrator()
        self._now = now
        self._bases = Bases(encoding_part(engine), self._calibrator, heads)
        self._rewrites = rewrites and engine.generator is not None
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

    def use_adapter(self, base_id: KnowledgeBaseId, name: str) -> None:
        """Let an adapter that is live in the engine write a base's replies from now on.

        Args:
            base_id: The base.
            name: Of the version, as the engine knows it; empty for the reply model of all bases.
        """
        self._promotions.use_adapter(base_id, name)

    async def answer(self, question: Question, show: Show | None = None) -> Reply:
        """Return what to say; `show` takes checked sentences while the reply is written.

        Raises:
            Unavailable: The models cannot be used now.
        """
        base = self._bases.of(question.knowledge_base)
        turn = Underway(
            question,
            read(question, base.index, clarify_texts(question.knowledge_base)),
            base,
            self._language(question),
            self._promotions.of(question.knowledge_base.id),
            show,
        )
        if question.kind is not MessageKind.TEXT:
            return await self._reply(turn, unread(question))
        if (chosen := picked(turn)) is not None:
            return await self._answer_chosen(turn, chosen)
        understood = await self._understand(turn)
        if (leant := leaned_to(turn, understood)) is not None:
            return await self._answer_chosen(turn, [leant])
        several = await self._answer_parts(turn, understood)
        if several is not None:
            return several
        return await self._reply(turn, understood)

    async def search(self, base_id: KnowledgeBaseId, text: str, limit: int) -> list[Passage]:
        """Return the passages that a customer's question would find, best first."""
        base = self._bases.known(base_id)
        if base is None or not text.strip():
            return []
        plain = gist(text, base.index.entities)
        vector, plain_vector = await self._bases.encode([text, plain])
        language = language_of(text, fallback=main_locale(base.index))
        return base.index.search(
            text, vector, locale=language, limit=limit, at=self._now(),
            gist=None if plain == text else plain_vector,
            off_topic=off_topic(predictor(base, self._promotions.of(base_id))(vector, text)),
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
        """Take in what changed in a base; see `Bases.refresh`."""
        await self._bases.refresh(base, changes, removed=removed, intents=intents, vectors=vectors)

    def _language(self, question: Question) -> str:
        said = [u.text for u in question.history if u.author == "customer"]
        fallback = question.locale or question.knowledge_base.locale
        return language_of(" ".join(question.messages), earlier=said, fallback=fallback)

    async def _understand(self, turn: Underway) -> Understood:
        """Return what a message means; all its readings and parts are encoded in one pass."""
        await self._rewrite(turn)
        with turn.timer.stage("encode"):
            vectors = await self._bases.encode(turn.message.texts)
        understood = understand(
            turn.message,
            vectors,
            turn.question,
            predict=turn.timer.timed("intents", predictor(turn.base, turn.models)),
            search=turn.timer.timed("retrieve", self._searcher(turn.base, turn.language)),
            heads=turn.base.signals,
            topics=turn.base.topics,
        )
        # The decision goes by calibrated chances; the trace keeps what thresholds are fitted on.
        passages = turn.models.calibrated(
            understood.seen.passages, understood.seen.intents, understood.signals, turn.language
        )
        return replace(understood, seen=replace(understood.seen, passages=passages))

    async def _rewrite(self, turn: Underway) -> None:
        """Let the reply model make a follow-up stand alone, where it is asked to."""
        history = turn.question.history
        if not self._rewrites or not rewriting.may_need(turn.message, history):
            return
        with turn.timer.stage("rewrite"):
            text = await rewriting.by_model(
                turn.message.query, history, self.engine.generate, turn.question.seconds_left
            )
        if text:
            entities = turn.base.index.entities
            turn.message = rewriting.with_reading(turn.message, text, entities)

    def _searcher(self, base: Base, language: str) -> Search:
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

    async def _answer_chosen(self, turn: Underway, entries: Sequence[FaqEntry]) -> Reply:
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
        return self._made(turn, understood, choice, said, confidence_of(choice, understood.seen))

    async def _answer_parts(self, turn: Underway, understood: Understood) -> Reply | None:
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

    def _sure(self, turn: Underway, part: Reading, understood: Understood) -> float:
        """Return the chance that the best entry of one of several questions answers it."""
        passages = turn.models.calibrated(
            part.passages, part.intents, understood.signals, turn.language
        )
        return passages[0].confidence

    async def _reply(self, turn: Underway, understood: Understood) -> Reply:
        with turn.timer.stage("decide"):
            choice = decide(understood.seen, self._policy(turn))
        said = await self._say(turn, understood, choice)
        return self._made(turn, understood, choice, said, confidence_of(choice, understood.seen))

    async def _say(self, turn: Underway, understood: Understood, choice: Choice) -> Said:
        question, language = turn.question, turn.language
        if choice.decision is Decision.ANSWER:
            with turn.timer.stage("say"):
                said = await saying.answer(
                    question, understood.reading.text, choice, self._words(language),
                    self._generate(turn), score=self._score(turn), show=turn.show,
                )  # fmt: skip
            suggestions = self._suggestions(turn, understood.seen.passages, choice.passages)
            return replace(said, suggestions=suggestions)
        if choice.decision is Decision.CLARIFY:
            return saying.clarify(question, offered(choice), language)
        intents = understood.seen.intents
        return saying.system_text(question, choice, intents[0].name if intents else "", language)

    async def _say_each(self, turn: Underway, asked: Sequence[tuple[str, Passage]]) -> Said:
        """Return the answers to several questions, one after the other."""
        words = self._words(turn.language)
        said: list[Said] = []
        with turn.timer.stage("say"):
            for query, passage in asked:
                alone = replace(turn.question, messages=(query,), shown=())
                choice = Choice(Decision.ANSWER, "one of several questions", (passage,))
                said.append(
                    await saying.answer(
                        alone, query, choice, words, self._generate(turn), score=self._score(turn)
                    )
                )
        return saying.joined(said)

    def _suggestions(
        self, turn: Underway, passages: Sequence[Passage], chosen: Sequence[Passage]
    ) -> tuple[str, ...]:
        asked = [u.text for u in turn.question.history] + list(turn.question.messages)
        entries = tuple(turn.base.index.entries.values())
        return saying.related(passages, [p.entry for p in chosen], entries, asked)

    def _made(
        self,
        turn: Underway,
        understood: Understood,
        choice: Choice,
        said: Said,
        confidence: float,
    ) -> Reply:
        policy = self._policy(turn)
        quoted = said.tier is Tier.APPROVED and choice.decision is Decision.ANSWER
        state = state_after(turn, understood, choice)
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
                reason=said.reason,
                checks=said.checks,
                models={**self.models, **turn.models.names},
                milliseconds=turn.timer.milliseconds,
                thresholds=asdict(policy),
                dialogue=state.to_json(mask_prose),
                signals=understood.signals,
            ),
        )

    def _policy(self, turn: Underway) -> Policy:
        tolerated = turn.question.knowledge_base.tolerated_error
        shipped = self._calibrator.answer_from(tolerated)
        return Policy(answer_from=turn.models.answer_from(shipped, tolerated, turn.language))

    def _words(self, language: str) -> Words:
        return Words(language, self._style, self._speaks, self.engine.seconds_a_reply)

    def _score(self, turn: Underway) -> Score | None:
        if VERIFIER not in self.engine.scorers:
            return None

        async def score(pairs: Sequence[tuple[str, str]]) -> Scores:
            with turn.timer.stage("verify"):
                return await self.engine.score_pairs(
                    VERIFIER, pairs, seconds=turn.question.seconds_left
                )

        return score

    def _generate(self, turn: Underway) -> Generate | None:
        if self.engine.generator is None:
            return None

        async def generate(
            prompt: Prompt, seconds: float, on_text: OnText | None
        ) -> saying.Generated:
            own = replace(prompt, adapter=turn.models.adapter)
            with turn.timer.stage("generate"):
                return await self.engine.generate(own, seconds, saying.NEW_TOKENS, on_text)

        return generate
