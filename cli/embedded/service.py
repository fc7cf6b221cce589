"""What both servers share: one holder, start until ready, stop, recovery after a crash."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar, Self

from cli import pidfiles
from cli.embedded import launch
from cli.embedded.account import account, require_reachable
from cli.embedded.sockets import prepare_socket_folder
from core.errors import ConfigurationError, DeskhandError

READY_POLL_SECONDS = 0.02
START_PATIENCE_SECONDS = 60.0
"""Recovery after a crash replays the log, which takes longer on a slow disk."""
STOP_PATIENCE_SECONDS = 10.0
ORPHAN_PATIENCE_SECONDS = 10.0
"""After a SIGKILL of the postmaster its backends need a moment to see that it is gone."""
RETRY_SECONDS = 0.2
DISK_NEEDED_BYTES = 200_000_000
LOG_LIMIT_BYTES = 5_000_000


class StartFailed(DeskhandError):
    """A server did not come up; the text is what it said last."""


class Service(ABC):
    """An embedded server; usable as a context manager.

    Args:
        data_dir: Deskhand's data folder; the server's own lies beneath.
    """

    role: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._account = account()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._folder: Path | None = None
        self._turn = threading.RLock()  # a stop waits for a start under way on another thread

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @property
    def pid(self) -> int | None:
        """Of the server, None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def home(self) -> Path:
        """The server's own folder."""
        return self._data_dir / self.role

    @property
    def sockets(self) -> Path:
        """The folder of the server's socket."""
        if self._folder is None:
            self._folder = prepare_socket_folder(self._data_dir, self._account)
        return self._folder

    def start(self) -> None:
        """Start the server, or start it again after it died; returns when it answers.

        Raises:
            ConfigurationError: It cannot run here: a closed folder, a full disk, a second holder.
            StartFailed: It does not come up; the text says why.
        """
        with self._turn:
            if self.pid is None:
                self._start()

    def _start(self) -> None:
        try:
            self._hold()
            self._prepare()
            self._end_predecessor()
            self._start_until_ready()
        except PermissionError as error:
            self._let_go()
            raise ConfigurationError(
                f"The embedded {self.role} may not use {error.filename or self.home}: "
                f"{error.strerror}; mend its owner and mode, or choose another DESKHAND_DATA_DIR."
            ) from error
        except OSError as error:
            self._let_go()
            raise ConfigurationError(
                f"The embedded {self.role} cannot start: {error.strerror} ({error.filename})."
            ) from error
        except DeskhandError:
            self._let_go()
            raise
        except BaseException:  # Ctrl-C while it starts
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server; what it was told is on the disk."""
        with self._turn:
            held = self._lock is not None
            process, self._process = self._process, None
            if process is not None:
                _end(process, self.stop_signal)
            if held:  # else the file is another holder's
                pidfiles.remove(self._data_dir, self.role)
            self._let_go()

    def wait(self) -> int:
        """Wait for the server's end; return its exit status."""
        process = self._process
        return process.wait() if process else 0

    @abstractmethod
    def _initialise(self) -> None:
        """Make the server's folder ready for its first start; does nothing afterwards."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the server's command line."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Tell whether the server answers."""

    def _after_start(self) -> None:
        """Do what the answering server needs before others use it."""
        return

    def _mended(self, _said: str) -> bool:
        """Repair what made a start fail, if that can be done; True asks for another try."""
        return False

    def _passes(self, _said: str) -> bool:
        """Tell whether what made a start fail goes away by itself."""
        return False

    def _hold(self) -> None:
        if self._lock is not None:
            return
        path = self._data_dir / "run" / f"{self.role}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            holder = path.read_text().strip() or "unknown"
            raise ConfigurationError(
                f"Another Deskhand (process {holder}) runs {self.role} in {self._data_dir}; "
                "stop it, or choose another DESKHAND_DATA_DIR."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _prepare(self) -> None:
        require_reachable(self.home, self._account)
        require_reachable(Path(self._command()[0]), self._account)
        if shutil.disk_usage(self._data_dir).free < DISK_NEEDED_BYTES:
            raise ConfigurationError(
                f"The disk of {self._data_dir} is full: the embedded {self.role} needs at least "
                f"{DISK_NEEDED_BYTES // 1_000_000} MB free."
            )
        self._initialise()

    def _end_predecessor(self) -> None:
        """End what an earlier start, killed before it could clean up, has left running."""
        process = pidfiles.running(self._data_dir, self.role, self._marks())
        if process is not None:
            pidfiles.end(process, self.stop_signal, STOP_PATIENCE_SECONDS)
        pidfiles.remove(self._data_dir, self.role)

    def _marks(self) -> tuple[str, ...]:
        return (Path(self._command()[0]).name,)

    def _start_until_ready(self) -> None:
        deadline = time.monotonic() + ORPHAN_PATIENCE_SECONDS
        while True:
            try:
                self._start_once()
                return
            except StartFailed as error:
                said = str(error)
                if self._mended(said):
                    continue
                if not self._passes(said) or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def _start_once(self) -> None:
        with self._log_file() as log:
            begun = log.tell()
            self._process = self.spawn(self._command(), log)
        try:
            pidfiles.write(self._data_dir, self.role, self._process.pid)
            self._await_ready(self._process, begun)
            self._after_start()
        except BaseException:
            process, self._process = self._process, None
            _end(process, self.stop_signal)
            pidfiles.remove(self._data_dir, self.role)
            raise

    def spawn(self, command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program as the servers' user; it ends when we do, where the kernel can tell."""
        who = self._account
        user = ("-1", "-1") if who is None else (str(who.uid), str(who.gid))
        signal_number = str(int(self.stop_signal))
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), signal_number]
        return subprocess.Popen(
            [*launcher, *user, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            start_new_session=True,  # Ctrl-C is for `deskhand up`, which stops us in order
        )

    def _await_ready(self, process: subprocess.Popen[bytes], begun: int) -> None:
        deadline = time.monotonic() + START_PATIENCE_SECONDS
        while not self._is_ready():
            try:
                status = process.wait(READY_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                raise StartFailed(
                    f"The embedded {self.role} does not answer after "
                    f"{START_PATIENCE_SECONDS:.0f} s; its log is {self._log_path()}."
                ) from None
            raise StartFailed(
                f"The embedded {self.role} ended with status {status}: "
                f"{self._last_words(begun)} (log: {self._log_path()})"
            )

    def _log_path(self) -> Path:
        return self._data_dir / "logs" / f"{self.role}.log"

    def _log_file(self) -> IO[bytes]:
        path = self._log_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _last_words(self, begun: int) -> str:
        with self._log_path().open("rb") as log:
            log.seek(begun)
            lines = log.read(LOG_LIMIT_BYTES).decode(errors="replace").splitlines()
        grave = [line for line in lines if "FATAL" in line or "error" in line.lower()]
        return (grave or lines or ["it said nothing"])[-1].strip()


def _end(process: subprocess.Popen[bytes], asked_by: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(asked_by)
    try:
        process.wait(STOP_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
