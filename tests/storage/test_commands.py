"""The staff's commands on a real database, and those that talk to a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from cli.commands.chat import Session
from cli.formats import FORMATS
from cli.gateway_client import GatewayClient
from cli.main import run
from cli.serving.tokens import bearer
from core.conversations import Desk
from core.db.connect import Database
from core.settings import Settings
from core.types import Question, Reply
from desk import conversations_api, faq_api
from tests.storage.served import TOKEN, Stand, stand
from tests.storage.spine import Rings, said

TABLE = "question,answer,id\nHow long is delivery?,Two days.,delivery\n,blank,\n"


@dataclass
class Terminal:
    """Runs commands and keeps what they print."""

    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        status = run(list(arguments))
        self.out, self.err = self.capsys.readouterr()
        return status

    def json(self, *arguments: str) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def terminal(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DESKHAND_API_TOKEN", TOKEN)
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal(capsys)


def test_a_file_is_imported_listed_exported_and_its_bad_row_named(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "faq.csv").write_text(TABLE, encoding="utf-8")

    assert terminal("faq", "import", "faq.csv") == 0
    assert terminal.out == "1 created, 0 updated, 0 unchanged, 1 rejected.\n"
    assert terminal.err == "faq.csv line 3: question is blank; every entry needs one.\n"

    listed = terminal.json("faq", "list")
    assert (listed["total"], listed["entries"][0]["status"]) == (1, "published")
    assert terminal("faq", "list") == 0
    assert "How long is delivery?" in terminal.out

    for ending in FORMATS:
        assert terminal("faq", "export", f"out.{ending}") == 0
        report = terminal.json("faq", "import", f"out.{ending}")
        assert (report["unchanged"], report["rejected"]) == (1, [])


def test_a_strict_import_with_a_bad_row_imports_nothing_and_exits_with_1(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "faq.csv").write_text(TABLE, encoding="utf-8")

    assert terminal("faq", "import", "--strict", "faq.csv") == 1
    assert "faq.csv line 3" in terminal.err
    assert terminal.json("faq", "list")["total"] == 0


def test_an_entry_is_added_archived_and_restored(terminal: Terminal) -> None:
    added = terminal.json(
        "faq", "add", "--question", "Is it blue?", "--answer", "Yes.", "--tag", "a", "--tag", "b"
    )
    assert (added["id"], added["status"], added["tags"]) == ("is-it-blue", "published", ["a", "b"])

    assert terminal("faq", "archive", "is-it-blue") == 0
    assert terminal.json("faq", "list")["entries"] == []
    assert terminal("faq", "restore", "is-it-blue", "1") == 0
    assert [each["action"] for each in terminal.json("faq", "history", "is-it-blue")] == [
        "restore",
        "archive",
        "create",
    ]
    assert terminal.json("faq", "show", "is-it-blue")["status"] == "published"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("faq", "import", "none.csv"), "There is no file none.csv"),
        (("faq", "import", "x.doc"), "x.doc is in no known format"),
        (("faq", "show", "nothing"), "There is no entry nothing"),
        (("faq", "list", "--base", "nowhere"), "no knowledge base named nowhere"),
        (("faq", "list", "--limit", "0"), "limit must be 1 to 500"),
        (("faq", "search", "x", "--url", "http://127.0.0.1:9"), "No gateway answers at http://"),
        (("ask", "x", "--url", "http://127.0.0.1:9"), "start it with `deskhand up`"),
        (("chat", "--url", "http://127.0.0.1:9"), "No gateway answers"),
        (("conversations", "take", "nothing"), "There is no conversation 'nothing'"),
        (("turns", "replay"), "Give either the id of a turn or --all"),
        (("turns", "replay", "00000000-0000-0000-0000-000000000000"), "is no dead letter"),
        (("deliveries", "resend", "00000000-0000-0000-0000-000000000000"), "is not held"),
        (("texts", "set", "en", "greting", "Hi"), "is greeting meant?"),
        (("intents", "import", "none.csv"), "There is no file none.csv"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    terminal: Terminal, arguments: Sequence[str], message: str
) -> None:
    assert terminal(*arguments) == 1
    assert message in terminal.err
    assert terminal.err.count("\n") == 1


def test_a_database_that_is_away_or_empty_is_one_clear_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, server_url: str
) -> None:
    monkeypatch.setattr("cli.direct.PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("DESKHAND_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    assert terminal("faq", "list") == 1
    assert "The database cannot be reached; is `deskhand up` running" in terminal.err

    monkeypatch.setenv("DESKHAND_DATABASE_URL", server_url)
    assert terminal("faq", "list") == 1
    assert "not at this release's schema" in terminal.err


def test_nothing_to_show_is_said(terminal: Terminal) -> None:
    for arguments, text in (
        (("conversations", "list", "--holder", "waiting"), "No conversation is held by waiting."),
        (("turns", "failed"), "No failed turns."),
        (("deliveries", "list"), "No delivery is held"),
        (("turns", "replay", "--all"), "0 replayed, 0 not."),
    ):
        assert terminal(*arguments) == 0
        assert text in terminal.out


def test_a_bases_style_and_tolerated_error_are_changed(terminal: Terminal) -> None:
    assert terminal("bases", "set", "default", "--style", "verbatim") == 0
    assert terminal("bases", "set", "default", "--tolerated-error", "0.02") == 0
    (base,) = terminal.json("bases", "list")
    assert (base["name"], base["style"], base["tolerated_error"]) == ("default", "verbatim", 0.02)

    (base,) = terminal.json("bases", "set", "default", "--style", "inherit")
    assert base["style"] is None
    assert terminal("bases", "set", "nowhere", "--style", "verbatim") == 1
    assert terminal("bases", "set", "default", "--tolerated-error", "5") == 1
    assert terminal("bases", "set", "default") == 2


def test_an_entry_is_added_with_a_style_of_its_own(terminal: Terminal) -> None:
    added = ("faq", "add", "--question", "May I return it?", "--answer", "Within 45 days.")

    assert terminal.json(*added, "--id", "terms", "--style", "verbatim")["style"] == "verbatim"
    assert terminal(*added, "--id", "other", "--style", "poetic") == 1


def test_texts_and_intents_are_changed(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal("texts", "set", "en", "greeting", "Ahoy!") == 0
    rows = terminal.json("texts", "list", "--locale", "en")
    assert [row["text"] for row in rows if row["own"]] == ["Ahoy!"]
    assert terminal("texts", "unset", "en", "greeting") == 0
    assert not any(row["own"] for row in terminal.json("texts", "list"))

    (tmp_path / "intents.csv").write_text("text,label\nwhere is it,order\nhi,x\n", encoding="utf-8")
    assert terminal.json("intents", "import", "intents.csv")["labels"] == {"order": 1, "x": 1}
    assert len(terminal.json("intents", "list")) == 2


@pytest.fixture
async def gateway(
    database: Database, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stand]:
    authorize = bearer(SecretStr(TOKEN))
    routers = [
        faq_api.routes(database, _NoWorker(), FORMATS, authorize),
        conversations_api.routes(Desk(database, Rings(), 3600.0), 30.0, authorize),
    ]
    async with stand(database, routers=routers) as running:
        address = urlsplit(running.url)
        monkeypatch.setenv("DESKHAND_PORT", str(address.port))
        yield running


class _NoWorker:
    async def ask(self, kind: str, payload: object) -> Any:
        raise AssertionError("nobody searches here")


async def test_a_question_is_answered_and_goes_on_by_name_or_id(
    gateway: Stand, terminal: Terminal
) -> None:
    first = await asyncio.to_thread(terminal.json, "ask", "Where is my parcel?")
    assert first["reply"]["text"] == "You asked: Where is my parcel?"

    for known in (first["conversation"], first["conversation_id"]):
        again = await asyncio.to_thread(terminal.json, "ask", "And now?", "--conversation", known)
        assert again["conversation_id"] == first["conversation_id"]
        assert again["reply"]["text"] == "You asked: And now?"
    assert await asyncio.to_thread(terminal, "ask", "Plain?") == 0
    assert terminal.out == "You asked: Plain?\n"


async def test_a_person_takes_over_from_the_command_line(
    gateway: Stand, terminal: Terminal
) -> None:
    asked = await asyncio.to_thread(terminal.json, "ask", "Where is my parcel?")
    name = asked["conversation"]

    taken = await asyncio.to_thread(terminal.json, "conversations", "take", name, "--agent", "ada")
    assert (taken["holder"], taken["agent"]) == ("agent", "ada")
    assert await asyncio.to_thread(terminal, "ask", "Hello?", "--conversation", name) == 0
    assert "A person has this conversation" in terminal.out
    assert await asyncio.to_thread(terminal, "conversations", "take", name, "--agent", "bob") == 1

    assert (
        await asyncio.to_thread(terminal, "conversations", "say", name, "Hi!", "--agent", "ada")
        == 0
    )
    shown = await asyncio.to_thread(terminal.json, "conversations", "show", name)
    assert [message["author"] for message in shown["messages"]] == [
        "customer",
        "bot",
        "customer",
        "agent",
    ]
    assert await asyncio.to_thread(terminal, "conversations", "show", name) == 0
    assert "Hi!" in terminal.out
    held = await asyncio.to_thread(terminal.json, "conversations", "list", "--holder", "agent")
    assert [each["key"] for each in held] == [name]
    assert (
        await asyncio.to_thread(terminal, "conversations", "release", name, "--agent", "ada") == 0
    )
    assert await asyncio.to_thread(terminal, "conversations", "resolve", name) == 0


async def test_a_chat_shows_replies_takes_suggestions_by_number_and_rates(
    gateway: Stand, terminal: Terminal, database: Database
) -> None:
    async def suggest(question: Question) -> Reply:
        return replace(said(f"On {question.messages[-1]}"), suggestions=("First?", "Second?"))

    gateway.scripted.does = suggest
    typed = iter(["", "Hello there!", "2", "/up", "/nonsense", "/person", "/help", "/quit"])
    shown = list[str]()

    def chat() -> None:
        settings = Settings(api_token=SecretStr(TOKEN))
        with GatewayClient(settings, gateway.url) as client:
            Session(
                client, "kitchen", 20.0, show=lambda message: shown.append(message["text"])
            ).run(lambda: next(typed, None))

    await asyncio.to_thread(chat)

    assert shown == ["On Hello there!", "On Second?", "On I would like to talk to a person."]
    async with database.transaction() as conn:
        cursor = await conn.execute("select verdict from feedback")
        assert await cursor.fetchall() == [("up",)]
    assert "There is no /nonsense" in terminal.capsys.readouterr().err


async def test_a_wrong_token_is_said_in_one_line(
    gateway: Stand, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESKHAND_API_TOKEN", "wrong")

    assert await asyncio.to_thread(terminal, "ask", "Hello?") == 1
    assert "refuses the API token" in terminal.err
