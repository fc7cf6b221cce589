"""What customers ask about a place, and the entries of a base that say one thing about it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.replies.data import QuestionAnswer, lower_first, negates

LONGEST_WORDS = 22
"""Longer answers say more than one thing, which a rule cannot join to another."""
TEST_EVERY = 4
"""Each fourth place is only for tests."""


@dataclass(frozen=True)
class Facet:
    """Something that is asked about.

    Attributes:
        pattern: Finds it in an entry's question, and in a reply.
        topic: Its name in "and what about …?".
        asks: Yes/no questions without their mark, or questions for a fact.
        is_polar: Whether yes or no answers it.
    """

    pattern: re.Pattern[str]
    topic: str
    asks: tuple[str, ...]
    is_polar: bool = True


@dataclass(frozen=True)
class Fact:
    """What one entry says about a facet.

    Attributes:
        is_yes: What a yes/no question about the facet is answered with; None where it asks a fact.
        place: The entity's key, such as `hotel/3`.
    """

    facet: Facet
    entry: QuestionAnswer
    entity: str
    place: str
    is_yes: bool | None

    @property
    def clause(self) -> str:
        """What the entry says, to stand within a sentence: no yes or no first, no full stop."""
        bare = _bare(self.entry.answer)
        named = bare.lower().startswith(self.entity.split()[0].lower())
        return bare if named else lower_first(bare, self.entry.answer)

    @property
    def clause_after(self) -> str:
        """The clause after one that named the place: it is not named again."""
        name = rf"(?:the )?{re.escape(self.entity)}"
        text = re.sub(rf"\s+(?:at|in|to|by|for|from) {name}$", "", self.clause, flags=re.IGNORECASE)
        text = re.sub(r"\s+(?:here|at this (?:hotel|restaurant|property|location))$", "", text)
        verb = r"\s(?:is|has|does|offer|serve|allow|provide|accept|charge)"
        return re.sub(rf"^{name}(?={verb})", "it", text, flags=re.IGNORECASE)


def _facet(pattern: str, topic: str, *asks: str, is_polar: bool = True) -> Facet:
    return Facet(re.compile(pattern, re.IGNORECASE), topic, asks, is_polar)


# the first whose pattern stands in an entry's question is the entry's
FACETS = (
    _facet(r"\bcheck(?:ing)?[- ]?in\b(?!.*\bage\b)", "check-in", "from what time is check-in",
           "when can I check in", is_polar=False),
    _facet(r"\bcheck(?:ing)?[- ]?out\b", "check-out", "when do I have to check out",
           "what time is check-out", is_polar=False),
    _facet(r"payments?\b|credit cards?\b|debit|\bpay with\b", "payment", "how can I pay",
           "which cards do you take", is_polar=False),
    _facet(r"languages?\b", "languages", "which languages do you speak", is_polar=False),
    _facet(r"deposit(?! box)", "a deposit", "how much is the deposit", is_polar=False),
    _facet(r"\bage\b", "the minimum age", "how old do I have to be", is_polar=False),
    _facet(r"wi-?fi|internet", "wifi", "do you have wifi", "is there wifi", "can I get online"),
    _facet(r"gluten", "gluten free food", "do you have gluten free dishes",
           "is there anything gluten free"),
    _facet(r"halal", "halal food", "do you serve halal food", "is there something halal"),
    _facet(r"vegetarian|vegan", "vegetarian food", "do you have vegetarian dishes",
           "is there something for vegetarians"),
    _facet(r"live music", "live music", "is there live music", "do bands play there"),
    _facet(r"outdoor|outside", "outdoor seating", "can we sit outside",
           "do you have outdoor seating"),
    _facet(r"byob|own (?:alcohol|wine|bottle|beer|drinks)", "bringing our own wine",
           "can we bring our own bottle", "is it BYOB"),
    _facet(r"alcohol|liquor", "alcohol", "do you serve alcohol", "can we order alcohol"),
    _facet(r"high ?chairs?", "high chairs", "do you have a high chair", "are there high chairs"),
    _facet(r"deliver", "delivery", "do you deliver", "can I get it delivered"),
    _facet(r"take-? ?(?:out|away)", "take-out", "can I get take-out", "do you do take-out"),
    _facet(r"wheelchair|disab", "wheelchair access", "is it accessible by wheelchair",
           "can I come in with a wheelchair"),
    _facet(r"parking|\bpark\b", "parking", "is there parking", "can I park there"),
    _facet(r"breakfast", "breakfast", "do you serve breakfast", "can I have breakfast there"),
    _facet(r"\bpets?\b|\bdogs?\b", "pets", "are pets allowed", "can I bring my dog"),
    _facet(r"smok", "smoking", "can I smoke there", "is smoking allowed"),
    _facet(r"\bpool|swimming", "a pool", "do you have a pool", "can I swim there"),
    _facet(r"\bspa\b", "a spa", "is there a spa", "do you have a spa"),
    _facet(r"fitness|gym", "a gym", "is there a gym", "do you have a gym"),
    _facet(r"dry[- ]cleaning", "dry cleaning", "do you offer dry cleaning"),
    _facet(r"laundry", "laundry", "can I get my laundry done", "is there a laundry service"),
    _facet(r"concierge", "a concierge", "do you have a concierge"),
    _facet(r"housekeeping", "housekeeping", "is there daily housekeeping"),
    _facet(r"luggage|baggage", "luggage storage", "can I leave my luggage",
           "is there luggage storage"),
    _facet(r"safety deposit|\bsafe\b", "a safe", "is there a safe", "do you have safety boxes"),
    _facet(r"shuttle", "a shuttle", "is there a shuttle", "do you have an airport shuttle"),
    _facet(r"elevator|\blift\b", "a lift", "is there a lift", "do you have an elevator"),
    _facet(r"meeting|banquet", "meeting rooms", "do you have meeting rooms"),
    _facet(r"front desk|24[- ]hour", "a front desk round the clock",
           "is the front desk open round the clock"),
    _facet(r"kitchen", "a kitchen", "is there a kitchen", "can I use a kitchen"),
    _facet(r"\bchild(?:ren)?\b|\bkids\b", "children", "are children welcome", "can we bring kids"),
    _facet(r"reserv", "reservations", "do you take reservations", "can I book a table"),
    _facet(r"\bbar\b", "a bar", "is there a bar", "do you have a bar"),
)  # fmt: skip

_SEVERAL = re.compile(
    r"\b(?:but|however|except|only|unless|although|if|though|limited|request|depend\w*)\b|[;:]",
    re.IGNORECASE,
)
_LEAD = re.compile(r"^(?:yes|no|sorry|unfortunately)\b[,.!]?\s*", re.IGNORECASE)
_PAYS = re.compile(r"\b(?:free|cost|charge|extra|fee|pay|price|reserve|need|required?)\b", re.I)
_NO_NEGATION = re.compile(r"\bno (?:extra |additional )?(?:charge|cost|fee)|non[- ]smoking", re.I)


def facts(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Fact]]:
    """Return what a base's entries say, by place: one fact a facet, its entry the first.

    Args:
        rows: Of `kb.jsonl`: `id`, `entity`, `question`, `answer`.
    """
    found: dict[str, dict[str, Fact]] = defaultdict(dict)
    for row in rows:
        fact = _fact(row)
        if fact is not None:
            found[fact.place].setdefault(fact.facet.topic, fact)
    return {place: list(by_topic.values()) for place, by_topic in sorted(found.items())}


def held_places(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the places that no training example may come from."""
    places = sorted({row["id"].rsplit("/", 1)[0] for row in rows if "*" not in row["id"]})
    return frozenset(places[::TEST_EVERY])


