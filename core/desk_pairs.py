"""Pairs to learn replies from: what was asked, what an agent wrote, and the entry behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

from core import labels, weak_labels
from core.db import desk_pairs as rows
from core.db.connect import Database
from core.db.desk_pairs import Entry
from core.db.labels import Asked, lately, said
from core.db.labels import asked as asked_in
from core.types import KnowledgeBaseId, TurnId

WINDOW = timedelta(days=90)
CONVERSATIONS = 20_000
AT_ONCE = 500
CANDIDATES = 3


@dataclass(frozen=True)
class DeskPair:
    """An agent's reply.

    Attributes:
        asked: What the customer said, with what went before.
        reply: The agent's words.
        entries: That may be behind it: the one that a label names, else the bot's candidates,
            best first. What the reply really rests on is for the reader to check.
    """

    asked: Asked
    reply: str
    entries: Sequence[Entry]


async def gather(database: Database, *, window: timedelta = WINDOW) -> list[DeskPair]:
    """Return what agents replied lately, the oldest first; labels are gathered on the way.

    Replies of which staff said that no entry answers are left out, and those for which there is
    neither a label nor a candidate.
    """
    await labels.gather(database)
    told = await _told(database, window)
    pairs: list[DeskPair] = []
    known: dict[KnowledgeBaseId, Mapping[str, Entry]] = {}
    turns = list(told)
    for start in range(0, len(turns), AT_ONCE):
        part = turns[start : start + AT_ONCE]
        async with database.transaction() as conn:
            named = await rows.labelled(conn, part)
            for each in await asked_in(conn, part):
                if each.base_id not in known:
                    known[each.base_id] = await rows.entries(conn, each.base_id)
                if found := _entries(each, named, known[each.base_id]):
                    pairs.append(DeskPair(each, told[each.turn_id], found))
    return sorted(pairs, key=lambda pair: pair.asked.at)


async def _told(database: Database, window: timedelta) -> dict[TurnId, str]:
    """Return agents' words by the turn that they answer."""
    told: dict[TurnId, str] = {}
    async with database.transaction() as conn:
        conversations = await lately(conn, window, CONVERSATIONS)
    for start in range(0, len(conversations), AT_ONCE):
        async with database.transaction() as conn:
            messages = await said(conn, conversations[start : start + AT_ONCE], window)
        for _, talk in groupby(messages, key=lambda each: each.conversation_id):
            told.update(weak_labels.agent_answers(list(talk)))
    return told


def _entries(
    asked: Asked, named: Mapping[TurnId, str | None], known: Mapping[str, Entry]
) -> list[Entry]:
    if asked.turn_id in named:
        ids = [named[asked.turn_id]]
    else:
        ids = [*asked.cited, *(candidate.entry_id for candidate in asked.candidates[:CANDIDATES])]
    return [known[name] for name in dict.fromkeys(ids) if name is not None and name in known]
