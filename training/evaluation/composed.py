"""Right, wrong or fallen back: replies where copying one entry is not enough, judged by rule."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from answering.prompting import plain
from training.replies.data import (
    ReplyExample,
    content_words,
    negates,
    numbers,
    read_rows,
    token_precision,
)
from training.replies.made.composing import Composed, Kind, compose_many
from training.replies.made.conditions import Condition, conditions
from training.replies.made.facets import Fact, facts, held_places

CASES_EACH = 200
RECALLED = 0.5
"""The share of an entry's content words without which a reply has not told it."""
SUPPORTED = 0.85
"""The share of a reply's content words that must stand in its sources or the question."""

_LEAD = re.compile(r"^(yes|no)\b[,.!]?\s*", re.IGNORECASE)
_PARTS = re.compile(r"(?<=[.!?;])\s+|,?\s+(?:but|while|although|however|and|nor)\s+", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|was|do|does|has|have|can|cannot|may|offers?|allow(?:s|ed)?|serves?|provides?"
    r"|accepts?|available|need|must|will)\b|n't\b",
    re.IGNORECASE,
)
_KNOWS_NOTHING = re.compile(
    r"no information|don['’]t know|do not (?:know|have (?:any )?information)|not sure"
    r"|could(?: not|n['’]t) find",
    re.IGNORECASE,
)


class Verdict(StrEnum):
    """What a reply is, seen by the customer."""

    RIGHT = "right"
    WRONG = "wrong"
    FALLEN_BACK = "fallen back"


Case = Composed | Condition
Check = Callable[[ReplyExample, str], str]
"""What is left of a reply after the check; empty where nothing may be sent."""


@dataclass(frozen=True)
class Tally:
    """How the replies to one set of cases came out."""

    name: str
    title: str
    verdicts: Counter[Verdict]

    @property
    def cases(self) -> int:
        """How many replies were judged."""
        return self.verdicts.total()


def composed_cases(folder: Path, count: int = CASES_EACH, seed: int = 0) -> dict[str, list[Case]]:
    """Return the sets of cases, all from places and conditions that training never sees.

    Args:
        folder: Of grounded_dstc9_pairs; holds `kb.jsonl`.
        count: Of each set.
        seed: The same seed gives the same cases.

    Raises:
        InvalidInput: The folder does not hold it.
    """
    rows = read_rows(folder / "kb.jsonl")
    tested = held_places(rows)
    by_place = {place: told for place, told in facts(rows).items() if place in tested}
    chance = random.Random(seed)
    cases: dict[str, list[Case]] = {
        kind.value: list(compose_many(kind, by_place, count, chance)) for kind in Kind
    }
    cases["a figure against a condition"] = list(conditions(count, chance, test=True))
    return cases


def judge(case: Case, reply: str) -> Verdict:
    """Return whether a reply says what the case's entries say; an empty one has fallen back.

    Right is: each wanted fact told with its polarity, yes or no first as the entry has it where
    it is said at all, nothing that no source has, and what is missing named as missing.
    """
    if not reply.strip():
        return Verdict.FALLEN_BACK
    right = _condition(case, reply) if isinstance(case, Condition) else _composed(case, reply)
    return Verdict.RIGHT if right else Verdict.WRONG


def tally(
    name: str, title: str, cases: Sequence[Case], replies: Sequence[str], check: Check | None = None
) -> Tally:
    """Return how replies came out, as they are or after a check."""
    verdicts: Counter[Verdict] = Counter()
    for case, reply in zip(cases, replies, strict=True):
        verdicts[judge(case, check(case.example, reply) if check else reply)] += 1
    return Tally(name, title, verdicts)


def table(tallies: Sequence[Tally]) -> str:
    """Return tallies as a Markdown table."""
    head = "| cases | replies by | right | wrong | fallen back |\n|---|---|---|---|---|"
    lines = [
        f"| {tally.title} ({tally.cases}) | {tally.name} | "
        + " | ".join(f"{tally.verdicts[verdict] / tally.cases:.1%}" for verdict in Verdict)
        + " |"
        for tally in tallies
        if tally.cases
    ]
    return "\n".join([head, *lines])


def _condition(case: Condition, reply: str) -> bool:
    lead = _LEAD.match(reply)
    alien = numbers(reply) - numbers(_known(case.example))
    return bool(lead) and (lead[1].lower() == "yes") is case.is_met and not alien


def _composed(case: Composed, reply: str) -> bool:
    lead = _LEAD.match(reply)
    if lead and (case.leads is None or (lead[1].lower() == "yes") is not case.leads):
        return False
    known = _known(case.example)
    told = [part for part in re.split(r"(?<=[.!?])\s+", reply) if not _KNOWS_NOTHING.search(part)]
    said = " ".join(told)
    if numbers(reply) - numbers(known) or token_precision(said, known) < SUPPORTED:
        return False
    if not all(_tells(fact, said) for fact in case.wanted):
        return False
    return case.missing is None or (
        any(_KNOWS_NOTHING.search(part) for part in _sentences(reply))
        and not case.missing.pattern.search(said)
    )


def _tells(fact: Fact, reply: str) -> bool:
    """Return whether a reply tells a fact, with all its numbers and its yes or no."""
    answer = plain(fact.entry.answer)
    place = set(content_words(fact.entity))
    wanted = [word for word in content_words(fact.clause) if word not in place]
    there = set(content_words(reply))
    recalled = sum(word in there for word in wanted) / len(wanted) if wanted else 1.0
    if numbers(answer) - numbers(reply):
        return False
    if fact.is_yes is None:
        return recalled >= RECALLED
    parts = [says_no for text, says_no in _clauses(reply) if fact.facet.pattern.search(text)]
    return bool(parts) and parts[0] is not fact.is_yes


def _clauses(reply: str) -> list[tuple[str, bool]]:
    """Return a reply's clauses with whether each says no; one without a verb goes on as before."""
    clauses: list[tuple[str, bool]] = []
    for text in _PARTS.split(_LEAD.sub("", reply)):
        says_no = negates(text)
        if not says_no and clauses and not _VERB.search(text):
            says_no = clauses[-1][1]
        clauses.append((text, says_no))
    return clauses


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text)


def _known(example: ReplyExample) -> str:
    sources = (f"{source.question} {plain(source.answer)}" for source in example.sources)
    return " ".join([*sources, *(turn.text for turn in example.turns)])
