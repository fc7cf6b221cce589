"""`deskhand up` as a person runs it: one command, and nothing left behind."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from cli import pidfiles
from cli.embedded import addresses
from tests.services import free_port, wait_until

ROOT = Path(__file__).parents[2]
ROLES = ("gateway", "worker", "sender", "scheduler", "postgres", "valkey")
PATIENCE_SECONDS = 90.0


class Up:
    """A running `deskhand up`."""

    def __init__(self, data_dir: Path, port: int, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = port
        given = {k: v for k, v in os.environ.items() if not k.startswith("DESKHAND_")}
        given |= {"DESKHAND_DATA_DIR": str(data_dir), "DESKHAND_PORT": str(port), **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up"],
            cwd=ROOT,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, words: str) -> str:
        """Wait for a line with these words."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while (line := self._lines.get(timeout=max(ends - time.monotonic(), 0))) is not None:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"`deskhand up` ended without {words!r}:\n{self.output}")

    @property
    def output(self) -> str:
        """All that was said so far."""
        return "".join(self.said)

    def pids(self) -> dict[str, int]:
        """Return who has which role."""
        paths = {role: pidfiles.path_of(self.data_dir, role) for role in ROLES}
        return {role: int(path.read_text()) for role, path in paths.items() if path.exists()}

    def get(self, path: str) -> int:
        """Return the status of a page of the gateway, 0 if it does not answer."""
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}{path}"), timeout=5) as response:
                return int(response.status)
        except OSError as error:
            return int(getattr(error, "code", 0))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as a person does; return the exit status."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; return the exit status."""
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        while (line := self._lines.get()) is not None:
            self.said.append(line)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def gone(pids: dict[str, int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids.values())


def sockets(data_dir: Path) -> Path:
    return Path(addresses(data_dir).database_url.partition("host=")[2])


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: as root the servers become another user, to whom it is closed.
    path = Path(tempfile.mkdtemp(prefix="deskhand-up-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(sockets(path), ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def prepared(folder: Path, models_dir: Path) -> Path:
    (folder / "models").symlink_to(models_dir)
    return folder


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    """All that a test has started; killed if it forgets."""
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
            up.ended()


@pytest.mark.models
@pytest.mark.timeout(300)
def test_one_command_starts_everything_and_ctrl_c_leaves_nothing(
    prepared: Path, ups: list[Up]
) -> None:
    ups.append(up := Up(prepared, free_port()))

    up.until("Ctrl-C stops everything")
    pids = up.pids()
    token = re.search(r"API token +(\S+)", up.output)

    assert set(pids) == set(ROLES)
    assert up.get("/readyz") == 200
    assert up.get("/chat") == 200
    assert token is not None
    assert token[1] == json.loads((prepared / "secrets").read_text())["api_token"]
    assert up.stop(signal.SIGINT) == 0
    assert gone(pids)
    assert not up.pids()
    assert not list(sockets(prepared).iterdir())

    ups.append(again := Up(prepared, up.port))
    again.until("Ctrl-C stops everything")
    assert token[1] not in again.output, "the token is shown once"
    assert again.stop() == 0
    assert token[1] not in up.output.replace(token[0], ""), "and never in a log line"


@pytest.mark.models
@pytest.mark.timeout(300)
def test_whatever_is_killed_comes_back(prepared: Path, ups: list[Up]) -> None:
    ups.append(up := Up(prepared, free_port()))
    up.until("Ctrl-C stops everything")

    for role in ROLES:
        before = up.pids()
        os.kill(before[role], signal.SIGKILL)
        up.until(f"The {role} was killed by signal 9; it is started again")
        wait_until(lambda role=role, old=before[role]: up.pids().get(role, old) != old, role)  # type: ignore[misc]
    wait_until(lambda: up.get("/readyz") == 200, "ready again", PATIENCE_SECONDS)

    pids = up.pids()
    assert set(pids) == set(ROLES)
    assert up.stop() == 0
    assert gone(pids)


@pytest.mark.models
@pytest.mark.timeout(300)
def test_after_a_sigkill_of_up_the_next_start_cleans_up(prepared: Path, ups: list[Up]) -> None:
    ups.append(first := Up(prepared, free_port()))
    first.until("Ctrl-C stops everything")
    left = first.pids()
    first.stop(signal.SIGKILL)

    ups.append(second := Up(prepared, first.port))
    second.until("Ctrl-C stops everything")

    assert gone(left)
    pids = second.pids()
    assert set(pids) == set(ROLES)
    assert second.stop() == 0
    assert gone(pids)


def test_a_taken_port_is_named_before_anything_is_started(folder: Path, ups: list[Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ups.append(up := Up(folder, port))

        assert up.ended() == 1

    assert re.fullmatch(rf"deskhand: Port {port} of 127\.0\.0\.1 is taken by .*\n", up.output)
    assert not (folder / "postgres").exists()


def test_a_second_up_on_the_same_data_is_refused_in_one_line(folder: Path, ups: list[Up]) -> None:
    ups.append(first := Up(folder, free_port()))
    first.until("Postgres: ready")

    ups.append(second := Up(folder, free_port()))

    assert second.ended() == 1
    assert f"process {first.process.pid}" in second.output
    assert second.output.count("\n") == 1
    assert first.stop() == 0


def test_stopping_while_it_starts_leaves_nothing(folder: Path, ups: list[Up]) -> None:
    ups.append(up := Up(folder, free_port()))
    up.until("Postgres: ready")
    pids = up.pids()

    assert up.stop() == 0

    assert gone(pids)
    assert not up.pids()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DESKHAND_REPLY_STYLE": "loud"}, "DESKHAND_REPLY_STYLE is 'loud'"),
        ({"DESKHAND_HOST": "203.0.113.7"}, "Port .* of 203.0.113.7 cannot be used"),
        (
            {"TELEGRAM_BOT_TOKEN": "1:a", "TELEGRAM_WEBHOOK_URL": "https://bot.example/x"},
            "TELEGRAM_WEBHOOK_SECRET",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_and_nothing_is_started(
    folder: Path, ups: list[Up], settings: dict[str, str], told: str
) -> None:
    ups.append(up := Up(folder, free_port(), **settings))

    assert up.ended() == 1
    assert re.search(told, up.output)
    assert up.output.count("\n") == 1
    assert not (folder / "postgres").exists()


def test_a_data_folder_that_cannot_be_made_is_one_line(folder: Path, ups: list[Up]) -> None:
    (folder / "file").write_text("")

    ups.append(up := Up(folder / "file" / "data", free_port()))

    assert up.ended() == 1
    assert up.output.startswith("deskhand: ")
    assert str(folder / "file") in up.output
    assert up.output.count("\n") == 1
