"""The whole pipeline on test conversations."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from answering.pipeline import Pipeline
from core import risk
from core.errors import InvalidInput
from core.types import Author, Decision, FaqEntry, KnowledgeBase, Question, Reply, Utterance
from retrieval.lexical import tokens
from training.dialogues import Noises, dialogues
from training.evaluation.scores import Support

ABSTAINING = frozenset({Decision.REFUSE, Decision.HAND_OFF})
SECONDS = 60.0
SEEKING_FROM = 0.5


@dataclass(frozen=True)
class Case:
    """A conversation that ends with a customer's message, and what is expected of the reply."""

    id: str
    message: str
    history: tuple[Utterance, ...]
    relevant: frozenset[str]
    reference: str
    answerable: bool | None
    expect: str | None


@dataclass(frozen=True)
class Result:
    """What the pipeline said to a case; `verdict` is the verifier's, where it was asked."""

    case: Case
    reply: Reply
    seconds: float
    verdict: Support | None = None

    @property
    def passages(self) -> Sequence[tuple[str, float]]:
        """The retrieved entries with their chances, best first."""
        return [(p.entry.id, round(p.confidence, 4)) for p in self.reply.trace.passages]

    @property
    def signals(self) -> Mapping[str, float]:
        """What speaks for the best entry and against it, as thresholds are fitted on it."""
        trace = self.reply.trace
        return risk.signals_of(trace.passages, trace.intents, trace.signals)

    def line(self) -> dict[str, Any]:
        """Return the line of an `--out` file."""
        return {
            "id": self.case.id,
            "decision": str(self.reply.choice.decision),
            "text": self.reply.text,
            "citations": [citation.entry_id for citation in self.reply.citations],
            "passages": [{"id": key, "score": score} for key, score in self.passages],
            "knowledge_seeking": seeks_knowledge(self.reply),
            "confidence": round(chance_of(self.reply), 4),
            "tier": str(self.reply.tier),
            "reason": str(self.reply.trace.reason or ""),
            "signals": {name: round(value, 4) for name, value in self.signals.items()},
            "language": self.reply.language,
            "seconds": round(self.seconds, 4),
        }


def case_of(row: Mapping[str, Any], where: str) -> Case:
    """Return the case of a line.

    Raises:
        InvalidInput: It has no turns, or they do not end with the customer's.
    """
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        raise InvalidInput(f"{where}: turns must be a list of messages.", field="turns")
    said: list[Utterance] = []
    for turn in turns:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(turn, dict) or turn.get("speaker") not in ("U", "S"):  # pyright: ignore[reportUnknownMemberType]
            raise InvalidInput(
                f'{where}: a turn is {{"speaker": "U" or "S", "text": ...}}.', field="turns"
            )
        author = Author.CUSTOMER if turn["speaker"] == "U" else Author.BOT
        said.append(Utterance(author, str(turn.get("text", ""))))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    if said[-1].author is not Author.CUSTOMER:
        raise InvalidInput(f"{where}: the last turn must be the customer's (U).", field="turns")
    return Case(
        str(row["id"]),
        said[-1].text,
        tuple(said[:-1]),
        frozenset(map(str, row.get("relevant") or ())),
        str(row.get("reference") or ""),
        row.get("answerable"),
        row.get("expect"),
    )


def made_rows(
    entries: Sequence[FaqEntry], count: int, noise: Noises, seed: int = 29
) -> list[dict[str, Any]]:
    """Return the lines of conversations made by rule about entries (`training.dialogues`).

    Raises:
        ValueError: None can be made of these entries.
    """
    made = dialogues(entries, count, random.Random(seed), noise)
    return [row | {"answerable": bool(row["relevant"])} for row in made]


async def run(
    pipeline: Pipeline,
    base: KnowledgeBase,
    cases: Sequence[Case],
    entries: Sequence[FaqEntry],
    tell: Callable[[int], None] = lambda done: None,
) -> list[Result]:
    """Return what the pipeline says to each case, one after the other."""
    results: list[Result] = []
    for number, case in enumerate(cases, start=1):
        question = Question(
            base, (case.message,), history=case.history, seconds_left=SECONDS,
            cited=cited_before(case.history, entries),
        )  # fmt: skip
        begun = time.perf_counter()
        reply = await pipeline.answer(question)
        results.append(Result(case, reply, time.perf_counter() - begun))
        tell(number)
    return results


def cited_before(history: Sequence[Utterance], entries: Sequence[FaqEntry]) -> tuple[str, ...]:
    """Return which entry the last reply rested on, by the words it shares with the answers.

    A file holds no citations, in a real conversation they are stored.
    """
    spoken = [u.text for u in history if u.author is not Author.CUSTOMER]
    if not spoken:
        return ()
    said = set(tokens(spoken[-1]))
    best, most = "", 0.0
    for entry in entries:
        known = set(tokens(entry.answer)) | set(tokens(entry.question))
        share = len(said & known) / len(said) if said else 0.0
        if share > most:
            best, most = entry.id, share
    return (best,) if most >= 0.5 else ()


def seeks_knowledge(reply: Reply) -> bool:
    """Return whether the pipeline took a message for a question that an entry could answer.

    That is told apart from the decision: a question may be understood and its entry too unsure.
    """
    if (seeking := reply.trace.signals.get("seeking")) is not None:
        return seeking >= SEEKING_FROM
    return reply.choice.decision in (Decision.ANSWER, Decision.CLARIFY)


def chance_of(reply: Reply) -> float:
    """Return the chance that the best entry answers, whatever was decided on it."""
    passages = reply.trace.passages
    return passages[0].confidence if passages else 0.0


def as_expected(result: Result) -> bool:
    """Return whether the decision is the expected one, on a right entry where one is named."""
    decision = result.reply.choice.decision
    if result.case.expect != str(decision):
        return False
    if decision is not Decision.ANSWER or not result.case.relevant:
        return True
    return bool({c.entry_id for c in result.reply.citations} & result.case.relevant)
