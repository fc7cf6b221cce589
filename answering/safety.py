"""What the reply model may be given, and what of its words may go out; pure.

A source that holds orders to the bot is never given to the model: its approved answer is quoted.
The customer's orders are no reason to refuse, only to answer by quoting. What the model writes is
dropped where it holds a blocked phrase or echoes what only the customer said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from answering.prompting import plain
from core import blocked as blocking
from core import suspicion
from core.types import FaqEntry
from retrieval.lexical import fold, tokens

FROM_THE_ENTRIES = 0.5
"""Share of a sentence's words that must stand in the entries themselves.

The check takes the customer's words as known too, so that a reply may take them up: alone it lets
an echoed order or insult through.
"""
_TAKEN_UP = frozenset(
    t for word in ("yes", "no", "not", "sorry", "unfortunately") for t in tokens(word)
)


@dataclass(frozen=True)
class Findings:
    """What speaks against generating a reply.

    Attributes:
        said: Sentences of the customer's that give orders to the bot.
        entries: The ids of entries with sentences that no approved answer holds.
    """

    said: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()

    @property
    def quote_because(self) -> str | None:
        """Why the approved answer is to be quoted, in the words of the trace."""
        if self.entries:
            return f"quoted: the entry may hold instructions ({', '.join(self.entries)})"
        if self.said:
            return "quoted: the message gives instructions"
        return None


def inspect(said: Sequence[str], entries: Sequence[FaqEntry]) -> Findings:
    """Return what speaks against giving texts to the model.

    Args:
        said: Whatever of the customer's words would stand in the prompt, earlier ones too.
        entries: What the reply would rest on.
    """
    return Findings(
        tuple(order for text in said for order in suspicion.orders_in(text)),
        tuple(
            entry.id
            for entry in entries
            if suspicion.strange_in(plain(entry.answer)) or suspicion.orders_in(entry.question)
        ),
    )


def blocked(text: str, phrases: Sequence[str] = ()) -> str | None:
    """Return the phrase in a generated text that the bot must never say, None without one.

    Args:
        text: What the model wrote.
        phrases: Staff's own list, besides the one that ships.
    """
    return blocking.found_in(text, phrases)


def strays(sentence: str, entries: Sequence[FaqEntry]) -> bool:
    """Return whether most words of a generated sentence stand in no entry that it rests on."""
    words = [token for token in tokens(fold(sentence)) if token not in _TAKEN_UP]
    if not words:
        return False
    known = {
        token
        for entry in entries
        for text in (plain(entry.answer), entry.question, *entry.alternates, entry.entity or "")
        for token in tokens(text)
    }
    return sum(word in known for word in words) < FROM_THE_ENTRIES * len(words)
