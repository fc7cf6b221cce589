"""Choosing what to say, from calibrated scores; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.types import Choice, Decision, FaqEntry, Holder, Intent, MessageKind, Passage

SMALL_TALK = frozenset({"greeting", "thanks", "goodbye", "feedback"})
OUT_OF_SCOPE = "out_of_scope"
NOTHING_ASKED = "nothing is asked"
CHOSEN_CONFIDENCE = 0.95
"""What an entry is trusted with that the customer chose of those offered: all may be wrong."""


@dataclass(frozen=True)
class Policy:
    """Thresholds in [0, 1] on calibrated chances.

    Attributes:
        answer_from: An entry this likely is answered with; fitted to the tolerated error.
        clarify_from: Each of the competing entries must be this likely.
        together_from: One of them is meant at least with this chance.
        person_from: A wish for a person this likely is granted.
        small_talk_from: A polite phrase this likely is answered in kind.
        refuse_from: Out of scope from here, where no entry is likely enough.
        asks_from: A message that asks something less surely is not answered from an entry, and
            one that asks something more surely gets no small talk.
        noted_below: A message that asks so little is only noted, where nothing else fits.
    """

    answer_from: float = 0.6
    clarify_from: float = 0.1
    together_from: float = 0.45
    person_from: float = 0.6
    small_talk_from: float = 0.5
    refuse_from: float = 0.5
    asks_from: float = 0.5
    noted_below: float = 0.15


@dataclass(frozen=True)
class Seen:
    """What is known about a message when the decision is made.

    Attributes:
        intents: Likeliest first; of a message with several wishes each of them is sure.
        passages: Best first.
        is_polite_only: Nothing is left once greetings and thanks are taken off.
        asked_back: The last reply was a clarifying question already.
        asks: The chance that the message asks or reports anything at all; None where nothing
            tells.
        tells: It says who the customer is or which order it is about.
    """

    intents: Sequence[Intent]
    passages: Sequence[Passage]
    kind: MessageKind = MessageKind.TEXT
    holder: Holder = Holder.BOT
    is_polite_only: bool = False
    asked_back: bool = False
    asks: float | None = None
    tells: bool = False


def decide(seen: Seen, policy: Policy) -> Choice:
    """Choose what to say.

    Returns:
        The decision, its reason as the trace shows it, and the passages it rests on.
    """
    if seen.kind is not MessageKind.TEXT:
        return _by_kind(seen.kind)
    intent = seen.intents[0] if seen.intents else Intent(OUT_OF_SCOPE, 0.0)
    best = seen.passages[0] if seen.passages else None
    is_sure = best is not None and best.confidence >= policy.answer_from
    if wants_person(seen, policy):
        return Choice(Decision.HAND_OFF, "the customer asked for a person")
    if seen.is_polite_only and intent.name in SMALL_TALK:
        return Choice(Decision.SMALL_TALK, f"nothing but {intent.name}")
    may_ask = seen.asks is None or seen.asks >= policy.asks_from
    if best is not None and is_sure and may_ask:
        return _answer(seen, policy, best)
    chats = intent.name in SMALL_TALK and intent.probability >= policy.small_talk_from
    if chats and not (may_ask and seen.asks is not None):
        return Choice(Decision.SMALL_TALK, f"{intent.name}, and no entry is likely enough")
    if intent.name == "complaint" and intent.probability >= policy.small_talk_from:
        return Choice(Decision.HAND_OFF, "a complaint that no entry answers")
    if seen.tells and not may_ask:
        return Choice(Decision.SMALL_TALK, NOTHING_ASKED)
    if _chance(seen.intents, OUT_OF_SCOPE) >= policy.refuse_from:
        return Choice(Decision.REFUSE, "out of scope, and no entry is likely enough")
    if seen.asks is not None and seen.asks < policy.noted_below:
        return Choice(Decision.SMALL_TALK, NOTHING_ASKED)
    return _unsure(seen, policy, may_ask=may_ask)


def wants_person(seen: Seen, policy: Policy) -> bool:
    """Return whether the customer asks for a person, alone or beside other wishes."""
    return _chance(seen.intents, "human_request") >= policy.person_from


def decide_chosen(entries: Sequence[FaqEntry]) -> Choice:
    """Choose what to say where the customer answered a clarifying question.

    Args:
        entries: What they chose; none where they want none of those offered.
    """
    if not entries:
        return Choice(Decision.HAND_OFF, "the customer wants none of the entries offered")
    passages = tuple(Passage(e, CHOSEN_CONFIDENCE, CHOSEN_CONFIDENCE) for e in entries)
    return Choice(Decision.ANSWER, "the customer chose it of the entries offered", passages)


def _by_kind(kind: MessageKind) -> Choice:
    if kind is MessageKind.PERSON:
        return Choice(Decision.HAND_OFF, "the customer pressed the button for a person")
    if kind is MessageKind.START:
        return Choice(Decision.SMALL_TALK, "the first contact")
    return Choice(Decision.SMALL_TALK, "the message holds no text")


def _answer(seen: Seen, policy: Policy, best: Passage) -> Choice:
    """Answer, also from a second entry where it is as sure on its own."""
    also = [p for p in seen.passages[1:3] if p.confidence >= policy.answer_from]
    return Choice(Decision.ANSWER, "one entry stands out", (best, *also[:1]))


def _unsure(seen: Seen, policy: Policy, *, may_ask: bool) -> Choice:
    """Ask which of two entries is meant, where one of them surely is; else fetch a person."""
    competing = [p for p in seen.passages[:3] if p.confidence >= policy.clarify_from]
    together = sum(p.confidence for p in competing)
    can_ask = may_ask and not seen.asked_back and seen.holder is not Holder.WAITING
    if can_ask and len(competing) > 1 and together >= policy.together_from:
        return Choice(Decision.CLARIFY, "two entries compete", tuple(competing))
    return Choice(Decision.HAND_OFF, "no entry is likely enough to answer")


def _chance(intents: Sequence[Intent], name: str) -> float:
    return next((intent.probability for intent in intents if intent.name == name), 0.0)
