"""Labels: staff's word on what was asked, files of them, and what can be inferred from use."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from core import weak_labels
from core.db import faq, inboxes
from core.db import labels as rows
from core.db.connect import Connection, Database
from core.db.labels import Asked, Label
from core.errors import InvalidInput, NotFound
from core.intents import LABEL
from core.label_files import AUTHOR_LIMIT_CHARACTERS, Line
from core.masking import mask_prose
from core.types import KnowledgeBaseId, TurnId
from core.weak_labels import Answers
from core.words import words

log = logging.getLogger(__name__)

WINDOW = timedelta(days=30)
"""What is older was looked at before, and its entries may have changed since."""
CONVERSATIONS = 20_000
AT_ONCE = 500
RANK = {"staff": 0, "file": 1, "agent": 2, "feedback": 3}
"""Whose word counts where several speak of one turn."""


@dataclass(frozen=True)
class Gathered:
    """How many weak labels are new or changed, by where they come from."""

    feedback: int = 0
    agent: int = 0


@dataclass(frozen=True)
class Stored:
    """What became of a file's labels."""

    stored: int
    known: int


@dataclass(frozen=True)
class Open:
    """What staff may label next.

    Attributes:
        asked: The latest turns without staff's word; each text once, the latest of its turns.
        times: How often each text was asked in these turns.
        refuted: Turns whose answer customers or agents spoke against.
        labelled: Texts that staff or files have already settled.
        questions: Of the entries that are candidates, by id.
    """

    asked: Sequence[Asked]
    times: Sequence[int]
    refuted: frozenset[TurnId]
    labelled: Sequence[str]
    questions: dict[str, str]


async def add(
    database: Database,
    turn_id: UUID,
    *,
    entry_id: str | None = None,
    none: bool = False,
    intent: str | None = None,
    author: str = "",
) -> Label:
    """Store staff's word on a turn; what it does not speak of stays as they said before.

    Args:
        database: Where.
        turn_id: What was asked.
        entry_id: The entry that answers.
        none: No entry answers.
        intent: What the customer wants.
        author: Who says so.

    Raises:
        NotFound: There is no such turn, or no such entry.
        InvalidInput: Nothing is said, or both of what excludes each other.
    """
    if entry_id is not None and none:
        raise InvalidInput("Give an entry or --none, not both.", field="none")
    if entry_id is None and not none and intent is None:
        raise InvalidInput("Say what is right: --entry ID, --none or --intent NAME.", field="entry")
    if intent is not None and not LABEL.fullmatch(intent):
        raise InvalidInput(
            f"The intent {intent!r} must be a word such as order_status.", field="intent"
        )
    async with database.transaction() as conn:
        found = await rows.asked(conn, [turn_id])
        if not found:
            raise NotFound(f"There is no turn {turn_id} with a text.", field="turn")
        asked = found[0]
        if entry_id is not None:
            await _check_entries(conn, asked.base_id, {entry_id: f"Turn {turn_id}"})
        before = await rows.of_turn(conn, asked.turn_id, "staff")
        label = _said(asked, before, entry_id, none=none, intent=intent)
        label = replace(label, author=author[:AUTHOR_LIMIT_CHARACTERS])
        await rows.put(conn, asked.base_id, [label])
        if label.is_correct is not None:
            await rows.drop_weak(conn, asked.turn_id)
    log.info("Turn labelled", extra={"action": "turn_labelled", "turn_id": turn_id})
    return label


def _said(
    asked: Asked, before: Label | None, entry_id: str | None, *, none: bool, intent: str | None
) -> Label:
    if entry_id is not None or none:
        label = weak_labels.judged(asked, entry_id)
    elif before is not None:
        label = before
    else:  # of the intent alone
        label = replace(weak_labels.judged(asked, None), is_correct=None)
    return replace(label, intent=intent or (before.intent if before else None))


async def take_in(
    database: Database, lines: Sequence[Line], name: str, *, base: str = "default"
) -> Stored:
    """Store the labels of a file; those that are there already are left as they are.

    Args:
        database: Where.
        lines: As `core.label_files.read` returns them.
        name: Of the file, for messages.
        base: The knowledge base.

    Raises:
        InvalidInput: An entry does not exist; the message names the line. Nothing is stored.
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        locked = await faq.lock_base(conn, base)  # two imports at once would both find nothing
        named = {
            entry_id: f"{name} line {line.number}"
            for line in reversed(lines)
            if line.label is not None
            for entry_id in (line.label.entry_id, line.label.chosen_entry_id)
            if entry_id is not None
        }
        await _check_entries(conn, locked.id, named)
        known = {key for label in await rows.load(conn, locked.id) for key in _keys(label)}
        given = [label for line in lines for label in (line.label, line.intent) if label]
        fresh: list[Label] = []
        for label in given:
            if not known.issuperset(_keys(label)):
                fresh.append(label)
                known.update(_keys(label))
        await rows.put(conn, locked.id, fresh)
    return Stored(len(fresh), len(given) - len(fresh))


def _keys(label: Label) -> list[tuple[str, str]]:
    """Return what a label says of its text; an export is masked and is known all the same."""
    text = " ".join(mask_prose(label.text).split())
    said = list[tuple[str, str]]()
    if label.entry_id is not None:
        said.append((text, f"entry {label.entry_id}"))
    elif label.only_refutes:
        said.append((text, f"not {label.chosen_entry_id}"))
    elif label.means_none:
        said.append((text, "none"))
    if label.intent is not None:
        said.append((text, f"intent {label.intent}"))
    return said


async def _check_entries(conn: Connection, base_id: KnowledgeBaseId, named: dict[str, str]) -> None:
    """Refuse the first entry that does not exist.

    Args:
        conn: In a transaction.
        base_id: The base.
        named: Where each id was named.
    """
    if not named:
        return
    exist = await faq.all_ids(conn, base_id)
    for entry_id, where in sorted(named.items(), key=lambda item: _line_number(item[1])):
        if entry_id not in exist:
            near = difflib.get_close_matches(entry_id, exist, 1)
            hint = f"is {near[0]} meant?" if near else "`deskhand faq list` shows all."
            raise NotFound(f"{where}: there is no entry {entry_id!r}; {hint}", field="entry_id")


def _line_number(where: str) -> int:
    last = where.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


async def listed(
    database: Database, *, base: str = "default", sources: Sequence[str] | None = None
) -> list[Label]:
    """Return the labels of a base; of one turn only the word that counts most.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        labels = await rows.load(conn, found.id, sources)
    best: dict[object, Label] = {}
    for number, label in enumerate(labels):
        key = label.turn_id or number
        if key not in best or RANK[label.source] < RANK[best[key].source]:
            best[key] = label
    return list(best.values())


