"""Pid files: who runs, and ending what an earlier start left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

CLOCK_TOLERANCE_SECONDS = 2.0
"""The kernel's boot time, on which a process's age rests, is rounded to a second."""


def path_of(data_dir: Path, role: str) -> Path:
    """Return where the pid of a role is written."""
    return data_dir / "run" / f"{role}.pid"


def write(data_dir: Path, role: str, pid: int) -> None:
    """Record that a process has a role, in one step, so that no reader sees half a file."""
    path = path_of(data_dir, role)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".pid.new")
    draft.write_text(f"{pid}\n")
    draft.replace(path)


def remove(data_dir: Path, role: str) -> None:
    """Forget the process of a role."""
    path_of(data_dir, role).unlink(missing_ok=True)


def running(data_dir: Path, role: str, marks: tuple[str, ...]) -> psutil.Process | None:
    """Return the process that has a role, if it is alive and really ours.

    A pid is handed out again after its process has died. The one we wrote down was there before
    its file was, so a younger process is somebody else's, and so is one without our marks.

    Args:
        marks: Words that all stand in the command line of a process with this role.
    """
    path = path_of(data_dir, role)
    try:
        process = psutil.Process(int(path.read_text().strip()))
        written = path.stat().st_mtime
        if process.create_time() > written + CLOCK_TOLERANCE_SECONDS:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        command = " ".join(process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return None
    return process if all(mark in command for mark in marks) else None


def end(process: psutil.Process, asked_by: signal.Signals, patience_seconds: float) -> None:
    """Ask a process to stop, and kill it when it does not; returns when it is gone."""
    try:
        process.send_signal(asked_by)
        process.wait(patience_seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(patience_seconds)
    except psutil.NoSuchProcess:
        return


def is_alive(pid: int) -> bool:
    """Tell whether a pid names a process, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
