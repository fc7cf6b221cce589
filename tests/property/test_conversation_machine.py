"""Whatever happens in whatever order, the guarantees hold: a machine of customers, workers that
crash, events that come again, agents, senders that die, and a sweeper."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core import conversations, deliveries, sweeping, turns
from core.db import deliveries as delivery_rows
from core.db import turns as turn_rows
from core.db.connect import Database
from core.errors import Conflict, LostClaim, TransientError, UncertainError
from core.types import Decision, Holder, InboxId, Incoming, Limits, Turn
from tests.storage.spine import Spine, incoming, said

T = TypeVar("T")

CHATS = ("C1", "C2")
WORKERS = ("worker-1", "worker-2")
AGENTS = ("ann", "bob")


@dataclass
class Held:
    """A turn that a worker has in hand."""

    worker: str
    turn: Turn


class Conversations(RuleBasedStateMachine):
    """The product's use cases on a real database, in any order."""

    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.events: list[Incoming] = []
        self.held: list[Held] = []
        self.silenced: dict[UUID, int] = {}
        """While an agent holds a conversation: how many bot messages it had when taken."""
        self.sent: dict[UUID, list[int]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        async def build() -> Spine:
            self.database = Database(self.url, size=4)
            await self.database.open()
            async with self.database.transaction() as conn:
                await conn.execute("truncate conversation, contact, pause cascade")
            return await Spine.build(self.database)

        self.spine = self.run(build())
        self.spine.wire.found = self._looked_up

    def _looked_up(self, delivery: Any, part: int) -> str | None:
        return "found" if any(d.id == delivery.id for d, _ in self.spine.wire.sent) else None

    # --- customers -----------------------------------------------------------------------------

    @rule(chat=st.sampled_from(CHATS), text=st.sampled_from(["hi", "where is it?", "a person!"]))
    def writes(self, chat: str, text: str) -> None:
        event = incoming(text, chat)
        self.events.append(event)
        self.run(self.spine.intake.receive(event))

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def platform_delivers_again(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.events))
        receipt = self.run(self.spine.intake.receive(event))
        assert receipt.outcome == "duplicate"

    # --- workers -------------------------------------------------------------------------------

    @rule(worker=st.sampled_from(WORKERS), chat=st.sampled_from(CHATS))
    def claims(self, worker: str, chat: str) -> None:
        async def claim() -> Turn | None:
            found = await self._conversation(chat)
            if found is None:
                return None
            async with self.database.transaction() as conn:
                return await turn_rows.claim(
                    conn, found.id, owner=worker, lease_seconds=60.0, attempts=99
                )

        turn = self.run(claim())
        if turn is not None:
            self.held.append(Held(worker, turn))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), decision=st.sampled_from([Decision.ANSWER, Decision.HAND_OFF]))
    def completes(self, data: st.DataObject, decision: Decision) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)

        async def complete() -> None:
            try:
                await turns.complete(
                    self.spine.answering(held.worker), held.turn, said("reply", decision)
                )
            except LostClaim:
                return

        self.run(complete())

    @rule(chat=st.sampled_from(CHATS))
    def worker_dies(self, chat: str) -> None:
        """Its lease runs out; what it had in hand may still be tried to commit (a zombie)."""

        async def expire() -> None:
            async with self.database.transaction() as conn:
                await conn.execute(
                    """update conversation set lease_until = now() - interval '1 second'
                        where chat = %(chat)s and lease_until is not null""",
                    {"chat": chat},
                )

        self.run(expire())

    # --- staff ---------------------------------------------------------------------------------

    @rule(
        chat=st.sampled_from(CHATS),
        agent=st.sampled_from(AGENTS),
        move=st.sampled_from(["take", "release", "resolve"]),
    )
    def moves(self, chat: str, agent: str, move: str) -> None:
        async def act() -> None:
            found = await self._conversation(chat)
            if found is None:
                return
            try:
                moved = await getattr(conversations, move)(self.spine.desk, str(found.id), agent)
            except Conflict:
                assert found.holder is Holder.AGENT
                assert found.agent != agent
                return
            if moved.holder is Holder.AGENT:
                self.silenced.setdefault(found.id, await self._bot_messages(found.id))
            else:
                self.silenced.pop(found.id, None)

        self.run(act())

    @rule(chat=st.sampled_from(CHATS), agent=st.sampled_from(AGENTS))
    def agent_says(self, chat: str, agent: str) -> None:
        async def say() -> None:
            found = await self._conversation(chat)
            if found is None:
                return
            try:
                await conversations.say(self.spine.desk, str(found.id), agent, "hello")
            except Conflict:
                assert (found.holder, found.agent) != (Holder.AGENT, agent)

        self.run(say())

    # --- senders -------------------------------------------------------------------------------

    @rule(fails=st.sampled_from(["no", "refused", "stored, then dropped", "dropped"]))
    def sends(self, fails: str) -> None:
        wire = self.spine.wire

        async def drop_after(delivery: Any, part: int) -> None:
            wire.before_send = None
            if fails == "stored, then dropped":
                wire.sent.append((delivery, part))
            raise (TransientError("refused") if fails == "refused" else UncertainError("dropped"))

        async def send() -> None:
            wire.before_send = None if fails == "no" else drop_after
            await self._due_now()
            await deliveries.deliver(self.spine.sending(), self.spine.inbox.id)
            wire.before_send = None

        self.run(send())

    @rule()
    def sender_dies(self) -> None:
        """It had claimed a delivery, and nobody knows whether the post stands."""

        async def die() -> None:
            async with self.database.transaction() as conn:
                await delivery_rows.claim_next(
                    conn,
                    InboxId(self.spine.inbox.id),
                    owner="dead",
                    lease_seconds=-1.0,
                    limits=Limits(),
                )

        self.run(die())

    @rule()
    def sweeps(self) -> None:
        self.run(sweeping.sweep(self._sweeper()))

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def a_turn_has_one_reply_and_a_message_one_place(self) -> None:
        if not hasattr(self, "spine"):
            return
        doubled = self.run(
            self.spine.value(
                """select count(*) from (select turn_id from message
                    where author = 'bot' group by turn_id having count(*) > 1) doubled"""
            )
        )
        assert doubled == 0

    @invariant()
    def the_bot_is_silent_while_an_agent_holds_the_conversation(self) -> None:
        for conversation_id, before in self.silenced.items():
            assert self.run(self._bot_messages(conversation_id)) == before

    @invariant()
    def posts_stand_in_order_and_once(self) -> None:
        if not hasattr(self, "spine"):
            return
        for chat in CHATS:
            posted = [d for d, _ in self.spine.wire.sent if d.chat == chat]
            assert len({d.id for d in posted}) == len(posted), "posted twice"
            places = [self.run(self._position(d.message_id)) for d in posted]
            assert places == sorted(places), "overtaken"

    def teardown(self) -> None:
        try:
            if hasattr(self, "spine"):
                self.run(self._nothing_is_lost())
        finally:
            if hasattr(self, "database"):
                self.run(self.database.close())
            self.runner.close()

    async def _nothing_is_lost(self) -> None:
        """Everybody comes back: every message is stored, and every turn comes to its end."""
        stored = await self.spine.value("select count(*) from message where author = 'customer'")
        assert stored == len(self.events)
        async with self.database.transaction() as conn:
            await conn.execute("update conversation set lease_owner = null, lease_until = null")
            await conn.execute("update turn set due_at = now()")
        self.spine.wire.before_send = None
        for chat in CHATS:
            found = await self._conversation(chat)
            if found is not None:
                await turns.answer(self.spine.answering("last", attempts=99), found.id)
        await sweeping.sweep(self._sweeper())
        await self._due_now()
        await deliveries.deliver(self.spine.sending(), self.spine.inbox.id)
        assert await self.spine.value("select count(*) from turn where state = 'open'") == 0
        assert (
            await self.spine.value(
                "select count(*) from delivery where state not in ('sent', 'dropped')"
            )
            == 0
        )

    # --- looking -------------------------------------------------------------------------------

    async def _conversation(self, chat: str) -> Any:
        async with self.database.transaction() as conn:
            cursor = await conn.execute(
                "select id from conversation where chat = %(chat)s", {"chat": chat}
            )
            row = await cursor.fetchone()
        return None if row is None else await self.spine.conversation(row[0])

    async def _bot_messages(self, conversation_id: UUID) -> int:
        count = await self.spine.value(
            "select count(*) from message where conversation_id = %(id)s and author = 'bot'",
            id=conversation_id,
        )
        assert isinstance(count, int)
        return count

    async def _position(self, message_id: UUID) -> int:
        position = await self.spine.value(
            "select position from message where id = %(id)s", id=message_id
        )
        assert isinstance(position, int)
        return position

    async def _due_now(self) -> None:
        async with self.database.transaction() as conn:
            await conn.execute(
                """update delivery set due_at = now(), lease_until = case when state = 'uncertain'
                       then null else lease_until end
                    where state in ('pending', 'uncertain')"""
            )

    def _sweeper(self) -> sweeping.Sweeping:
        async def rung(*_: object) -> bool:
            return True

        return sweeping.Sweeping(
            self.database, self.spine.rings, rung, rung, rung, attempts=99, expiry_seconds=3600.0
        )


def test_the_guarantees_hold_in_any_order(database_url: str):
    Conversations.url = database_url
    run_state_machine_as_test(
        Conversations,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