async def open_turns(database: Database, *, base: str = "default", limit: int = 2_000) -> Open:
    """Return what staff may label next, from the latest answered turns.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        turns = await rows.unlabelled(conn, found.id, limit)
        labels = await rows.load(conn, found.id)
        ids = {c.entry_id for asked in turns for c in asked.candidates}
        ids |= {entry_id for asked in turns for entry_id in asked.cited}
        questions = await rows.questions(conn, found.id, sorted(ids))
    settled = {_folded(e.text) for e in labels if e.source in ("staff", "file")}
    times: dict[str, int] = {}
    latest: dict[str, Asked] = {}
    for asked in turns:
        key = _folded(asked.text)
        if key and key not in settled and words(asked.text):
            times[key] = times.get(key, 0) + 1
            latest.setdefault(key, asked)
    weak = {e.turn_id for e in labels if e.source in ("feedback", "agent") and not e.is_correct}
    return Open(
        list(latest.values()),
        list(times.values()),
        frozenset(turn_id for turn_id in weak if turn_id is not None),
        sorted(settled),
        questions,
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


async def gather(database: Database, *, window: timedelta = WINDOW) -> Gathered:
    """Infer weak labels from what customers and agents did lately; safe to repeat.

    Thumbs on answers and questions that were asked again are `feedback`, agents' answers after a
    take-over are `agent`. Turns on which staff have spoken are left alone.

    Args:
        database: Where.
        window: How far to look back.
    """
    feedback = await _gather_verdicts(database, window)
    async with database.transaction() as conn:
        conversations = await rows.lately(conn, window, CONVERSATIONS)
    again: set[TurnId] = set()
    told: dict[TurnId, str] = {}
    for start in range(0, len(conversations), AT_ONCE):
        async with database.transaction() as conn:
            said = await rows.said(conn, conversations[start : start + AT_ONCE], window)
        for talk in _talks(said):
            again.update(weak_labels.repeated(talk))
            told.update(weak_labels.agent_answers(talk))
        await asyncio.sleep(0)  # a scheduler has other things to do meanwhile
    feedback += await _gather_repetitions(database, again)
    agent = await _gather_agents(database, told)
    if feedback or agent:
        log.info(
            "Labels gathered",
            extra={"action": "labels_gathered", "feedback": feedback, "agent": agent},
        )
    return Gathered(feedback, agent)


async def _gather_verdicts(database: Database, window: timedelta) -> int:
    async with database.transaction() as conn:
        verdicts = {each.turn_id: each.verdict for each in await rows.rated(conn, window)}
        found = await _not_settled(conn, list(verdicts))
        made = [weak_labels.from_verdict(asked, verdicts[asked.turn_id]) for asked in found]
        return await _put(conn, found, made)


async def _gather_repetitions(database: Database, again: Collection[TurnId]) -> int:
    async with database.transaction() as conn:
        found = await _not_settled(conn, again)
        made: list[Label | None] = []
        for asked in found:
            told = await rows.of_turn(conn, asked.turn_id, "feedback")
            # the customer's own verdict says more than their asking again
            is_rated = told is not None and told.author == "customer"
            made.append(None if is_rated else weak_labels.from_repetition(asked))
        return await _put(conn, found, made)


async def _gather_agents(database: Database, told: Mapping[TurnId, str]) -> int:
    answers: dict[KnowledgeBaseId, Answers] = {}
    async with database.transaction() as conn:
        found = await _not_settled(conn, told)
        made: list[Label | None] = []
        for asked in found:
            if asked.base_id not in answers:
                answers[asked.base_id] = Answers(await rows.answers(conn, asked.base_id))
            match = answers[asked.base_id].match(told[asked.turn_id])
            made.append(weak_labels.from_agent(asked, match) if match else None)
            await asyncio.sleep(0)
        return await _put(conn, found, made)


def _talks(said: Sequence[rows.Said]) -> list[list[rows.Said]]:
    talks: dict[UUID, list[rows.Said]] = {}
    for each in said:
        talks.setdefault(each.conversation_id, []).append(each)
    return list(talks.values())


async def _not_settled(conn: Connection, turn_ids: Collection[TurnId]) -> list[Asked]:
    if not turn_ids:
        return []
    settled = await rows.settled(conn, list(turn_ids))
    return await rows.asked(conn, [turn_id for turn_id in turn_ids if turn_id not in settled])


async def _put(conn: Connection, found: Sequence[Asked], made: Sequence[Label | None]) -> int:
    changed = 0
    for base_id in sorted({asked.base_id for asked in found}):
        labels = [
            label
            for asked, label in zip(found, made, strict=True)
            if label is not None and asked.base_id == base_id
        ]
        changed += await rows.put(conn, base_id, labels)
    return changed
