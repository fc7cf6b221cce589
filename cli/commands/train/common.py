"""What the trainings share: telling how far they are."""

from __future__ import annotations

import sys
import time


def progress(line: str) -> None:
    """Tell a person on stderr how far long work is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
