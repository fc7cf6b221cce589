"""A circuit breaker (Nygard, Release It!, 2007): a server that fails is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from core.errors import Unavailable

FAILURES = 5
"""In a row, before the server is left alone."""
OPEN_SECONDS = 5.0
"""For how long at first; twice as long each time that the probe fails, up to the longest."""
LONGEST_SECONDS = 60.0


class Breaker:
    """Closed: all may ask. Open: none. Then half-open: one may ask, and its luck decides.

    Used from one event loop.

    Args:
        failures: In a row that open it.
        seconds: How long it stays open at first.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        failures: int = FAILURES,
        seconds: float = OPEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._first_seconds = self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False
        self._reason = ""

    @property
    def trouble(self) -> str | None:
        """Why it is open, None while it is closed."""
        return None if self._open_until is None else self._reason

    @contextmanager
    def asking(self) -> Generator[Attempt]:
        """Ask once; whoever leaves without calling `failed` has succeeded, unless cancelled.

        Raises:
            Unavailable: It is open.
        """
        is_probe = self._let_through()
        attempt = Attempt()
        try:
            yield attempt
        except BaseException:
            if attempt.has_failed:
                self._note_failure(attempt)
            raise
        else:
            self._close()
        finally:
            if is_probe:
                self._is_probing = False

    def _let_through(self) -> bool:
        if self._open_until is None:
            return False
        left = self._open_until - self._clock()
        if left > 0 or self._is_probing:
            raise Unavailable(
                f"the reply model's server is left alone for now: {self._reason}",
                retry_after=max(left, 1.0),
            )
        self._is_probing = True
        return True

    def _note_failure(self, attempt: Attempt) -> None:
        self._failures += 1
        self._reason = attempt.reason or "it gives no answer"
        if attempt.retry_after:  # it says itself for how long
            self._open_until = self._clock() + min(attempt.retry_after, LONGEST_SECONDS)
        elif self._failures >= self._most:
            if self._open_until is not None:
                self._seconds = min(2 * self._seconds, LONGEST_SECONDS)
            self._open_until = self._clock() + self._seconds

    def _close(self) -> None:
        self._failures = 0
        self._open_until = None
        self._seconds = self._first_seconds


class Attempt:
    """One request, and what became of it."""

    def __init__(self) -> None:
        self.has_failed = False
        self.retry_after: float | None = None
        self.reason = ""

    def failed(self, retry_after: float | None = None, reason: str = "") -> None:
        """Say that the server failed, not the prompt.

        Args:
            retry_after: Seconds for which the server wants to be left alone.
            reason: In our words.
        """
        self.has_failed = True
        self.retry_after = retry_after
        self.reason = reason
