"""The whole pipeline on test conversations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from answering.grounding import Source, facts
from answering.pipeline import Pipeline
from answering.prompting import plain
from core import risk
from core.errors import InvalidInput
from core.types import Author, Decision, FaqEntry, KnowledgeBase, Question, Reply, Tier, Utterance
from retrieval.lexical import fold, tokens
from retrieval.rewriting import is_chinese

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
    """What the pipeline said to a case."""

    case: Case
    reply: Reply
    seconds: float

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


def figures(results: Sequence[Result], entries: Sequence[FaqEntry]) -> dict[str, Any]:
    """Return detection, selection and generation figures, and the unsupported rate."""
    by_id = {entry.id: entry for entry in entries}
    shown: dict[str, Any] = {}
    shown |= _detection(results)
    shown |= _selection(results)
    shown |= _generation(results, by_id)
    expected = [r for r in results if r.case.expect]
    if expected:
        right = [r for r in expected if as_expected(r)]
        shown["as_expected"] = len(right) / len(expected)
    seconds = sorted(r.seconds for r in results)
    shown["seconds_p50"] = seconds[len(seconds) // 2] if seconds else 0.0
    shown["n"] = len(results)
    return shown


def as_expected(result: Result) -> bool:
    """Return whether the decision is the expected one, on a right entry where one is named."""
    decision = result.reply.choice.decision
    if result.case.expect != str(decision):
        return False
    if decision is not Decision.ANSWER or not result.case.relevant:
        return True
    return bool({c.entry_id for c in result.reply.citations} & result.case.relevant)


def _detection(results: Sequence[Result]) -> dict[str, Any]:
    known = [r for r in results if r.case.answerable is not None]
    said = [seeks_knowledge(r.reply) for r in known]
    true = [bool(r.case.answerable) for r in known]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(true) if any(true) else 0.0
    both = precision + recall
    return {
        "detection_precision": precision,
        "detection_recall": recall,
        "detection_f1": 2 * precision * recall / both if both else 0.0,
    }


def _selection(results: Sequence[Result]) -> dict[str, Any]:
    asked = [r for r in results if r.case.relevant]
    first = [bool(r.passages) and r.passages[0][0] in r.case.relevant for r in asked]
    five = [any(key in r.case.relevant for key, _ in r.passages[:5]) for r in asked]
    reciprocal = [
        next((1 / (i + 1) for i, (k, _) in enumerate(r.passages[:5]) if k in r.case.relevant), 0.0)
        for r in asked
    ]
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    cited = [r for r in answered if {c.entry_id for c in r.reply.citations} & r.case.relevant]
    return {
        "selection_recall@1": _mean(first),
        "selection_recall@5": _mean(five),
        "selection_mrr@5": _mean(reciprocal),
        "answered": len(answered) / max(len(results), 1),
        "wrong_among_answered": 1 - len(cited) / len(answered) if answered else 0.0,
        "abstained": _mean([r.reply.choice.decision in ABSTAINING for r in results]),
    }


def _generation(results: Sequence[Result], by_id: Mapping[str, FaqEntry]) -> dict[str, Any]:
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    compared = [r for r in answered if r.case.reference]
    unsupported = [r for r in answered if _is_unsupported(r, by_id)]
    return {
        "generation_rouge_l": _mean([rouge_l(_text(r), r.case.reference) for r in compared]),
        "generation_token_f1": _mean([token_f1(_text(r), r.case.reference) for r in compared]),
        "generated": _mean([r.reply.tier is Tier.GENERATED for r in answered]),
        "unsupported": len(unsupported) / max(len(answered), 1),
    }


def _text(result: Result) -> str:
    return plain(result.reply.text)


def _is_unsupported(result: Result, by_id: Mapping[str, FaqEntry]) -> bool:
    """Return whether a reply holds a fact or many words that stand nowhere in its sources.

    Told apart from the check that already ran: by plain token precision and facts alone.
    """
    cited = [by_id[c.entry_id] for c in result.reply.citations if c.entry_id in by_id]
    said = [u.text for u in result.case.history] + [result.case.message]
    source = Source.of(cited, said)
    words = tokens(_text(result))
    held = sum(word in source.tokens for word in words)
    invented = facts(_text(result)) - source.facts - facts("\n".join(said))
    return bool({f for f in invented if f not in source.folded}) or held < 0.6 * len(words)


def rouge_l(text: str, reference: str) -> float:
    """Return the ROUGE-L F1 of words (characters for Chinese)."""
    ours, theirs = _words(text), _words(reference)
    if not ours or not theirs:
        return 0.0
    row = [0] * (len(theirs) + 1)
    for word in ours:
        above = row[:]
        for j, other in enumerate(theirs):
            row[j + 1] = above[j] + 1 if word == other else max(above[j + 1], row[j])
    precision, recall = row[-1] / len(ours), row[-1] / len(theirs)
    return 2 * precision * recall / (precision + recall) if row[-1] else 0.0


def token_f1(text: str, reference: str) -> float:
    """Return the F1 of the words as bags."""
    ours, theirs = Counter(_words(text)), Counter(_words(reference))
    both = sum((ours & theirs).values())
    return 2 * both / (sum(ours.values()) + sum(theirs.values())) if both else 0.0


def _words(text: str) -> list[str]:
    folded = fold(text)
    if is_chinese(text):
        return [character for character in folded if character.isalnum()]
    return "".join(c if c.isalnum() else " " for c in folded).split()


def _mean(values: Sequence[float | bool]) -> float:
    return sum(values) / len(values) if values else 0.0
