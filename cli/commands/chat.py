"""`deskhand chat`: a conversation with the running bot in the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import typer

from cli import configuration
from cli.commands import ask

if TYPE_CHECKING:
    from cli.gateway_client import GatewayClient

HELP = """\
Type a message, or the number of a suggestion.
/person asks for a person, /up and /down rate the last reply, /quit ends (so does Ctrl-D)."""
PERSON = "I would like to talk to a person."
QUIET_SECONDS = 60.0
RECONNECT_SECONDS = 1.0
QUICK_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chat)


def chat(
    context: typer.Context,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with this conversation.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The gateway's address.")] = None,
) -> None:
    """Talk to the running bot as a customer does."""
    from cli.gateway_client import GatewayClient

    settings = configuration.of(context)
    with GatewayClient(settings, url) as gateway:
        gateway.get("/v1/conversations", limit=1)  # says at once that none runs, or the token
        name = ask.conversation_name(gateway, conversation)
        typer.echo(f"Conversation {name}.\n{HELP}\n")
        session = Session(gateway, name, settings.reply_deadline + ask.SPARE_SECONDS)
        session.run(_lines())


def _lines() -> Callable[[], str | None]:
    """Return what reads a line from the terminal or a pipe; None at the end."""
    prompt = "> " if sys.stdin.isatty() else ""

    def read() -> str | None:
        try:
            return input(prompt)
        except (EOFError, KeyboardInterrupt):
            return None

    return read


@dataclass
class Session:
    """A conversation in the terminal: one thread reads what is typed, another what is said."""

    gateway: GatewayClient
    name: str
    patience_seconds: float
    show: Callable[[Mapping[str, Any]], None] = ask.show
    suggestions: Sequence[str] = ()
    last_reply: str | None = None
    _position: int = 0
    _answered: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _working: bool = False
    _following: threading.Thread | None = None

    def run(self, read: Callable[[], str | None]) -> None:
        """Talk until there is nothing more to read."""
        try:
            while (line := read()) is not None and line.strip() != "/quit":
                self._do(line.strip())
        finally:
            self._ended.set()

    def _do(self, line: str) -> None:
        from core.errors import DeskhandError

        try:
            match line:
                case "":
                    return
                case "/help" | "/?":
                    typer.echo(HELP)
                case "/person":
                    self._say(PERSON)
                case "/up" | "/down":
                    self._rate(line.removeprefix("/"))
                case command if command.startswith("/") and " " not in command:
                    typer.echo(f"There is no {command}.\n{HELP}", err=True)
                case _:
                    self._say(self._meant(line))
        except DeskhandError as error:  # the talk goes on: the gateway may be back in a moment
            typer.echo(f"deskhand: {error}", err=True)

    def _meant(self, line: str) -> str:
        if line.isdecimal() and 1 <= int(line) <= len(self.suggestions):
            chosen = self.suggestions[int(line) - 1]
            typer.echo(f"> {chosen}")
            return chosen
        return line

    def _say(self, text: str) -> None:
        self._answered.clear()
        sent = ask.send(self.gateway, self.name, text)
        if self._following is None:
            self._following = threading.Thread(
                target=self._follow, args=(str(sent["conversation_id"]),), daemon=True
            )
            self._following.start()
        found = self.gateway.get(f"/v1/conversations/{sent['conversation_id']}")
        if found["working"] and sys.stdout.isatty():
            typer.echo("…", nl=False)
        # not at work: it answered already, which is shown in a moment, or it is silent
        if self._answered.wait(self.patience_seconds if found["working"] else QUICK_SECONDS):
            return
        if found["working"]:
            typer.echo("No reply came in time; `deskhand doctor` tells what is wrong.", err=True)
        else:
            typer.echo(ask.SILENT[found["holder"]])

    def _follow(self, conversation_id: str) -> None:
        """Print what is said, whoever says it and whenever; connects again when cut off."""
        from core.errors import DeskhandError

        while not self._ended.is_set():
            # RuntimeError: the client was closed under us, since the talk is over
            with suppress(DeskhandError, RuntimeError):
                for event in self.gateway.events(
                    conversation_id, after=self._position, quiet_seconds=QUIET_SECONDS
                ):
                    if event.name == "status":
                        self._status(event.data)
                    elif not event.name:
                        self._heard(event.data)
            self._ended.wait(RECONNECT_SECONDS)

    def _status(self, status: Mapping[str, Any]) -> None:
        if self._working and not status["working"]:
            if not self._answered.is_set():
                typer.echo("\r" + ask.SILENT[status["holder"]])
            self._answered.set()
        self._working = status["working"]

    def _heard(self, message: Mapping[str, Any]) -> None:
        self._position = message["position"]
        if message["author"] == "customer":
            return
        if sys.stdout.isatty():
            typer.echo("\r", nl=False)
        if message["agent"]:
            typer.echo(f"{message['agent']}:")
        self.show(message)
        self.suggestions = message["suggestions"]
        if message["author"] == "bot":
            self.last_reply = message["id"]
        self._answered.set()

    def _rate(self, verdict: str) -> None:
        if self.last_reply is None:
            typer.echo("There is no reply to rate yet.", err=True)
            return
        self.gateway.post(
            f"/v1/conversations/{quote(self.name, safe='')}/feedback",
            {
                "id": uuid4().hex,
                "sender": ask.SENDER,
                "message_id": self.last_reply,
                "verdict": verdict,
            },
        )
        typer.echo("Thank you.")
