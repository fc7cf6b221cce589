"""One turn on its way through the pipeline: what is known of it, and what its choice means."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from answering.bases import Base
from answering.clarifying import leaning, meant, options_of
from answering.promoted import BaseModels
from answering.reading import Reading
from answering.understanding import Message, Predict, Understood, Vector, after
from core import telemetry, texts
from core.deciding import Seen
from core.dialogue import Clarification, Option, State
from core.ports import Show
from core.types import (
    Choice,
    Decision,
    FaqEntry,
    Intent,
    KnowledgeBase,
    MessageKind,
    Question,
)
from retrieval.index import KnowledgeIndex

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Timer:
    """How long a turn spent in each stage, in milliseconds."""

    milliseconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time a stage; one that is gone through twice counts with both."""
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
class Underway:
    """One turn on its way through the stages."""

    question: Question
    message: Message
    base: Base
    language: str
    models: BaseModels
    show: Show | None = None
    timer: Timer = field(default_factory=Timer)


def predictor(base: Base, models: BaseModels) -> Predict:
    """Return what tells a message's intents: a promoted head, where there is one, has its say."""

    def predict(vector: Vector, text: str) -> Sequence[Intent]:
        return models.intents(base.intents.predict(vector, text), vector, text)

    return predict


def picked(turn: Underway) -> list[FaqEntry] | None:
    """Return the entries that the message chooses of those offered; None where it does not."""
    clarification = turn.message.state.clarification
    if clarification is None:
        return None
    entries = turn.base.index.entries
    found = meant(turn.message.text, clarification, entries)
    return None if found is None else [entries[i] for i in found.entry_ids]


def leaned_to(turn: Underway, understood: Understood) -> FaqEntry | None:
    """Return the entry offered that a short answer to a question back most likely means."""
    clarification = turn.message.state.clarification
    if clarification is None or turn.message.is_polite_only:
        return None
    found = leaning(turn.message.query, clarification, understood.reading.passages)
    return turn.base.index.entries.get(found) if found else None


def unread(question: Question) -> Understood:
    """Return what is known of a message that is no text."""
    return Understood(Reading("", (), ()), Seen((), (), question.kind, question.holder))


def offered(choice: Choice) -> tuple[Option, ...]:
    """Return the options of a question back."""
    return options_of([passage.entry for passage in choice.passages])


def state_after(turn: Underway, understood: Understood, choice: Choice) -> State:
    """Return what is being talked about after this turn."""
    asks = choice.decision is not Decision.SMALL_TALK and turn.question.kind is MessageKind.TEXT
    asked = understood.reading.text if asks else ""
    entries = [passage.entry for passage in choice.passages]
    state = after(turn.message, turn.base.index, choice.decision, entries, asked)
    if choice.decision is not Decision.CLARIFY:
        return state
    return replace(state, clarification=Clarification(asked, offered(choice)))


def main_locale(index: KnowledgeIndex) -> str:
    """Return the locale of most entries."""
    counts: dict[str, int] = {}
    for entry in index.entries.values():
        counts[entry.locale] = counts.get(entry.locale, 0) + 1
    return max(counts, key=counts.__getitem__, default="en")


def clarify_texts(base: KnowledgeBase) -> set[str]:
    """Return the words with which the bot asks back, in all languages."""
    languages = {*texts.shipped(), *base.texts}
    return {texts.text(base, "clarify", language) for language in languages}


def confidence_of(choice: Choice, seen: Seen) -> float:
    """Return the chance in [0, 1] that a choice is right."""
    best = seen.passages[0].confidence if seen.passages else 0.0
    if choice.decision is Decision.ANSWER:
        return best
    if choice.decision is Decision.CLARIFY:
        return min(sum(p.confidence for p in choice.passages), 1.0)
    if choice.decision is Decision.HAND_OFF:
        return 1.0 - best
    return seen.intents[0].probability if seen.intents else 1.0
