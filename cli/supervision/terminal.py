"""What a person sees of several processes in one terminal."""

from __future__ import annotations

import json
import sys
import threading
from typing import TextIO

_HIDDEN = {"time", "level", "role", "logger", "message", "action"}
ROLE_WIDTH = 9


class Terminal:
    """Prints progress and the lines of the processes; never mixes two lines, never fails.

    Args:
        out: Where to; when it is no terminal, JSON lines go there as they are.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._pretty = self._out.isatty()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print a line of our own."""
        self._print(text)

    def forward(self, role: str, line: str) -> None:
        """Print a line that a process has written."""
        if line.startswith("{") and not self._pretty:
            self._print(line)
            return
        self._print(f"{role:<{ROLE_WIDTH}} | {readable(line) if self._pretty else line}")

    def _print(self, line: str) -> None:
        # The reader may be gone, or the disk behind it full: no reason to stop answering.
        with self._lock:
            try:
                print(line, file=self._out, flush=True)
            except (OSError, ValueError):
                return


def readable(line: str) -> str:
    """Return a log line as a person reads it; what is no log line stays as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "message" not in record:
        return line
    level = str(record.get("level", "")).upper()
    fields = [f"{name}={value}" for name, value in record.items() if name not in _HIDDEN]
    clock = str(record.get("time", ""))[11:19]
    return " ".join([clock, level, str(record["message"]), *fields]).strip()
