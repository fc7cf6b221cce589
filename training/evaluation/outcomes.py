"""What evaluations measured, as cases of the report page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.types import Author, FaqEntry, Passage, Reply, Utterance
from training.evaluation.page import Outcome
from training.evaluation.replies import Result, as_expected, chance_of
from training.evaluation.retrieval import Query

SHOWN = 5


def of_replies(results: Sequence[Result]) -> list[Outcome]:
    """Return the cases of `eval replies`.

    Right is the decision that was expected, or a best entry that answers where only entries are
    known. The confidence is the best entry's, whatever was decided, and correct if it answers.
    """
    return [
        Outcome(
            result.case.id,
            result.case.message,
            truth=_expected(result),
            told=_told(result.reply),
            right=_is_right(result),
            confidence=chance_of(result.reply),
            language=result.reply.language,
            milliseconds=round(1000 * result.seconds, 2),
            before=_before(result.case.history),
            trace=trace_of(result.reply),
            correct=_is_found(result),
        )
        for result in results
    ]


def of_queries(
    queries: Sequence[tuple[Query, Sequence[str], float]],
    entries: Sequence[FaqEntry],
    language_of: Callable[[str], str],
) -> list[Outcome]:
    """Return the cases of `eval retrieval` from (query, ids found, seconds)."""
    questions = {entry.id: entry.question for entry in entries}
    return [
        Outcome(
            query.id,
            query.text,
            truth=", ".join(_named(key, questions) for key in sorted(query.relevant)),
            told=_named(found[0], questions) if found else "nothing",
            right=bool(found) and found[0] in query.relevant,
            language=language_of(query.text),
            milliseconds=round(1000 * seconds, 2),
            before=_before(query.history),
            trace={
                "found": [_named(key, questions) for key in found[:SHOWN]],
                "rank": next((i + 1 for i, k in enumerate(found) if k in query.relevant), None),
                "kind": query.kind,
            },
        )
        for query, found, seconds in queries
    ]


def trace_of(reply: Reply) -> Mapping[str, Any]:
    """Return how a reply came about, in the words that the desk shows."""
    trace = reply.trace
    shown = {
        "decision": str(reply.choice.decision),
        "why": trace.why,
        "reply": reply.text,
        "tier": str(reply.tier),
        "query": trace.query,
        "intents": [[intent.name, round(intent.probability, 3)] for intent in trace.intents],
        "passages": [_passage(passage) for passage in trace.passages[:SHOWN]],
        "signals": dict(trace.signals),
        "topics": [topic.name for topic in reply.insight.topics],
        "sentiment": reply.insight.sentiment.name if reply.insight.sentiment else "",
        "checks": list(trace.checks),
        "dialogue": dict(trace.dialogue),
        "thresholds": dict(trace.thresholds),
        "models": dict(trace.models),
        "milliseconds": dict(trace.milliseconds),
    }
    return {name: value for name, value in shown.items() if value not in ("", [], {})}


def _passage(passage: Passage) -> list[Any]:
    return [
        passage.entry.id,
        passage.entry.question,
        round(passage.confidence, 3),
        {"dense": round(passage.dense, 3), "lexical": round(passage.lexical, 3)},
    ]


def _is_right(result: Result) -> bool | None:
    return as_expected(result) if result.case.expect else _is_found(result)


def _is_found(result: Result) -> bool | None:
    case = result.case
    if not (case.relevant or case.expect or case.answerable is not None):
        return None
    return bool(result.passages) and result.passages[0][0] in case.relevant


def _expected(result: Result) -> str:
    case = result.case
    entries = ", ".join(sorted(case.relevant))
    return " ".join(filter(None, (case.expect or "", entries))) or (
        "no entry" if case.answerable is False else ""
    )


def _told(reply: Reply) -> str:
    cited = ", ".join(citation.entry_id for citation in reply.citations)
    return " ".join(filter(None, (str(reply.choice.decision), cited)))


def _before(history: Sequence[Utterance]) -> tuple[tuple[str, str], ...]:
    return tuple(
        ("customer" if said.author is Author.CUSTOMER else "bot", said.text) for said in history
    )


def _named(key: str, questions: Mapping[str, str]) -> str:
    return f"{key}: {questions[key]}" if key in questions else key
