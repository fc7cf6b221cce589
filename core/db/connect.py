"""Connections to PostgreSQL: a pool whose failures are ours, and a listener that reconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from psycopg import AsyncConnection, InterfaceError, OperationalError, sql
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from core.errors import Unavailable

log = logging.getLogger(__name__)

Connection = AsyncConnection[TupleRow]

LOCK_POLL_SECONDS = 1.0
"""Between attempts to take a lock that another process holds."""

RECONNECT_SECONDS = 0.5
"""Pause between attempts of a listener whose connection broke; a crashed server needs about 3 s."""


class Lock:
    """An advisory lock on a connection of its own: it is free again when the holder dies."""

    def __init__(self, conn: Connection, name: str) -> None:
        self._conn = conn
        self._name = name

    async def try_take(self) -> bool:
        """Take the lock if nobody has it."""
        cursor = await self._conn.execute(
            "select pg_try_advisory_lock(hashtextextended(%(name)s, 0))", {"name": self._name}
        )
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def confirm(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            OperationalError: The connection, and with it the lock, is gone.
        """
        await self._conn.execute("select 1")


class Database:
    """A pool of connections.

    Args:
        url: Of the database.
        size: Connections at most.
        patience_seconds: How long a caller waits for a connection before it is told that the
            database is away.
    """

    def __init__(self, url: str, *, size: int = 10, patience_seconds: float = 2.0) -> None:
        self.url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min(2, size),
            max_size=size,
            open=False,
            timeout=patience_seconds,
            reconnect_timeout=5.0,
            max_waiting=500,
            check=AsyncConnectionPool.check_connection,
            kwargs={"prepare_threshold": 2, "connect_timeout": 5, "application_name": "deskhand"},
        )

    async def open(self) -> None:
        """Begin to connect; does not wait for the database to be there."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def __aenter__(self) -> Database:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Lend a connection in a transaction that commits at the end of the block.

        Raises:
            Unavailable: The database is away, or went away meanwhile.
        """
        try:
            async with self._pool.connection() as conn:
                yield conn
        except (PoolTimeout, TooManyRequests, PoolClosed) as error:
            raise Unavailable("The database is away.", retry_after=1.0) from error
        except (OperationalError, InterfaceError) as error:
            raise Unavailable("The database went away.", retry_after=1.0) from error

    @asynccontextmanager
    async def exclusively(self, name: str) -> AsyncGenerator[Lock]:
        """Wait for a lock that one process in the whole installation can hold, and hold it.

        Raises:
            Unavailable: The database is away.
        """
        try:
            async with await AsyncConnection.connect(
                self.url, autocommit=True, connect_timeout=5
            ) as conn:
                lock = Lock(conn, name)
                while not await lock.try_take():  # noqa: ASYNC110  the lock is remote
                    await asyncio.sleep(LOCK_POLL_SECONDS)
                yield lock
        except (OperationalError, InterfaceError) as error:
            raise Unavailable("The database went away.", retry_after=1.0) from error

    async def listen(
        self, channels: Sequence[str], heard: Callable[[str, str], None], *, ready: asyncio.Event
    ) -> None:
        """Call `heard(channel, payload)` for each notification, for ever.

        Notifications that come while the connection is broken are lost, so after every (re)connect
        `heard(channel, "")` says: read again what you follow.

        Args:
            ready: Set once the first connection listens.
        """
        while True:
            try:
                async with await AsyncConnection.connect(
                    self.url, autocommit=True, connect_timeout=5
                ) as conn:
                    for channel in channels:
                        await conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                    ready.set()
                    for channel in channels:
                        heard(channel, "")
                    async for note in conn.notifies():
                        heard(note.channel, note.payload)
            except (OperationalError, InterfaceError):
                log.info("Listener lost the database", extra={"action": "listener_lost"})
            await asyncio.sleep(RECONNECT_SECONDS)
