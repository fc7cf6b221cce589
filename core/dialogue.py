"""What is being talked about in a conversation, carried from turn to turn; pure.

The state is stored with the conversation, so that a restart loses nothing and so that what was
named long ago, outside of the messages that a turn loads, still counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from core.types import Decision, FaqEntry

MOST_MENTIONS = 8
FADING = 0.85
"""What is left of a mention with each further turn of the customer."""
DISPLACED = 0.5
"""What is left of it when something else is named instead."""
FORGOTTEN_BELOW = 0.05
MOST_OPTIONS = 4
SUMMARY_LINES = 6
"""Older turns that are kept as one line each; what lies further back is forgotten."""
RECENT_LINES = 2
"""The latest turns stand in the state in full, so the summary begins before them."""
LINE_CHARACTERS = 140
TEXT_CHARACTERS = 400

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_ORDER = re.compile(
    r"(?:\b(?:order|bestell(?:ung|nummer)|commande|pedido|booking|ticket|invoice|reference)"
    r"(?:\s+(?:number|no\.?|nr\.?|nummer|id|is|num[ée]ro|n[úu]mero))*|订单(?:编?号)?|注文番号)"
    r"\s*[:：#]?\s*(?:is\s+|是\s*|は\s*)?(?P<order>#?(?=[\w-]*\d)[A-Za-z]{0,4}-?\d[\w-]{3,20})",
    re.IGNORECASE,
)
_CODE = re.compile(r"(?<![\w-])#?(?P<order>[A-Z]{1,4}-?\d{4,12})(?![\w-])")
_NAME = re.compile(
    r"(?:\b(?:[Mm]y name is|[Tt]his is|[Ii]ch hei(?:ß|ss)e|[Mm]ein Name ist|[Jj]e m'appelle|"
    r"[Mm]e llamo|[Mm]i nombre es)\s+)"
    r"(?P<name>[^\W\d_][\w'’-]{0,30}(?:\s+[A-ZÀ-Þ][\w'’-]{1,30}){0,2})"
)
_NAME_ZH = re.compile("我(?:叫|的名字是)(?P<name>[\u4e00-\u9fff]{2,4}?)(?=[，,。.!！\\s]|$)")
_CAPITAL = re.compile(r"[A-ZÀ-Þ]")


@dataclass(frozen=True)
class Mention:
    """Something that was named.

    Attributes:
        entity: Its name, as entries write it.
        weight: How surely the conversation is about it, in (0, 1].
        turns: The customer's turns since it was last named.
    """

    entity: str
    weight: float
    turns: int = 0


@dataclass(frozen=True)
class Option:
    """One answer to a clarifying question: an entry, and what tells it apart from the others."""

    entry_id: str
    label: str


@dataclass(frozen=True)
class Clarification:
    """A question back that the customer has not answered yet.

    Attributes:
        question: What the customer had asked.
        options: In the order in which they are shown; the first one is number 1.
    """

    question: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class State:
    """What is being talked about after a turn.

    Attributes:
        entities: What was named, the likeliest first.
        entry: Id of the entry that was answered with last; empty where there is none.
        question: What the customer last asked, stand-alone; small talk leaves it as it is.
        clarification: The question back that is open.
        slots: What the customer told of themselves: `name`, `email`, `order`.
        summary: Older turns, one line each, oldest first.
        recent: The latest turns in the same form; they join the summary later.
        turns: The customer's turns so far.
    """

    entities: tuple[Mention, ...] = ()
    entry: str = ""
    question: str = ""
    clarification: Clarification | None = None
    slots: Mapping[str, str] = field(default_factory=dict[str, str])
    summary: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    turns: int = 0

    @property
    def asked_back(self) -> bool:
        """Whether the last reply was a clarifying question."""
        return self.clarification is not None

    def to_json(self, mask: Callable[[str], str] | None = None) -> dict[str, Any]:
        """Return what is stored; what is empty is left out, so a clean start is `{}`.

        Args:
            mask: Takes personal data out of each text, for traces; slots then show only that
                they are filled.
        """
        hide = mask or _as_it_is
        told: dict[str, Any] = {
            "entities": [
                {"entity": m.entity, "weight": round(m.weight, 3), "turns": m.turns}
                for m in self.entities
            ],
            "entry": self.entry,
            "question": hide(self.question),
            "slots": {
                name: f"[{name}]" if mask else value for name, value in sorted(self.slots.items())
            },
            "summary": [hide(line) for line in self.summary],
            "recent": [hide(line) for line in self.recent],
            "turns": self.turns,
        }
        if self.clarification is not None:
            told["clarification"] = {
                "question": hide(self.clarification.question),
                "options": [
                    {"entry_id": o.entry_id, "label": o.label} for o in self.clarification.options
                ],
            }
        return {name: value for name, value in told.items() if value}


def from_json(stored: Mapping[str, Any]) -> State:
    """Return the state that was stored.

    What another version wrote and this one does not know is passed over, and what has the wrong
    shape is taken as empty: workers of two versions serve one conversation during an update.
    """
    return State(
        entities=tuple(_mentions(stored.get("entities"))),
        entry=_text(stored.get("entry")),
        question=_text(stored.get("question")),
        clarification=_clarification(stored.get("clarification")),
        slots={
            str(name): _text(value)
            for name, value in _mapping(stored.get("slots")).items()
            if name in ("name", "email", "order") and _text(value)
        },
        summary=tuple(_texts(stored.get("summary")))[-SUMMARY_LINES:],
        recent=tuple(_texts(stored.get("recent")))[-RECENT_LINES:],
        turns=max(_whole(stored.get("turns")), 0),
    )


def advance(
    state: State,
    said: str,
    *,
    asked: str = "",
    decision: Decision | None = None,
    entries: Sequence[FaqEntry] = (),
    named: Sequence[tuple[str, float]] = (),
    clarification: Clarification | None = None,
) -> State:
    """Return the state after a turn.

    Args:
        state: Before it.
        said: What the customer said.
        asked: The question in it, stand-alone; empty where nothing was asked.
        decision: What the reply did; None where that is not known.
        entries: What the reply rests on; the first one answers.
        named: The entities that this turn names, customer or bot, with how surely, in (0, 1].
        clarification: The question back that the reply was, where it was one.
    """
    line = _line(said, decision, entries)
    lines = [*state.summary, *state.recent, *([line] if line else [])]
    answered = bool(entries) and decision in (None, Decision.ANSWER)
    return State(
        entities=_followed(state.entities, named),
        entry=entries[0].id if answered else state.entry,
        question=_cut(asked) or state.question,
        clarification=clarification,
        slots={**state.slots, **slots_of(said)},
        summary=tuple(lines[:-RECENT_LINES][-SUMMARY_LINES:]),
        recent=tuple(lines[-RECENT_LINES:]),
        turns=state.turns + 1,
    )


def closed(state: State) -> State:
    """Return a state without its open question back."""
    return replace(state, clarification=None)


def slots_of(said: str) -> dict[str, str]:
    """Return what a customer tells of themselves, by rule: `name`, `email` and `order`."""
    found: dict[str, str] = {}
    if email := _EMAIL.search(said):
        found["email"] = email.group()
    if order := _ORDER.search(said) or _CODE.search(said):
        found["order"] = order.group("order").lstrip("#")
    name = _NAME.search(said) or _NAME_ZH.search(said)
    # "this is broken" is no introduction: a name after "this is" has a capital letter.
    if name and (_CAPITAL.match(name.group("name")) or not name.group().lower().startswith("this")):
        found["name"] = name.group("name")
    return {slot: value[:80] for slot, value in found.items()}


def _followed(before: Sequence[Mention], named: Sequence[tuple[str, float]]) -> tuple[Mention, ...]:
    now: dict[str, float] = {}
    for entity, weight in named:
        now[entity] = max(now.get(entity, 0.0), min(weight, 1.0))
    surest = max(now.values(), default=0.0)
    left = FADING * (1 - (1 - DISPLACED) * surest)
    mentions = {
        m.entity: Mention(m.entity, m.weight * (FADING if m.entity in now else left), m.turns + 1)
        for m in before
    }
    for entity, weight in now.items():
        earlier = mentions[entity].weight if entity in mentions else 0.0
        mentions[entity] = Mention(entity, 1 - (1 - weight) * (1 - earlier), 0)
    kept = [m for m in mentions.values() if m.weight >= FORGOTTEN_BELOW and m.entity]
    return tuple(sorted(kept, key=lambda m: (-m.weight, m.turns, m.entity))[:MOST_MENTIONS])


def _line(said: str, decision: Decision | None, entries: Sequence[FaqEntry]) -> str:
    """Return a turn in a line: what was said, and what came of it."""
    if decision is Decision.SMALL_TALK or not said.strip():
        return ""
    if entries and decision in (None, Decision.ANSWER):
        outcome = f" -> {entries[0].question}"
    else:
        outcome = f" -> {decision}" if decision is not None else ""
    room = LINE_CHARACTERS - min(len(outcome), LINE_CHARACTERS // 2)
    return _cut(said, room) + _cut(outcome, LINE_CHARACTERS - room)


def _cut(text: str, limit: int = TEXT_CHARACTERS) -> str:
    words = text if text.startswith(" ->") else " ".join(text.split())
    return words if len(words) <= limit else f"{words[: limit - 1].rstrip()}…"


def _as_it_is(text: str) -> str:
    return text


def _mentions(stored: Any) -> Iterable[Mention]:
    for held in _items(stored)[:MOST_MENTIONS]:
        row = _mapping(held)
        weight = row.get("weight")
        name = _text(row.get("entity"))
        if name and isinstance(weight, int | float) and 0 < weight <= 1:
            yield Mention(name, float(weight), max(_whole(row.get("turns")), 0))


def _clarification(stored: Any) -> Clarification | None:
    row = _mapping(stored)
    options = [
        Option(_text(held.get("entry_id")), _text(held.get("label")))
        for held in map(_mapping, _items(row.get("options"))[:MOST_OPTIONS])
    ]
    kept = tuple(option for option in options if option.entry_id and option.label)
    return Clarification(_text(row.get("question")), kept) if len(kept) > 1 else None


def _mapping(stored: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", stored) if isinstance(stored, Mapping) else {}


def _items(stored: Any) -> list[Any]:
    return cast("list[Any]", stored) if isinstance(stored, list) else []


def _texts(stored: Any) -> list[str]:
    return [text for held in _items(stored) if (text := _text(held))]


def _text(stored: Any) -> str:
    return stored[:TEXT_CHARACTERS] if isinstance(stored, str) else ""


def _whole(stored: Any) -> int:
    return stored if isinstance(stored, int) and not isinstance(stored, bool) else 0
