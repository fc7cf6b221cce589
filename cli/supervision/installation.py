"""A whole installation on one machine: what `deskhand up` starts, in which order, and ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from cli import configuration, pidfiles, secrets
from cli.embedded import Postgres, Valkey
from cli.embedded.service import Service
from cli.supervision.children import Child, metrics_dir
from cli.supervision.keeping import KeptService, keep
from cli.supervision.ports import require_free
from cli.supervision.terminal import Terminal
from core.errors import ConfigurationError
from core.settings import Settings

ROLES = ("gateway", "worker", "sender", "scheduler")
"""Started in this order."""
STOP_PATIENCE_SECONDS = 10.0
SAME_WISH_SECONDS = 1.0
READY_POLL_SECONDS = 0.25
DISK_NEEDED_BYTES = 1_000_000_000
"""For the first start, which unpacks the models."""

T = TypeVar("T")


class _Stopped(Exception):
    """The person asked us to stop."""


class Installation:
    """The services and processes of one data folder.

    Args:
        given: The settings as they were given: what they leave out is embedded.
        config: The configuration file, for the processes.
        terminal: Where progress and logs go.
    """

    def __init__(
        self, given: Settings, config: Path | None = None, terminal: Terminal | None = None
    ) -> None:
        self._given = given
        self._config = config
        self._settings = configuration.completed(given)
        self._data_dir = self._settings.data_dir
        self._terminal = terminal or Terminal()
        self._services = self._embedded()
        self._children = [self._child(role, [role]) for role in ROLES]
        self._stop = asyncio.Event()
        self._asked = 0.0
        self._hurry = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Start all, keep it running until SIGTERM or Ctrl-C, and stop all.

        Raises:
            ConfigurationError: It cannot run here; the text says why.
        """
        self._listen_to_signals()
        with self._hold():
            await self._end_predecessors()
            require_free(self._settings.host, self._settings.port, self._data_dir)
            self._make_secrets()
            self._begin_counting()
            self._settings = configuration.completed(self._given, create_secrets=True)
            try:
                await self._until_stopped(self._start_all())
                await self._until_stopped(self._await_ready())
                self._welcome()
                await self._stop.wait()
            except _Stopped:
                pass
            finally:
                await self._stop_all()

    async def _start_all(self) -> None:
        async with AsyncExitStack() as stack:
            models = asyncio.create_task(self._prepare_models())
            stack.push_async_callback(_cancelled, models)
            await self._start_services()
            await self._timed("Database schema", self._migrate())
            await self._load_sample()
            await models
        for child in self._children:
            self._keepers.append(asyncio.create_task(keep(child, self._terminal.say)))

    async def _start_services(self) -> None:
        for service in self._services:
            kept = KeptService(service)
            await self._timed(type(service).__name__, kept.start())
            keeper = asyncio.create_task(keep(kept, self._terminal.say, started=True))
            self._keepers.append(keeper)

    async def _migrate(self) -> None:
        from core.db import migrate

        await asyncio.to_thread(migrate.upgrade, self._database_url())

    async def _load_sample(self) -> None:
        from cli.commands import sample

        await sample.load(self._database_url(), self._terminal.say)

    async def _prepare_models(self) -> None:
        """Run as a child: this process lives as long as the installation, and loads no model."""
        child = self._child("models", ["models", "prepare"], show=self._terminal.say)
        said: list[str] = []
        child.said = _both(child.said, said.append)
        await child.start()
        try:
            status = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if status != 0:
            reason = said[-1].removeprefix("deskhand: ") if said else f"status {status}"
            raise ConfigurationError(f"The models could not be prepared: {reason}")

    async def _await_ready(self) -> None:
        begun = time.monotonic()
        told = ""
        while True:
            missing = await asyncio.to_thread(_not_ready, self._local_url())
            if missing is None:
                self._terminal.say(f"All is ready ({time.monotonic() - begun:.1f} s).")
                return
            if missing and missing != told:
                self._terminal.say(f"Waiting: {missing}")
                told = missing
            await asyncio.sleep(READY_POLL_SECONDS)

    def _begin_counting(self) -> None:
        """Let the counters of this run start from nothing, as those of a process do."""
        shutil.rmtree(metrics_dir(self._data_dir), ignore_errors=True)
        metrics_dir(self._data_dir).mkdir(parents=True)

    def _make_secrets(self) -> None:
        if self._given.api_token is None and secrets.load_or_create(self._data_dir).fresh:
            self._token_unseen.touch()

    @property
    def _token_unseen(self) -> Path:
        """Exists until the generated token was shown, even if the first start fails before."""
        return self._data_dir / "run" / "token-unseen"

    def _welcome(self) -> None:
        url = self._settings.url
        lines = ["", f"  Web chat   {url}/chat", f"  API pages  {url}/docs"]
        if self._token_unseen.exists() and self._settings.api_token is not None:
            lines.append(f"  API token  {self._settings.api_token.get_secret_value()}")
            lines.append(f"             (shown once; kept in {self._data_dir / secrets.FILE})")
        lines += ["", "  Ctrl-C stops everything.", ""]
        self._terminal.say("\n".join(lines))
        self._token_unseen.unlink(missing_ok=True)

    async def _stop_all(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._keepers:
            self._terminal.say("Stopping …")
        impatient = asyncio.create_task(self._kill_when_hurried())
        await asyncio.gather(*(child.stop(STOP_PATIENCE_SECONDS) for child in self._children))
        impatient.cancel()
        for service in reversed(self._services):
            await asyncio.to_thread(service.stop)
        self._terminal.say("Stopped.")

    async def _kill_when_hurried(self) -> None:
        await self._hurry.wait()
        for child in self._children:
            child.kill()

    async def _until_stopped(self, work: Awaitable[T]) -> T:
        """Await something, unless the person asks to stop first."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Stopped
            return task.result()
        finally:
            await _cancelled(task)
            await _cancelled(stopping)

    async def _timed(self, what: str, work: Awaitable[None]) -> None:
        begun = time.monotonic()
        await work
        self._terminal.say(f"{what}: ready ({time.monotonic() - begun:.1f} s)")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        # Asked a second time, and not only by both `make` and the terminal for one Ctrl-C.
        if self._stop.is_set() and time.monotonic() - self._asked > SAME_WISH_SECONDS:
            self._hurry.set()
        if not self._stop.is_set():
            self._asked = time.monotonic()
            self._stop.set()

    async def _end_predecessors(self) -> None:
        """End what a start that was killed has left running; a fresh start is the surer way."""
        left = [pidfiles.running(self._data_dir, role, (role,)) for role in ROLES]
        found = [process for process in left if process is not None]
        if found:
            self._terminal.say("Ending what an earlier start has left running …")
        await asyncio.gather(
            *(
                asyncio.to_thread(pidfiles.end, process, signal.SIGTERM, STOP_PATIENCE_SECONDS)
                for process in found
            )
        )
        for role in ROLES:
            pidfiles.remove(self._data_dir, role)

    def _hold(self) -> IO[str]:
        """Keep a second `up` out of this data folder for as long as the file is open."""
        path = self._data_dir / "run" / "up.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._require_room()
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            holder = path.read_text().strip() or "unknown"
            raise ConfigurationError(
                f"Deskhand already runs with {self._data_dir}, on port {self._settings.port} "
                f"(`deskhand up`, process {holder}); stop it, or choose another "
                "DESKHAND_DATA_DIR and DESKHAND_PORT."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def _require_room(self) -> None:
        first = not (self._data_dir / "models").exists()
        free = shutil.disk_usage(self._data_dir).free
        if first and free < DISK_NEEDED_BYTES:
            raise ConfigurationError(
                f"The disk of {self._data_dir} has {free // 1_000_000} MB free and the first start "
                f"needs {DISK_NEEDED_BYTES // 1_000_000} MB; make room, or choose another "
                "DESKHAND_DATA_DIR."
            )

    def _embedded(self) -> list[Service]:
        services: list[Service] = []
        if self._given.database_url is None:
            services.append(Postgres(self._data_dir))
        if self._given.broker_url is None:
            services.append(Valkey(self._data_dir))
        return services

    def _child(
        self, role: str, command: Sequence[str], show: Callable[[str], None] | None = None
    ) -> Child:
        before = ["--config", str(self._config)] if self._config else []
        said = show or (lambda line: self._terminal.forward(role, line))
        return Child(self._data_dir, role, [*before, *command], said)

    def _database_url(self) -> str:
        assert self._settings.database_url is not None
        return self._settings.database_url.get_secret_value()

    def _local_url(self) -> str:
        host = self._settings.host
        if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}"


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _both(first: Callable[[str], None], second: Callable[[str], None]) -> Callable[[str], None]:
    def said(line: str) -> None:
        first(line)
        second(line)

    return said


def _not_ready(url: str) -> str | None:
    """Return what /readyz still waits for, "" if nobody answers there, None when all is ready."""
    try:
        with urlopen(Request(f"{url}/readyz"), timeout=5):  # noqa: S310 - our own gateway
            return None
    except HTTPError as error:
        return _troubles(error.read())
    except (URLError, OSError, ValueError):
        return ""


def _troubles(body: bytes) -> str:
    try:
        parts = json.loads(body)["parts"]
        return "; ".join(
            f"{name}: {part['trouble']}" for name, part in parts.items() if not part["ok"]
        )
    except (ValueError, KeyError, TypeError):
        return ""
