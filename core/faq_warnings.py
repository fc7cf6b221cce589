"""What staff should look at in an entry that is taken in all the same; pure."""

from __future__ import annotations

from core import blocked, suspicion
from core.types import FaqEntry

SHOWN_CHARACTERS = 80


def warnings_of(entry: FaqEntry) -> list[str]:
    """Return what is odd about an entry's texts, one sentence each.

    The answer is staff's word and goes out as it stands; these say what customers would read.
    """
    found = [
        f'the answer holds "{_short(text)}", which reads like an instruction to the bot; it is '
        "only quoted, never reworded."
        for text in suspicion.strange_in(entry.answer)
    ]
    if (phrase := blocked.found_in(entry.answer)) is not None:
        found.append(f'the answer holds "{phrase}", which no reply in the bot\'s own words may.')
    return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
