"""One process of our own: its start, its words, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import cli
from cli import pidfiles
from cli.embedded import launch

LINE_LIMIT_BYTES = 64_000
READ_BYTES = 65_536
LAST_WORDS_SECONDS = 1.0

Said = Callable[[str], None]


class Child:
    """A process that runs `deskhand <command>`.

    Args:
        data_dir: Where its pid is written.
        role: Its name, also of its pid file.
        arguments: What follows `deskhand`.
        said: Called with each line that it writes.
    """

    def __init__(self, data_dir: Path, role: str, arguments: Sequence[str], said: Said) -> None:
        self.role = role
        self._data_dir = data_dir
        self._arguments = arguments
        self.said = said
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process."""
        process = await asyncio.create_subprocess_exec(
            *_launcher(),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(self._data_dir),
            start_new_session=True,  # Ctrl-C is for `deskhand up`, which stops us in order
        )
        self._process = process
        pidfiles.write(self._data_dir, self.role, process.pid)
        self._listening = asyncio.create_task(self._listen(process))

    async def wait(self) -> int:
        """Wait for the end of the process; return its exit status, negative for a signal."""
        if self._process is None or self._listening is None:
            return 0
        status = await self._process.wait()
        # A process of its own may live on and hold the pipe open: do not wait for that one.
        await asyncio.wait({self._listening}, timeout=LAST_WORDS_SECONDS)
        pidfiles.remove(self._data_dir, self.role)
        return status

    def ask_to_stop(self) -> None:
        """Tell the process to finish what it has in hand and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)

    async def stop(self, patience_seconds: float) -> None:
        """Ask the process to stop, and kill it when it does not; returns when it is gone."""
        self.ask_to_stop()
        try:
            async with asyncio.timeout(patience_seconds):
                await asyncio.shield(self.wait())
        except TimeoutError:
            self.kill()
            await self.wait()
        self._end_group()

    def _end_group(self) -> None:
        """End what the process has started and left behind."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._listening is not None:
            self._listening.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.said(line.decode(errors="replace"))
            if len(rest) > LINE_LIMIT_BYTES:
                self.said(rest.decode(errors="replace"))
                rest = b""
        if rest:
            self.said(rest.decode(errors="replace"))


def _launcher() -> list[str]:
    """Return the command that becomes `deskhand`, and ends when we do."""
    parent = [str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
    # -P: a folder `cli` where the person happens to stand must not be taken for ours.
    ours = [sys.executable, "-P", "-m", "cli"]
    return [sys.executable, "-I", "-S", launch.__file__, *parent, *ours]


def metrics_dir(data_dir: Path) -> Path:
    """Return where the processes of this machine count together; the gateway shows it all."""
    return data_dir / "run" / "metrics"


def _environment(data_dir: Path) -> dict[str, str]:
    root = str(Path(cli.__file__).resolve().parent.parent)
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir(data_dir)),
    }
