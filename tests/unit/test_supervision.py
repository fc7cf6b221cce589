"""Keeping processes running, and what a person sees of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli import pidfiles
from cli.supervision import keeping
from cli.supervision.children import Child
from cli.supervision.keeping import keep, pause_seconds
from cli.supervision.terminal import Terminal, readable
from core.errors import DeskhandError


class Dying:
    """Dies at once, each time; the test hears of each start."""

    role = "worker"

    def __init__(self) -> None:
        self.starts: asyncio.Queue[int] = asyncio.Queue()
        self._count = 0

    async def start(self) -> None:
        self._count += 1
        self.starts.put_nowait(self._count)
        if self._count == 2:
            raise DeskhandError("no room")
        if self._count == 3:
            raise OSError(28, "No space left on device")

    async def wait(self) -> int:
        return -9


async def test_what_dies_or_does_not_start_is_started_again_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "BACK_OFF_SECONDS", (0.0,))
    said: list[str] = []
    dying = Dying()

    keeper = asyncio.create_task(keep(dying, said.append))
    while await dying.starts.get() < 5:
        pass
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)

    assert said[:3] == [
        "The worker was killed by signal 9; it is started again in 0 s.",
        "The worker does not start (no room); it is started again in 0 s.",
        "The worker does not start (No space left on device); it is started again in 0 s.",
    ]


def test_pauses_grow_and_stay_short() -> None:
    assert [pause_seconds(failures) for failures in range(7)] == [0.5, 0.5, 1, 2, 5, 5, 5]


async def test_a_child_tells_what_it_says_and_how_it_ended(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(tmp_path, "version", ["--version"], said.append)

    await child.start()
    assert pidfiles.path_of(tmp_path, "version").exists()
    status = await child.wait()

    assert status == 0
    assert len(said) == 1
    assert said[0].startswith("deskhand ")
    assert not pidfiles.path_of(tmp_path, "version").exists()


async def test_a_child_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    child = Child(tmp_path, "worker", ["worker"], print)

    await child.stop(1.0)

    assert await child.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_children_end_with_their_parent(tmp_path: Path) -> None:
    launch = Path(pidfiles.__file__).parent / "embedded" / "launch.py"
    grandchild = "import sys; print(__import__('os').getpid(), flush=True); sys.stdin.read()"
    parent = (
        "import os, subprocess, sys\n"
        f"command = [sys.executable, {str(launch)!r}, str(os.getpid()), '9', '-1', '-1']\n"
        f"subprocess.run([*command, sys.executable, '-c', {grandchild!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert pidfiles.is_alive(pid)
        process.kill()
        process.wait()
        assert process.stdout.read() == "", "the pipe closes when the grandchild is gone too"


def test_a_process_that_ignores_a_polite_word_is_killed() -> None:
    deaf = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pidfiles.end(psutil.Process(process.pid), signal.SIGTERM, 0.2)

        assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "99999999999"])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    path = pidfiles.path_of(tmp_path, "worker")
    path.parent.mkdir()
    path.write_text(content)

    assert pidfiles.running(tmp_path, "worker", ()) is None


def test_a_process_younger_than_its_pid_file_is_somebody_else(tmp_path: Path) -> None:
    pidfiles.write(tmp_path, "worker", os.getpid())
    assert pidfiles.running(tmp_path, "worker", ()) is not None

    os.utime(pidfiles.path_of(tmp_path, "worker"), (1, 1))

    assert pidfiles.running(tmp_path, "worker", ()) is None


def test_json_lines_pass_unchanged_into_a_file() -> None:
    out = io.StringIO()
    terminal = Terminal(out)

    terminal.forward("worker", '{"message": "Reply sent"}')
    terminal.forward("worker", "Traceback")

    assert out.getvalue() == '{"message": "Reply sent"}\nworker    | Traceback\n'


def test_a_person_reads_log_lines_without_their_brackets() -> None:
    line = {
        "time": "2026-11-24T13:52:16.951+00:00",
        "level": "info",
        "role": "worker",
        "logger": "core.turns",
        "message": "Reply sent",
        "action": "reply_sent",
        "turn_id": 7,
    }

    assert readable(json.dumps(line)) == "13:52:16 INFO Reply sent turn_id=7"
    assert readable("[1, 2]") == "[1, 2]"
    assert readable("{broken") == "{broken"


def test_a_reader_who_went_away_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out:
        terminal = Terminal(out)

        terminal.say("lost")
        terminal.forward("worker", "lost too")

        with pytest.raises(BrokenPipeError):
            out.write("x") and out.flush()
        with pytest.raises(BrokenPipeError):
            out.close()
