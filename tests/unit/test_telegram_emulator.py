"""The emulated Bot API refuses what the real one refuses, however it is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.emulators.telegram import TelegramEmulator
from tests.emulators.telegram_formatting import Refusal, check_entities, shown


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        emulator.know(42)
        yield emulator


async def call(telegram: TelegramEmulator, method: str, **how: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{telegram.url}/bot{telegram.token}/{method}", **how)


@pytest.mark.parametrize(
    ("text", "mode", "left"),
    [
        ("1 < 2 *", None, "1 < 2 *"),
        ("<b>bold</b> &lt;i&gt; &amp;", "HTML", "bold <i> &"),
        (
            r"*bold* \_literal\_ [page](https://a.b/c_d) `a.b`",
            "MarkdownV2",
            "bold _literal_ page a.b",
        ),
    ],
)
def test_sound_markup_is_shown_without_its_signs(text: str, mode: str | None, left: str):
    assert shown(text, mode) == left


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("1 < 2", "HTML"),
        ("<b>bold", "HTML"),
        ("<h1>bold</h1>", "HTML"),
        ("bold</b>", "HTML"),
        ("The end.", "MarkdownV2"),
        ("*bold", "MarkdownV2"),
        ("text", "Wiki"),
    ],
)
def test_faulty_markup_is_refused(text: str, mode: str):
    with pytest.raises(Refusal) as refused:
        shown(text, mode)

    assert refused.value.status == 400


@pytest.mark.parametrize(("offset", "length"), [(0, 9), (-1, 1), (0, 0), (1, 1), (0, 1)])
def test_an_entity_that_leaves_the_text_or_cuts_a_character_is_refused(offset: int, length: int):
    with pytest.raises(Refusal):
        check_entities("😀 hi", [{"type": "bold", "offset": offset, "length": length}])


@pytest.mark.parametrize(
    "how",
    [
        {
            "data": {
                "chat_id": "42",
                "text": "Hi",
                "entities": '[{"type":"bold","offset":0,"length":2}]',
            }
        },
        {
            "json": {
                "chat_id": 42,
                "text": "Hi",
                "entities": [{"type": "bold", "offset": 0, "length": 2}],
            }
        },
        {
            "files": {
                "chat_id": (None, "42"),
                "text": (None, "Hi"),
                "entities": (None, json.dumps([{"type": "bold", "offset": 0, "length": 2}])),
            }
        },
    ],
)
async def test_form_json_and_multipart_say_the_same(
    telegram: TelegramEmulator, how: dict[str, Any]
):
    response = await call(telegram, "sendmessage", **how)

    assert response.json()["ok"]
    assert telegram.sent[0].marked("bold") == ["Hi"]


@pytest.mark.parametrize(
    ("fields", "described"),
    [
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": " "}, "message text is empty"),
        ({"text": "Hi", "message_thread_id": 5}, "message thread not found"),
        ({"text": "Hi", "reply_parameters": {"message_id": 99}}, "replied not found"),
        (
            {
                "text": "Hi",
                "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "x" * 65}]]},
            },
            "BUTTON_DATA_INVALID",
        ),
    ],
)
async def test_a_message_beyond_the_limits_is_refused(
    telegram: TelegramEmulator, fields: dict[str, Any], described: str
):
    response = await call(telegram, "sendMessage", json={"chat_id": 42} | fields)

    assert response.status_code == 400
    assert described in response.json()["description"]
    assert telegram.sent == []


async def test_an_edit_must_change_something(telegram: TelegramEmulator):
    sent = (await call(telegram, "sendMessage", json={"chat_id": 42, "text": "a"})).json()["result"]
    edit = {"chat_id": 42, "message_id": sent["message_id"]}

    same = await call(telegram, "editMessageText", json=edit | {"text": "a"})
    other = await call(telegram, "editMessageText", json=edit | {"text": "b"})

    assert "not modified" in same.json()["description"]
    assert other.json()["result"]["text"] == "b"
    assert [message.text for message in telegram.sent] == ["b"]


async def test_a_webhook_cannot_be_set_twice_within_a_second(telegram: TelegramEmulator):
    hook = {"url": "https://bot.example/telegram/webhook"}

    first = await call(telegram, "setWebhook", json=hook)
    second = await call(telegram, "setWebhook", json=hook)
    await telegram.clock.advance(1)
    third = await call(telegram, "setWebhook", json=hook)
    polled = await call(telegram, "getUpdates")

    assert [first.status_code, second.status_code, third.status_code] == [200, 429, 200]
    assert second.headers["Retry-After"] == "1"
    assert polled.status_code == 409


async def test_a_file_is_found_by_its_id_and_fetched_with_the_token(telegram: TelegramEmulator):
    telegram.files["voice-1"] = b"ogg"

    told = (await call(telegram, "getFile", json={"file_id": "voice-1"})).json()["result"]
    async with httpx.AsyncClient() as client:
        url = f"{telegram.url}/file/bot{telegram.token}/{told['file_path']}"
        fetched = await client.get(url)
        stranger = await client.get(url.replace(telegram.token, "1:x"))

    assert fetched.content == b"ogg"
    assert stranger.status_code == 404


async def test_a_wrong_token_is_unauthorised(telegram: TelegramEmulator):
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{telegram.url}/bot1:wrong/getMe")

    assert response.status_code == 401
