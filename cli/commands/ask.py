"""`deskhand ask`: one question to the running gateway, and its reply with its sources."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from cli import configuration, printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from cli.gateway_client import Event, GatewayClient

SENDER = {"id": "terminal", "name": "Terminal"}
SPARE_SECONDS = 10.0
"""Beyond the reply's deadline, at which the bot says that it has none."""

SILENT = {
    "agent": "A person has this conversation, so the bot says nothing.",
    "waiting": "A person was asked for and will come; the bot has nothing sure to add.",
    "bot": "The bot says nothing.",
    "resolved": "The conversation is closed.",
}
"""Why no reply comes, by who has the conversation."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ask)


def ask(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="The customer's message.")],
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with this conversation.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The gateway's address.")] = None,
    json: AsJson = False,
) -> None:
    """Ask the running bot and print its reply with its sources."""
    from cli.gateway_client import GatewayClient

    settings = configuration.of(context)
    with GatewayClient(settings, url) as gateway:
        name = conversation_name(gateway, conversation)
        begun = time.monotonic()
        sent = send(gateway, name, text)
        patience = settings.reply_deadline + SPARE_SECONDS
        reply, holder = _reply(gateway, sent, begun + patience)
        seconds = round(time.monotonic() - begun, 3)
    if json:
        printing.as_json(
            {"conversation": name, **sent, "seconds": seconds, "holder": holder, "reply": reply}
        )
    elif reply is None:
        typer.echo(SILENT[holder])
    else:
        show(reply)


def conversation_name(gateway: GatewayClient, given: str | None) -> str:
    """Return the name of a conversation that is given by its name or id; a new one for None."""
    from urllib.parse import quote

    from core.errors import InvalidInput, NotFound

    if given is None:
        return f"terminal-{uuid4().hex[:12]}"
    try:
        UUID(given)
        found = gateway.get(f"/v1/conversations/{quote(given, safe='')}")
    except (ValueError, NotFound):
        return given  # a name, perhaps a new one
    if found["channel"] != "api":
        raise InvalidInput(
            f"Conversation {given} is on {found['channel']}; ask on that channel, or speak in it "
            "with `deskhand conversations take` and `say`.",
            field="conversation",
        )
    return found["name"]


def send(gateway: GatewayClient, name: str, text: str) -> Mapping[str, Any]:
    """Send a message; return its ids."""
    return gateway.post(
        "/v1/messages",
        {"id": uuid4().hex, "conversation": name, "sender": SENDER, "text": text},
    )


def _reply(
    gateway: GatewayClient, sent: Mapping[str, Any], until: float
) -> tuple[Mapping[str, Any] | None, str]:
    from core.errors import Unavailable

    conversation_id = str(sent["conversation_id"])
    try:
        after = _position(gateway, conversation_id, str(sent["message_id"]))
        events = gateway.events(
            conversation_id, after=after, quiet_seconds=max(1.0, until - time.monotonic())
        )
        return first_reply(_before(events, until))
    except TimeoutError:
        raise Unavailable("No reply came in time; `deskhand doctor` tells what is wrong.") from None


def _before(events: Iterator[Event], until: float) -> Iterator[Event]:
    for event in events:
        if time.monotonic() > until:
            raise TimeoutError
        yield event


def first_reply(events: Iterator[Event]) -> tuple[Mapping[str, Any] | None, str]:
    """Return the first message of the bot or a person, and who has the conversation then.

    The status that says that the bot is done comes after its message: without one it is silent.

    Raises:
        TimeoutError: The events ended before.
    """
    reply: Mapping[str, Any] | None = None
    for event in events:
        if event.name == "status" and not event.data["working"]:
            return reply, event.data["holder"]
        if not event.name and event.data["author"] != "customer" and reply is None:
            reply = event.data
    raise TimeoutError


def _position(gateway: GatewayClient, conversation_id: str, message_id: str) -> int:
    """Return the position of a message; pages through what was said before it."""
    after = 0
    while True:
        page = gateway.get(f"/v1/conversations/{conversation_id}/messages", after=after)
        for message in page["messages"]:
            if message["id"] == message_id:
                return message["position"]
        if page["next"] is None:
            return after
        after = page["next"]


def show(message: Mapping[str, Any]) -> None:
    """Print a message with its sources and suggestions."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.text import Text

    console = Console()
    text = printing.printable(message["text"])
    # without hyperlinks: links are printed, and not hidden behind their words
    shown = Markdown(text, hyperlinks=False) if message["is_markdown"] else Text(text)
    console.print(shown)
    for citation in message["citations"]:
        link = f" {citation['url']}" if citation["url"] else ""
        source = printing.printable(f"{citation['question']} [{citation['entry_id']}]{link}")
        console.print(Text(f"  source: {source}", style="dim"))
    for number, suggestion in enumerate(message["suggestions"], 1):
        console.print(Text(f"  {number}. {printing.printable(suggestion)}", style="cyan"))