def facet_of(text: str) -> Facet | None:
    """Return what a question asks about, None where it is nothing known."""
    return next((facet for facet in FACETS if facet.pattern.search(text)), None)


def _fact(row: Mapping[str, Any]) -> Fact | None:
    """Return an entry as a fact where it says one thing, and the facet by its name."""
    question, answer = row["question"], row["answer"].strip()
    facet = facet_of(question)
    if facet is None or "*" in row["id"] or not row.get("entity"):
        return None
    bare = _bare(answer)
    plain = len(bare.split()) <= LONGEST_WORDS and not re.search(r"[.!?]\s", bare)
    if not plain or _SEVERAL.search(answer) or not facet.pattern.search(bare):
        return None
    is_yes = None
    if facet.is_polar:
        if (_PAYS.search(question) and facet.topic not in ("gluten free food",)) or (
            _NO_NEGATION.search(answer)
        ):
            return None
        is_yes = not negates(bare)
        if not is_yes and re.search(r"\bfree\b", bare) and facet.topic in ("wifi", "parking"):
            return None  # "no free WiFi" does not say that there is none
        lead = _LEAD.match(answer)
        if lead and lead[0].lower().startswith("yes") is not is_yes:
            return None
    entry = QuestionAnswer(question.strip(), answer)
    return Fact(facet, entry, row["entity"], row["id"].rsplit("/", 1)[0], is_yes)


def _bare(answer: str) -> str:
    text = _LEAD.sub("", answer.strip()).rstrip(" .!")
    return text[:1].upper() + text[1:]
