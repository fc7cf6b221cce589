"""Turns: what a customer said until it is answered, once, or handed to a person."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from core import handoff, showing, telemetry, texts
from core.db import deliveries, inboxes, messages, sentences
from core.db import turns as rows
from core.db.connect import Connection, Database
from core.db.turns import FailedTurn, Overdue
from core.errors import DeskhandError, InvalidInput, LostClaim
from core.ports import Answerer, Doorbell, Show
from core.retrying import backoff
from core.types import (
    ALIVE,
    Author,
    ConversationId,
    Decision,
    Holder,
    Question,
    Reply,
    Tier,
    Turn,
    TurnId,
    TurnState,
)

log = logging.getLogger(__name__)

PULL_CHANNELS = frozenset({"web", "api"})
"""Channels whose readers fetch from the database: the commit itself delivers."""


@dataclass(frozen=True)
class Answering:
    """What answering a turn needs.

    Attributes:
        owner: This process's name; its leases carry it.
        attempts: How often a turn is tried.
        expiry_seconds: After which a reply is no longer worth sending.
    """

    database: Database
    answerer: Answerer
    doorbell: Doorbell
    owner: str
    lease_seconds: float
    attempts: int
    expiry_seconds: float


async def answer(services: Answering, conversation_id: ConversationId) -> None:
    """Answer what is open in a conversation, if it is due and nobody else does."""
    claimed = await _claim(services, conversation_id)
    if claimed is None:
        return
    turn, question = claimed
    token = telemetry.trace_id.set(turn.trace_id)
    try:
        with telemetry.stage("answer"):
            reply = await services.answerer.answer(question, _showing(services, turn))
        with telemetry.stage("commit"):
            await complete(services, turn, reply)
    except LostClaim as lost:
        log.info("Reply dropped", extra={"action": "reply_dropped", "reason": str(lost)})
    except Exception as error:  # whatever went wrong, the turn is tried again or dead-lettered
        await _give_back(services, turn, error)
    finally:
        telemetry.trace_id.reset(token)


async def _claim(
    services: Answering, conversation_id: ConversationId
) -> tuple[Turn, Question] | None:
    with telemetry.stage("claim"):
        async with services.database.transaction() as conn:
            turn = await rows.claim(
                conn,
                conversation_id,
                owner=services.owner,
                lease_seconds=services.lease_seconds,
                attempts=services.attempts,
            )
            if turn is None:
                return None
            asked = await rows.load(conn, turn.id, conversation_id)
            base = await inboxes.base_of(conn, turn.knowledge_base_id)
    return turn, Question(
        knowledge_base=base,
        messages=asked.messages,
        kind=asked.kind,
        history=asked.history,
        cited=asked.cited,
        locale=asked.locale,
        holder=turn.holder,
        seconds_left=turn.seconds_left,
        waiting=asked.waiting,
        dialogue=asked.dialogue,
        shown=asked.shown,
    )


def _showing(services: Answering, turn: Turn) -> Show | None:
    """Return what shows the sentences of a turn's reply, where its channel shows any."""
    if turn.channel not in PULL_CHANNELS:
        return None

    async def show(text: str) -> None:
        await showing.show(services.database, services.doorbell, turn, text, owner=services.owner)

    return show


async def complete(services: Answering, turn: Turn, reply: Reply) -> None:
    """Commit a reply: message, delivery, trace and the turn's end in one transaction.

    Raises:
        LostClaim: The lease, the epoch or the turn is gone: the reply must not be seen.
    """
    async with services.database.transaction() as conn:
        locked, now = await showing.still_ours(conn, turn, services.owner)
        if now.input_version != turn.input_version:
            # The customer said more: the last sentence stands, so the reply is made anew.
            due = await rows.release(conn, turn, owner=services.owner, blameless=True)
            services.doorbell.turn(turn.conversation_id, after_seconds=due or 0.0)
            return
        reply = showing.continued(reply, await sentences.of_turn(conn, turn.id))
        await _write(conn, services, turn, reply, locked)
        await sentences.forget(conn, turn.id)
        due = await showing.next_due(conn, turn.id, now)
    if due is not None:
        services.doorbell.turn(turn.conversation_id, after_seconds=due)
    telemetry.REPLIES.labels(reply.tier, reply.choice.decision).inc()
    _count_wording(reply)
    telemetry.TURNS.labels(TurnState.ANSWERED if reply.text else TurnState.SILENT).inc()
    log.info(
        "Turn answered",
        extra={
            "action": "turn_answered",
            "turn_id": turn.id,
            "conversation_id": turn.conversation_id,
            "decision": reply.choice.decision,
            "tier": reply.tier,
            "why": reply.choice.why,
        },
    )
    if reply.text and locked.channel not in PULL_CHANNELS:
        services.doorbell.delivery(locked.channel, locked.inbox_id)


