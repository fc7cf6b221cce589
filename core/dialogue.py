"""What is being talked about, derived from what was said and cited; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.types import Author, FaqEntry, Utterance

HISTORY_TURNS = 6
"""How many of the latest messages count; older ones mislead more often than they help."""


@dataclass(frozen=True)
class Dialogue:
    """The state of a conversation before the message that is to be answered.

    Attributes:
        question: What the customer last asked; empty where nothing was asked yet.
        said: What the customer said before, oldest first.
        cited: The entries that the last reply rests on, as they stand now.
        asked_back: The last reply was a clarifying question.
    """

    question: str = ""
    said: tuple[str, ...] = ()
    cited: tuple[FaqEntry, ...] = ()
    asked_back: bool = False

    @property
    def entity(self) -> str:
        """The product or place of the cited entries, where there is only one."""
        entities = {entry.entity for entry in self.cited if entry.entity}
        return entities.pop() if len(entities) == 1 else ""

    @property
    def topic(self) -> str:
        """The question of the first cited entry."""
        return self.cited[0].question if self.cited else ""


def follow(
    history: Sequence[Utterance], cited: Sequence[FaqEntry], clarify_texts: Collection[str] = ()
) -> Dialogue:
    """Return what is being talked about.

    Args:
        history: What was said before, oldest first.
        cited: The entries of the bot's last reply.
        clarify_texts: How a clarifying question begins, in every language.
    """
    recent = history[-HISTORY_TURNS:]
    said = tuple(u.text for u in recent if u.author is Author.CUSTOMER)
    spoken = [u.text for u in recent if u.author is not Author.CUSTOMER]
    asked_back = bool(spoken) and any(spoken[-1].startswith(t) for t in clarify_texts)
    return Dialogue(said[-1] if said else "", said, tuple(cited), asked_back)
