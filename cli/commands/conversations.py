"""`deskhand conversations`: see who waits for a person, take over, speak, give back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli import printing
from cli.printing import AsJson
from core.types import Holder

if TYPE_CHECKING:
    from core.conversations import Desk
    from core.types import Conversation

Name = Annotated[
    str, typer.Argument(metavar="ID", help="Its id, or the name that the API was given.")
]
Agent = Annotated[str, typer.Option(help="Who acts; else the user of this machine.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    conversations = typer.Typer(no_args_is_help=True, help="Conversations with customers.")
    conversations.command("list")(overview)
    for command in (show, take, say, release, resolve):
        conversations.command()(command)
    app.add_typer(conversations, name="conversations")


def overview(
    context: typer.Context,
    holder: Annotated[
        Holder | None, typer.Option(help="bot, waiting (for a person), agent or resolved.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="web, slack, telegram or api.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Leave out the first.")] = 0,
    json: AsJson = False,
) -> None:
    """List conversations, those who wait longest for a person first."""
    from cli import direct
    from core import conversations

    found = direct.run(
        context,
        lambda database, _: conversations.overview(
            database, holder=holder, channel=channel, limit=limit, offset=offset
        ),
    )
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("id", "channel", "customer", "holder", "since", "reason"),
        (
            (
                each.id,
                each.channel,
                each.contact_name,
                each.agent or each.holder,
                each.waiting_since or each.last_message_at,
                each.hand_off_reason,
            )
            for each in found
        ),
        empty="No conversations." if holder is None else f"No conversation is held by {holder}.",
    )


def show(
    context: typer.Context,
    conversation: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 1000,
    json: AsJson = False,
) -> None:
    """Show what was said in a conversation."""
    from cli import direct
    from core import conversations

    found, said = direct.run(
        context,
        lambda database, _: conversations.show(database, conversation, limit=limit),
    )
    if json:
        printing.as_json({"conversation": found, "messages": said})
        return
    typer.echo(_described(found))
    printing.table(
        ("when", "who", "text"),
        ((each.created_at, each.agent or each.author, each.text) for each in said),
        empty="Nothing was said yet.",
    )


def take(
    context: typer.Context, conversation: Name, agent: Agent = "", json: AsJson = False
) -> None:
    """Take a conversation; the bot is silent in it from now on."""
    from core import conversations

    _act(context, agent, json, lambda desk, who: conversations.take(desk, conversation, who))


def say(
    context: typer.Context,
    conversation: Name,
    text: Annotated[str, typer.Argument(help="Sent as it is.")],
    agent: Agent = "",
    json: AsJson = False,
) -> None:
    """Say something to the customer of a conversation that you hold."""
    from core import conversations

    _act(context, agent, json, lambda desk, who: conversations.say(desk, conversation, who, text))


def release(
    context: typer.Context, conversation: Name, agent: Agent = "", json: AsJson = False
) -> None:
    """Give a conversation back to the bot."""
    from core import conversations

    _act(context, agent, json, lambda desk, who: conversations.release(desk, conversation, who))


def resolve(
    context: typer.Context, conversation: Name, agent: Agent = "", json: AsJson = False
) -> None:
    """Close a conversation; the customer's next message opens it again with the bot."""
    from core import conversations

    _act(context, agent, json, lambda desk, who: conversations.resolve(desk, conversation, who))


def _act(
    context: typer.Context,
    agent: str,
    json: bool,
    act: Callable[[Desk, str], Awaitable[Conversation]],
) -> None:
    from cli import direct

    moved = direct.run(
        context,
        lambda database, settings: act(direct.desk(database, settings), agent or direct.user()),
    )
    if json:
        printing.as_json(moved)
    else:
        typer.echo(_described(moved))


def _described(found: Conversation) -> str:
    held = f"held by {found.agent}" if found.agent else f"held by: {found.holder}"
    who = printing.printable(found.contact_name) or "a customer"
    return f"{found.id} with {who} on {found.channel}, {held}."
