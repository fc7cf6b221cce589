"""Who may hold a conversation after whom: bot, waiting, agent, resolved; pure."""

from __future__ import annotations

from enum import StrEnum

from core.errors import Conflict
from core.types import Holder


class Move(StrEnum):
    """What can happen to a conversation's holder."""

    HAND_OFF = "hand_off"
    """The bot promises a person."""
    TAKE = "take"
    """An agent takes it over."""
    RELEASE = "release"
    """The agent gives it back to the bot."""
    RESOLVE = "resolve"
    """Done; the next message of the customer opens it again."""
    REOPEN = "reopen"
    """The customer wrote to a resolved conversation."""


_AFTER: dict[Move, dict[Holder, Holder]] = {
    Move.HAND_OFF: {Holder.BOT: Holder.WAITING, Holder.WAITING: Holder.WAITING},
    Move.TAKE: {
        Holder.BOT: Holder.AGENT,
        Holder.WAITING: Holder.AGENT,
        Holder.AGENT: Holder.AGENT,
        Holder.RESOLVED: Holder.AGENT,
    },
    Move.RELEASE: {
        Holder.BOT: Holder.BOT,
        Holder.WAITING: Holder.BOT,
        Holder.AGENT: Holder.BOT,
        Holder.RESOLVED: Holder.BOT,
    },
    Move.RESOLVE: {
        Holder.BOT: Holder.RESOLVED,
        Holder.WAITING: Holder.RESOLVED,
        Holder.AGENT: Holder.RESOLVED,
        Holder.RESOLVED: Holder.RESOLVED,
    },
    Move.REOPEN: {Holder.RESOLVED: Holder.BOT},
}


def after(
    move: Move, holder: Holder, held_by: str | None = None, agent: str | None = None
) -> Holder:
    """Return who holds a conversation after a move.

    Args:
        move: What happens.
        holder: Who holds it now.
        held_by: The agent that holds it now, if one does.
        agent: The agent that moves; None for bot, customer and operator.

    Raises:
        Conflict: Another agent holds it, or the move makes no sense from here.
    """
    if holder is Holder.AGENT and agent is not None and agent != held_by:
        raise Conflict(f"The conversation is held by {held_by}; ask them to release it.")
    try:
        return _AFTER[move][holder]
    except KeyError:
        raise Conflict(f"A conversation held by {holder} cannot {move}.") from None