def _count_wording(reply: Reply) -> None:
    """Count what an answer's words cost, and why the model's were not used."""
    if reply.choice.decision is not Decision.ANSWER:
        return
    if reply.trace.reason is not None:
        telemetry.FALLBACKS.labels(reply.trace.reason).inc()
    if (taken := reply.trace.milliseconds.get("say")) is not None:
        telemetry.TIER_SECONDS.labels(reply.tier).observe(taken / 1000)


async def _write(
    conn: Connection, services: Answering, turn: Turn, reply: Reply, locked: messages.Locked
) -> None:
    if reply.choice.decision is Decision.HAND_OFF:
        await hand_off(conn, locked, turn.id, reply.choice.why)
    said = None
    if reply.text:
        said = await messages.store_outgoing(
            conn,
            turn.conversation_id,
            author=Author.BOT,
            text=reply.text,
            trace_id=turn.trace_id,
            expiry_seconds=services.expiry_seconds,
            already_there=locked.channel in PULL_CHANNELS,
            is_markdown=reply.is_markdown,
            turn_id=turn.id,
            decision=reply.choice.decision,
            language=reply.language,
            citations=reply.citations,
            suggestions=reply.suggestions,
            rateable=reply.choice.decision is Decision.ANSWER,
        )
    else:
        await messages.notify(conn, turn.conversation_id)  # ends a shown "is working"
    await rows.record_reply(conn, turn.id, said, reply)
    await rows.close(
        conn,
        turn.id,
        turn.conversation_id,
        TurnState.ANSWERED if reply.text else TurnState.SILENT,
    )


async def hand_off(
    conn: Connection, locked: messages.Locked, turn_id: TurnId | None, reason: str
) -> None:
    """Let a conversation wait for a person; what the bot already said still goes out first."""
    if locked.holder is not Holder.BOT:
        return
    holder = handoff.after(handoff.Move.HAND_OFF, locked.holder)
    epoch = locked.epoch + 1
    await messages.set_holder(conn, locked.id, holder, epoch, reason=reason)
    await deliveries.carry_epoch(conn, locked.id, epoch)
    await messages.record_handoff(conn, locked.id, turn_id, reason)
    telemetry.HANDOFFS.inc()
    log.warning(
        "Conversation waits for a person",
        extra={"action": "handed_off", "conversation_id": locked.id, "reason": reason},
    )


async def _give_back(services: Answering, turn: Turn, error: Exception) -> None:
    """Let a failed turn be tried again; the sweeper ends it when its attempts are spent."""
    pause = backoff(turn.attempts)
    log.error(
        "Turn failed",
        exc_info=None if isinstance(error, DeskhandError) else error,
        extra={
            "action": "turn_failed",
            "turn_id": turn.id,
            "attempt": turn.attempts,
            "reason": f"{type(error).__name__}: {error}"
            if isinstance(error, DeskhandError)
            else type(error).__name__,
        },
    )
    try:
        async with services.database.transaction() as conn:
            due = await rows.release(
                conn,
                turn,
                owner=services.owner,
                pause_seconds=pause,
                error=f"{type(error).__name__}: {telemetry.mask(str(error))}"[:500],
            )
    except DeskhandError:
        return  # the lease runs out by itself, then the sweeper rings
    if due is not None and turn.attempts < services.attempts:
        services.doorbell.turn(turn.conversation_id, after_seconds=due)


