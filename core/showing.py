"""Showing a reply while it is written: sentence by sentence, each for good.

What a customer has seen is never taken back. The message that ends the turn begins with it: the
reply itself, what is said when the turn is given up, or, after a take-over, the shown sentences
alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from core import telemetry
from core.db import messages, sentences
from core.db import turns as rows
from core.db.connect import Connection, Database
from core.errors import LostClaim
from core.ports import Doorbell
from core.types import ALIVE, Author, Decision, Reply, Turn, TurnId, TurnState

_MARKUP = re.compile(r"([\\`*_\[\]<>#!|~])")
_LIST_MARK = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s)", re.MULTILINE)


async def show(
    database: Database, doorbell: Doorbell, turn: Turn, text: str, *, owner: str
) -> None:
    """Show one checked sentence of a reply that is being written.

    Args:
        database: Where the row goes; its commit is what shows it.
        doorbell: Rung where the turn must begin anew.
        turn: As it was claimed.
        text: Literal text.
        owner: Who claimed it.

    Raises:
        LostClaim: A person or another worker has the conversation, or the customer said more
            before anything was shown: nothing was shown, and the reply is not wanted any more.
    """
    async with database.transaction() as conn:
        locked, now = await still_ours(conn, turn, owner)
        due = None
        said_more = now.input_version != turn.input_version
        if said_more:
            due = await rows.release(conn, turn, owner=owner, blameless=True)
        else:
            await sentences.add(conn, turn.id, turn.conversation_id, locked.epoch, text)
    if said_more:
        doorbell.turn(turn.conversation_id, after_seconds=due or 0.0)
        raise LostClaim("the customer said more before anything was shown")
    telemetry.SENTENCES.inc()


async def still_ours(
    conn: Connection, turn: Turn, owner: str
) -> tuple[messages.Locked, rows.TurnNow]:
    """Lock the conversation of a claimed turn and return both as they stand.

    Raises:
        LostClaim: The lease, the epoch or the turn is gone: nothing of it may be seen any more.
    """
    locked = await messages.lock(conn, turn.conversation_id)
    if locked is None or (locked.lease_owner, locked.fence) != (owner, turn.fence):
        raise LostClaim("another worker or a person has the conversation")
    if locked.epoch != turn.epoch:
        raise LostClaim("the conversation changed hands")
    now = await rows.now(conn, turn.id)
    if now is None or now.state not in ALIVE:
        raise LostClaim("the turn is closed")
    return locked, now


def continued(reply: Reply, shown: Sequence[str]) -> Reply:
    """Return a reply that begins with what was shown of it; nothing is taken back."""
    before = " ".join(shown)
    if not before or (not reply.is_markdown and reply.text.startswith(before)):
        return reply
    if not reply.text:
        return replace(reply, text=before, is_markdown=False)
    return replace(reply, text=followed_by(before, reply.text, reply.is_markdown))


def followed_by(shown: str, text: str, is_markdown: bool) -> str:
    """Return shown literal text with another text below it."""
    return f"{literal(shown) if is_markdown else shown}\n\n{text}"


def literal(text: str) -> str:
    """Return limited CommonMark that reads as a literal text."""
    return _LIST_MARK.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", text))


async def keep(
    conn: Connection,
    locked: messages.Locked,
    *,
    expiry_seconds: float,
    already_there: bool,
    turn_id: TurnId | None = None,
) -> None:
    """Let what is shown in a conversation stand as the bot's message: the stream ends here.

    The caller holds the conversation's lock and closes the turn; None means whichever is shown.
    """
    found = await sentences.of_conversation(conn, locked.id)
    if not found or turn_id not in (None, found[0].turn_id):
        return
    turn_id = found[0].turn_id
    await messages.store_outgoing(
        conn,
        locked.id,
        author=Author.BOT,
        text=" ".join(sentence.text for sentence in found),
        trace_id=telemetry.new_trace_id(),
        expiry_seconds=expiry_seconds,
        already_there=already_there,
        turn_id=turn_id,
        decision=Decision.ANSWER,
    )
    await sentences.forget(conn, turn_id)


async def next_due(conn: Connection, turn_id: TurnId, now: rows.TurnNow) -> float | None:
    """Return in how many seconds the turn after a shown one is due; None if there is none."""
    return await rows.next_due(conn, turn_id) if now.state is TurnState.SHOWING else None
