"""Choosing what to say, from calibrated scores; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.types import Choice, Decision, Holder, Intent, MessageKind, Passage

SMALL_TALK = frozenset({"greeting", "thanks", "goodbye", "feedback"})
OUT_OF_SCOPE = "out_of_scope"


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
    """

    answer_from: float = 0.6
    clarify_from: float = 0.1
    together_from: float = 0.45
    person_from: float = 0.6
    small_talk_from: float = 0.5
    refuse_from: float = 0.5


@dataclass(frozen=True)
class Seen:
    """What is known about a message when the decision is made.

    Attributes:
        intents: Likeliest first.
        passages: Best first.
        is_polite_only: Nothing is left once greetings and thanks are taken off.
        asked_back: The last reply was a clarifying question already.
    """

    intents: Sequence[Intent]
    passages: Sequence[Passage]
    kind: MessageKind = MessageKind.TEXT
    holder: Holder = Holder.BOT
    is_polite_only: bool = False
    asked_back: bool = False


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
    if intent.name == "human_request" and intent.probability >= policy.person_from:
        return Choice(Decision.HAND_OFF, "the customer asked for a person")
    if seen.is_polite_only and intent.name in SMALL_TALK:
        return Choice(Decision.SMALL_TALK, f"nothing but {intent.name}")
    if best is not None and is_sure:
        return _answer(seen, policy, best)
    if intent.name in SMALL_TALK and intent.probability >= policy.small_talk_from:
        return Choice(Decision.SMALL_TALK, f"{intent.name}, and no entry is likely enough")
    if intent.name == "complaint" and intent.probability >= policy.small_talk_from:
        return Choice(Decision.HAND_OFF, "a complaint that no entry answers")
    if _chance(seen.intents, OUT_OF_SCOPE) >= policy.refuse_from:
        return Choice(Decision.REFUSE, "out of scope, and no entry is likely enough")
    return _unsure(seen, policy)


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


def _unsure(seen: Seen, policy: Policy) -> Choice:
    """Ask which of two entries is meant, where one of them surely is; else fetch a person."""
    competing = [p for p in seen.passages[:3] if p.confidence >= policy.clarify_from]
    together = sum(p.confidence for p in competing)
    can_ask = not seen.asked_back and seen.holder is not Holder.WAITING
    if can_ask and len(competing) > 1 and together >= policy.together_from:
        return Choice(Decision.CLARIFY, "two entries compete", tuple(competing))
    return Choice(Decision.HAND_OFF, "no entry is likely enough to answer")


def _chance(intents: Sequence[Intent], name: str) -> float:
    return next((intent.probability for intent in intents if intent.name == name), 0.0)
