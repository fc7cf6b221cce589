"""Questions that two entries answer together, yes/no against hope, follow-ups, and what is missing.

The replies are the entries' own clauses, joined as a person would join them and with yes or no
first, so that a reply can be judged by rule: each fact there, its polarity kept, nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.types import Author, Utterance
from training.replies.data import QuestionAnswer, ReplyExample
from training.replies.made.facets import FACETS, Facet, Fact


class Kind(StrEnum):
    """What copying one entry cannot do."""

    TOGETHER = "two entries together"
    AGAINST = "yes or no against hope"
    FOLLOW_UP = "follow-up"
    MISSING = "a part is missing"


@dataclass(frozen=True)
class Composed:
    """An example with what its reply must say.

    Attributes:
        wanted: The facts that the reply must tell.
        missing: What no source answers; the reply must say so.
        leads: Whether the reply begins with yes; None where neither is asked first.
    """

    kind: Kind
    example: ReplyExample
    wanted: tuple[Fact, ...]
    missing: Facet | None = None
    leads: bool | None = None


def together(first: Fact, second: Fact, chance: random.Random) -> Composed:
    """Return a question that needs both entries."""
    asked, other = chance.choice(first.facet.asks), chance.choice(second.facet.asks)
    message = _spoken(chance.choice(["{} and {}", "{}, and {}", "{}? And {}", "{} and also {}"])
                      .format(asked, other), first.entity, chance)  # fmt: skip
    link = (
        "and" if first.is_yes == second.is_yes or None in (first.is_yes, second.is_yes) else "but"
    )
    reply = _led(first.is_yes, f"{first.clause}, {link} {second.clause_after}")
    sources = [first.entry, second.entry]
    if chance.random() < 0.3:
        sources.reverse()
    example = _example([], message, sources, reply, first)
    return Composed(Kind.TOGETHER, example, (first, second), leads=first.is_yes)


def against(fact: Fact, other: Fact | None, chance: random.Random) -> Composed:
    """Return a yes/no question whose wording hopes for the reverse of what the entry says."""
    asked = chance.choice(fact.facet.asks)
    if fact.is_yes:  # doubts what there is
        form = chance.choice(["I guess there is no {0}?", "No {0}, right?", "so {0}: not possible?",
                              "I heard you have no {0}?", "there's no {0} I suppose"])  # fmt: skip
        message = form.format(fact.facet.topic.removeprefix("a "))
    else:
        form = chance.choice(
            ["{}", "I hope so: {}", "Surely yes, but {}", "{}, right", "Great! {}"]
        )
        message = _spoken(form.format(asked), fact.entity, chance)
    sources = [fact.entry] + ([other.entry] if other else [])
    example = _example([], message, sources, _led(fact.is_yes, fact.clause), fact)
    return Composed(Kind.AGAINST, example, (fact,), leads=fact.is_yes)


def follow_up(before: Fact, fact: Fact, chance: random.Random) -> Composed:
    """Return a short question that goes on from another one about the same place."""
    first = _spoken(chance.choice(before.facet.asks), before.entity, chance)
    turns = [
        Utterance(Author.CUSTOMER, first),
        Utterance(Author.BOT, _led(before.is_yes, before.clause)),
    ]
    form = chance.choice(["And {0}?", "what about {0}?", "and {0}", "How about {0}?", "ok, {1}?",
                          "And {1}?"])  # fmt: skip
    message = form.format(fact.facet.topic, chance.choice(fact.facet.asks))
    sources = [fact.entry, before.entry]
    if chance.random() < 0.3:
        sources.reverse()
    example = _example(turns, message, sources, _led(fact.is_yes, fact.clause), fact)
    return Composed(Kind.FOLLOW_UP, example, (fact,), leads=fact.is_yes)


def missing(fact: Fact, absent: Facet, other: Fact | None, chance: random.Random) -> Composed:
    """Return a question of which no source answers the second part."""
    asked, more = chance.choice(fact.facet.asks), chance.choice(absent.asks)
    message = _spoken(f"{asked} and {more}", fact.entity, chance)
    sources = [fact.entry] + ([other.entry] if other else [])
    reply = f"{_led(fact.is_yes, fact.clause)} I have no information about {absent.topic}."
    example = _example([], message, sources, reply, fact)
    return Composed(Kind.MISSING, example, (fact,), absent, leads=fact.is_yes)


def compose(kind: Kind, facts: Sequence[Fact], chance: random.Random) -> Composed | None:
    """Return a case of a kind from the facts of one place, None where they do not allow it."""
    polar = [fact for fact in facts if fact.is_yes is not None]
    if len(polar) < 2 or len(facts) < 3:
        return None
    if kind is Kind.AGAINST:
        no = [fact for fact in polar if not fact.is_yes]
        yes = [fact for fact in polar if fact.is_yes]
        chosen = chance.choice(no if no and (chance.random() < 0.6 or not yes) else yes)
        return against(chosen, _another(facts, chosen, chance), chance)
    first, second = chance.sample(list(facts), 2)
    if kind is Kind.TOGETHER:
        return together(first, second, chance)
    if kind is Kind.FOLLOW_UP:
        return follow_up(first, second, chance)
    other = _another(facts, first, chance)
    known = {first.facet.topic, *([other.facet.topic] if other else [])}
    absent = chance.choice([facet for facet in FACETS if facet.topic not in known])
    return missing(first, absent, other, chance)


def compose_many(
    kind: Kind, by_place: dict[str, list[Fact]], count: int, chance: random.Random
) -> list[Composed]:
    """Return so many cases of a kind, no two with the same message, spread over the places."""
    made: dict[tuple[str, str], Composed] = {}
    places = list(by_place)
    if not places:
        return []
    for _attempt in range(20 * count):
        if len(made) == count:
            break
        case = compose(kind, by_place[chance.choice(places)], chance)
        if case is not None:
            made.setdefault((case.wanted[0].place, case.example.message), case)
    return list(made.values())


def _another(facts: Sequence[Fact], fact: Fact, chance: random.Random) -> Fact | None:
    """Return another entry of the place that does not answer, for some of the cases."""
    others = [other for other in facts if other is not fact]
    return chance.choice(others) if others and chance.random() < 0.5 else None


def _led(is_yes: bool | None, clause: str) -> str:
    """Return a clause as a sentence, with its yes or no first."""
    if is_yes is None:
        return f"{clause[0].upper()}{clause[1:]}."
    return f"{'Yes' if is_yes else 'No'}, {clause}."


def _spoken(question: str, entity: str, chance: random.Random) -> str:
    """Return a question with its mark as customers type it, some of them naming the place."""
    text = question
    if chance.random() < 0.25:
        text = f"I'm coming to {entity.title()}. {text[0].upper()}{text[1:]}"
    elif chance.random() < 0.2:
        text = chance.choice(["Hi, ", "hello, ", "Quick question: ", "Before I book: "]) + text
    elif chance.random() < 0.6:
        text = text[0].upper() + text[1:]
    return text if chance.random() < 0.15 else f"{text}?"


def _example(
    turns: list[Utterance], message: str, sources: list[QuestionAnswer], reply: str, fact: Fact
) -> ReplyExample:
    said = (*turns, Utterance(Author.CUSTOMER, message))
    return ReplyExample(said, tuple(sources), reply, f"{fact.place}/{fact.facet.topic}")
