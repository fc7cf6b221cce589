"""What can be inferred about a turn from what customers and agents did after it; pure.

Nobody said so, hence the weights below 1: a thumb up is also given to a friendly wrong answer, a
thumb down to a right one that disappoints, and agents say the same in words of their own.
Source: Ratner et al. 2017 (labelling functions); the weights are ours, set by judgement.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

from core.db.labels import Asked, Label, Said
from core.types import Author, Decision, TurnId, Verdict
from core.words import likeness, words

UP_WEIGHT = 0.5
DOWN_WEIGHT = 0.7
"""A thumb down is given less lightly than one up."""
REPEATED_WEIGHT = 0.3
AGENT_WEIGHT = 0.8
"""Of an agent's answer that is an entry's word by word; less like it counts less."""
NONE_WEIGHT = 0.3
ALIKE_FROM = 0.6
"""From here on an agent's words are taken for an entry's answer."""
UNLIKE_BELOW = 0.25
"""Below, they are taken for none; in between nothing is inferred."""
CLEAR_LEAD = 0.05
"""Two entries that fit an agent's words nearly alike (the same answer twice) tell nothing."""
FEWEST_WORDS = 4
ANSWER_WORDS = 8
"""So few words of an agent are a greeting or "one moment", not an answer of their own."""
COMMON_SHARE = 0.05
SOON = timedelta(minutes=10)
_OBJECTION = re.compile(
    r"^\W*(?:no\b|nope\b|wrong\b|i (?:asked|mean|meant|said)\b|"
    r"(?:that|this)(?:'?s| is) (?:not|wrong)|not what\b|"
    r"you (?:did|do)n'?t (?:answer|understand)|nein\b|non\b|"
    r"不是|不对|我(?:问|是说|的意思)|答非所问|違い?ます)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Match:
    """The entry whose answer an agent gave, None for "no entry's"; `weight` in (0, 1]."""

    entry_id: str | None
    weight: float


class Answers:
    """The answers of a base, in which an agent's words are looked up.

    Args:
        entries: As (id, answer).
    """

    def __init__(self, entries: Sequence[tuple[str, str]]) -> None:
        self._words = {entry_id: words(answer) for entry_id, answer in entries}
        self._holding: defaultdict[str, list[str]] = defaultdict(list)
        for entry_id, held in self._words.items():
            for word in held:
                self._holding[word].append(entry_id)
        # a word in so many answers finds none; in a small base every word does
        self._common_from = max(COMMON_SHARE * len(entries), 50)

    def match(self, text: str) -> Match | None:
        """Return which entry's answer a text is, or None where nothing can be said."""
        said = words(text)
        if len(said) < FEWEST_WORDS:
            return None
        shared = Counter(
            entry_id
            for word in said
            if len(self._holding.get(word, ())) <= self._common_from
            for entry_id in self._holding.get(word, ())
        )
        alike = sorted(
            ((self._alike(entry_id, said), entry_id) for entry_id, _ in shared.most_common(20)),
            reverse=True,
        )
        best, entry_id = alike[0] if alike else (0.0, "")
        if best < UNLIKE_BELOW:
            return Match(None, NONE_WEIGHT) if len(said) >= ANSWER_WORDS else None
        runner_up = alike[1][0] if len(alike) > 1 else 0.0
        if best < ALIKE_FROM or best - runner_up < CLEAR_LEAD:
            return None
        return Match(entry_id, round(AGENT_WEIGHT * best, 3))

    def _alike(self, entry_id: str, said: frozenset[str]) -> float:
        """Return how alike they are; an answer within a longer message counts nearly whole."""
        answer = self._words[entry_id]
        within = 0.95 * len(answer & said) / len(answer) if len(answer) >= FEWEST_WORDS else 0.0
        return max(likeness(answer, said), within)


def judged(asked: Asked, entry_id: str | None, **fields: object) -> Label:
    """Return the label that says which entry answers a turn, None for none."""
    chosen = asked.chosen
    right = chosen.entry_id == entry_id if chosen else entry_id is None
    if entry_id is not None and entry_id in asked.cited:
        right = True  # one of several entries that the answer rested on
    label = Label(
        text=asked.text,
        entry_id=entry_id,
        locale=asked.locale,
        chosen_entry_id=chosen.entry_id if chosen else None,
        confidence=chosen.confidence if chosen else None,
        is_correct=right,
        history=asked.history,
        turn_id=asked.turn_id,
    )
    return replace(label, **fields)  # type: ignore[arg-type]


def from_verdict(asked: Asked, verdict: Verdict) -> Label | None:
    """Return what a thumb up or down says of an answer that rested on one entry."""
    if len(asked.cited) != 1:
        return None
    if verdict is Verdict.UP:
        return judged(asked, asked.cited[0], source="feedback", weight=UP_WEIGHT, author="customer")
    return _refuted(asked, DOWN_WEIGHT, "customer")


def from_repetition(asked: Asked) -> Label | None:
    """Return what it says of an answer that its question was asked again at once."""
    return _refuted(asked, REPEATED_WEIGHT, "asked again") if len(asked.cited) == 1 else None


def from_agent(asked: Asked, match: Match) -> Label:
    """Return what an agent's answer says of the turn that it answered."""
    return judged(asked, match.entry_id, source="agent", weight=match.weight, author="agent")


def _refuted(asked: Asked, weight: float, author: str) -> Label:
    """The entry was wrong; which one is right remains open."""
    label = judged(asked, None, source="feedback", weight=weight, author=author)
    return replace(label, is_correct=False)


def repeated(said: Sequence[Said]) -> Iterator[TurnId]:
    """Yield the answered turns of a conversation whose question was asked again at once."""
    answered: Said | None = None
    before = ""
    for author, messages in groupby(said, key=lambda each: each.author):
        run = list(messages)
        if author is Author.CUSTOMER:
            text = "\n".join(each.text for each in run)
            soon = answered is not None and run[0].at - answered.at < SOON
            if answered is not None and answered.turn_id and soon and asks_again(before, text):
                yield answered.turn_id
            before, answered = text, None
        else:
            is_answer = author is Author.BOT and run[-1].decision is Decision.ANSWER
            answered = run[-1] if is_answer else None


def asks_again(before: str, now: str) -> bool:
    """Tell whether a message asks the one before it once more, or objects to its answer.

    "... to Germany?" after "... to France?" is a new question, however alike: the words of one
    must be among the other's, or the customer must say that it was not meant so.
    """
    one, other = words(before), words(now)
    if _OBJECTION.search(now):
        return len(one & other) > 0
    fewer, more = sorted((one, other), key=len)
    return len(fewer) > 1 and fewer <= more and likeness(one, other) >= ALIKE_FROM


def agent_answers(said: Sequence[Said]) -> Iterator[tuple[TurnId, str]]:
    """Yield the turns of a conversation that an agent answered, with the agent's words.

    Of several turns that wait, the one that was handed over is meant, else the last.
    """
    waiting: list[TurnId] = []
    handed_over: TurnId | None = None
    for author, messages in groupby(said, key=lambda each: each.author):
        run = list(messages)
        if author is Author.CUSTOMER:
            # what is said while an agent holds the conversation opens no turn
            waiting += [each.turn_id for each in run if each.turn_id]
        elif author is Author.BOT:
            if run[-1].decision is Decision.ANSWER:
                waiting, handed_over = [], None
            elif run[-1].decision is Decision.HAND_OFF:
                handed_over = run[-1].turn_id
        else:
            answered = handed_over or (waiting[-1] if waiting else None)
            if answered is not None:
                yield answered, "\n".join(each.text for each in run)
            waiting, handed_over = [], None
