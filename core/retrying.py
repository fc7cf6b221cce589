"""How long to wait before the next try; pure."""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0


def backoff(attempts: int, asked: float | None = None) -> float:
    """Return the seconds to wait after so many failed attempts.

    Doubles from half a second to a minute; what the other side asked for is never undercut.

    Args:
        attempts: Tries so far, at least 1.
        asked: What the other side asked for (Retry-After), if it did.
    """
    grown = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(attempts - 1, 16))
    return max(grown, asked or 0.0)