async def give_up(
    database: Database, doorbell: Doorbell, overdue: Overdue, *, expiry_seconds: float
) -> None:
    """End a turn that cannot be answered: tell the customer, hand over, keep the dead letter."""
    key = "deadline" if overdue.past_deadline else "failed"
    why = "the deadline passed" if overdue.past_deadline else "all attempts failed"
    async with database.transaction() as conn:
        locked = await messages.lock(conn, overdue.conversation_id)
        now = await rows.now(conn, overdue.id)
        if locked is None or now is None or now.state not in ALIVE:
            return
        asked = await rows.load(conn, overdue.id, overdue.conversation_id)
        error = await _last_error(conn, overdue.id)
        await rows.close(
            conn, overdue.id, locked.id, TurnState.FAILED, f"{why}; {error}" if error else why
        )
        told_before = locked.holder is Holder.WAITING
        await hand_off(conn, locked, overdue.id, why)
        if not told_before:
            base = await _base_of(conn, locked)
            locale = texts.guess_locale(" ".join(asked.messages), locked.locale or base.locale)
            await messages.store_outgoing(
                conn,
                locked.id,
                author=Author.BOT,
                text=_after_shown(await sentences.of_turn(conn, overdue.id), base, key, locale),
                trace_id=telemetry.new_trace_id(),
                expiry_seconds=expiry_seconds,
                already_there=locked.channel in PULL_CHANNELS,
                turn_id=overdue.id,
                decision=Decision.HAND_OFF,
            )
        else:
            await showing.keep(
                conn,
                locked,
                expiry_seconds=expiry_seconds,
                already_there=locked.channel in PULL_CHANNELS,
                turn_id=overdue.id,
            )
            await messages.notify(conn, locked.id)
        await sentences.forget(conn, overdue.id)
        due = await showing.next_due(conn, overdue.id, now)
    if due is not None:
        doorbell.turn(overdue.conversation_id, after_seconds=due)
    telemetry.TURNS.labels(TurnState.FAILED).inc()
    telemetry.REPLIES.labels(Tier.APPROVED, Decision.HAND_OFF).inc()
    log.error(
        "Turn given up",
        extra={"action": "turn_given_up", "turn_id": overdue.id, "reason": why},
    )
    if locked.channel not in PULL_CHANNELS:
        doorbell.delivery(locked.channel, locked.inbox_id)


def _after_shown(shown: Sequence[str], base: texts.KnowledgeBase, key: str, locale: str) -> str:
    text = texts.text(base, key, locale)
    return showing.followed_by(" ".join(shown), text, is_markdown=False) if shown else text


async def _last_error(conn: Connection, turn_id: TurnId) -> str | None:
    cursor = await conn.execute("select error from turn where id = %(id)s", {"id": turn_id})
    row = await cursor.fetchone()
    return row[0] if row else None


async def _base_of(conn: Connection, locked: messages.Locked) -> texts.KnowledgeBase:
    inbox = next(i for i in await inboxes.inboxes(conn) if i.id == locked.inbox_id)
    return await inboxes.base_of(conn, inbox.knowledge_base_id)


async def failed(database: Database, limit: int = 100) -> Sequence[FailedTurn]:
    """Return the dead letters, the latest first."""
    async with database.transaction() as conn:
        return await rows.failed(conn, limit)


async def replay(
    database: Database, doorbell: Doorbell, turn_id: UUID, deadline_seconds: float
) -> ConversationId:
    """Answer a dead letter after all.

    Raises:
        InvalidInput: It is no dead letter, or a newer question of the conversation is open.
    """
    async with database.transaction() as conn:
        conversation_id = await rows.replay(conn, turn_id, deadline_seconds)
    if conversation_id is None:
        raise InvalidInput(
            f"Turn {turn_id} is no dead letter, or its conversation has a newer open question; "
            "see `deskhand turns failed`.",
            field="turn",
        )
    doorbell.turn(conversation_id)
    return conversation_id
