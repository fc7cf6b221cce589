"""The web chat's own routes, over real HTTP on a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from bots.web import COOKIE, Visitor, WebChat, preferred
from core.db import faq
from core.db.connect import Database
from core.settings import Settings
from core.types import FaqEntry, MessageKind, Tier
from tests.storage.served import Stand, settings, stand
from tests.storage.spine import said

SHOP = "https://shop.example"


@pytest.fixture
async def gateway(database: Database) -> AsyncIterator[Stand]:
    """A running gateway."""
    async with stand(database, chat_origins=(SHOP,), chat_messages_per_minute=5) as running:
        yield running


@pytest.fixture
async def browser(gateway: Stand) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has opened the page and keeps its cookie."""
    async with gateway.client() as client:
        assert (await client.get("/chat")).status_code == 200
        yield client


async def ask(client: httpx.AsyncClient, text: str = "Where?", **fields: Any) -> httpx.Response:
    return await client.post("/chat/messages", json={"id": "m1", "text": text, **fields})


async def test_a_visitor_asks_and_finds_the_reply_also_after_a_reload(gateway, browser):
    receipt = await ask(browser, "Where is <b>my</b> order?")
    assert receipt.status_code == 202
    await gateway.doorbell.settled()

    chat = (await browser.get("/chat/messages")).json()

    assert chat["conversation_id"] == receipt.json()["conversation_id"]
    assert (chat["working"], chat["holder"]) == (False, "bot")
    question, reply = chat["messages"]
    assert (question["author"], question["text"]) == ("customer", "Where is <b>my</b> order?")
    assert "html" not in question
    assert reply["html"] == "<p>You asked: Where is &lt;b&gt;my&lt;/b&gt; order?</p>"
    assert reply["rateable"]


@pytest.mark.parametrize("path", ["/", "/chat/"])
async def test_the_page_is_found_by_other_ways_too(gateway, path):
    async with gateway.client(follow_redirects=True) as client:
        assert "<textarea" in (await client.get(path)).text


async def test_a_repeated_post_is_answered_once(gateway, browser):
    first, again = await ask(browser), await ask(browser)

    assert first.json() == again.json()
    await gateway.doorbell.settled()
    assert len((await browser.get("/chat/messages")).json()["messages"]) == 2


async def test_visitors_do_not_see_each_other_even_with_the_same_message_id(gateway, browser):
    async with gateway.client() as other:
        await other.get("/chat")
        theirs = (await ask(other, "A secret?")).json()
        ours = (await ask(browser)).json()

    assert theirs["conversation_id"] != ours["conversation_id"]
    await gateway.doorbell.settled()
    read = (await browser.get("/chat/messages")).json()
    assert "secret" not in json.dumps(read)


@pytest.mark.parametrize("cookie", [None, "forged", "WyJhIiwiYiJd.c2lnbmF0dXJl"])
async def test_without_our_own_cookie_nothing_can_be_read_or_written(gateway, cookie):
    async with gateway.client(cookies={COOKIE: cookie} if cookie else {}) as stranger:
        for response in (
            await ask(stranger),
            await stranger.get("/chat/messages"),
            await stranger.get("/chat/events"),
            await stranger.post("/chat/new", json={}),
        ):
            assert response.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": SHOP}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://shop.example.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_only_our_own_page_and_listed_sites_may_post(gateway, browser, headers, status):
    response = await browser.post(
        "/chat/messages", json={"id": "m1", "text": "Hello?"}, headers=headers
    )

    assert response.status_code == status


async def test_our_own_origin_may_post(gateway, browser):
    response = await browser.post(
        "/chat/messages", json={"id": "m1", "text": "Hello?"}, headers={"Origin": gateway.url}
    )

    assert response.status_code == 202


async def test_who_writes_too_fast_is_asked_to_wait(gateway, browser):
    for number in range(5):
        assert (await ask(browser, id=f"m{number}")).status_code == 202

    response = await ask(browser, id="one too many")

    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "too_many_requests"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"text": " "}, "text"), ({"text": "x" * 8_001}, "text"), ({"id": ""}, "id")],
)
async def test_a_message_that_cannot_be_taken_in_is_refused(gateway, browser, fields, field):
    response = await ask(browser, **{"text": "Hello?", **fields})

    assert (response.status_code, response.json()["error"]["field"]) == (422, field)


async def test_asking_for_a_person_is_told_apart_from_text(gateway, browser):
    response = await browser.post(
        "/chat/person", json={"id": "p1", "text": "Ich möchte mit einem Menschen sprechen."}
    )

    assert response.status_code == 202
    await gateway.doorbell.settled()
    assert gateway.scripted.asked[0].kind is MessageKind.PERSON


async def test_the_browsers_language_goes_with_the_message(gateway, browser):
    await browser.post(
        "/chat/messages",
        json={"id": "m1", "text": "?"},
        headers={"Accept-Language": "en;q=0.5, de-AT;q=0.9, *;q=0.1"},
    )
    await gateway.doorbell.settled()

    assert gateway.scripted.asked[0].locale == "de-AT"


async def test_a_verdict_is_kept_and_can_be_changed(gateway, browser):
    await ask(browser)
    await gateway.doorbell.settled()
    reply = (await browser.get("/chat/messages")).json()["messages"][1]["id"]

    for number, verdict in enumerate(("up", "down")):
        response = await browser.post(
            "/chat/feedback",
            json={"id": f"f{number}", "message_id": reply, "verdict": verdict},
        )
        assert response.status_code == 202

    assert (await browser.get("/chat/messages")).json()["verdicts"] == {reply: "down"}


async def test_a_reply_to_somebody_else_cannot_be_rated(gateway, browser):
    await ask(browser)
    await gateway.doorbell.settled()
    reply = (await browser.get("/chat/messages")).json()["messages"][1]["id"]
    async with gateway.client() as other:
        await other.get("/chat")

        response = await other.post(
            "/chat/feedback", json={"id": "f", "message_id": reply, "verdict": "up"}
        )

    assert response.status_code == 404


async def test_a_new_conversation_begins_empty_and_the_rate_limit_stays(gateway, browser):
    for number in range(5):
        await ask(browser, id=f"m{number}")

    assert (await browser.post("/chat/new", json={})).status_code == 200

    assert (await browser.get("/chat/messages")).json()["messages"] == []
    assert (await ask(browser, id="m9")).status_code == 429


async def test_the_page_greets_and_offers_questions_in_the_visitors_language(gateway, browser):
    async with gateway.database.transaction() as conn:
        base = await faq.lock_base(conn, "default")
        for number, (question, locale, status, tag) in enumerate(
            [
                ("How do I pay?", "en", "published", "payment"),
                ("Can I pay later?", "en", "published", "payment"),
                ("Do you ship abroad?", "en", "published", "shipping"),
                ("Not yet?", "en", "draft", "other"),
                ("如何退货？", "zh", "published", "退货"),
            ]
        ):
            entry = FaqEntry(
                f"e{number}", question, "Yes.", tags=(tag,), locale=locale, status=status
            )
            await faq.save(conn, base.id, entry, faq_version=1, action="create", author="test")

    english = (await browser.get("/chat/start", headers={"Accept-Language": "en-GB"})).json()
    chinese = (await browser.get("/chat/start?lang=zh-CN")).json()
    other = (await browser.get("/chat/start?lang=fr")).json()

    assert english["questions"] == ["How do I pay?", "Do you ship abroad?"]
    assert chinese["questions"] == ["如何退货？"]
    assert other["questions"] == english["questions"]
    assert "automated" in english["greeting"]
    assert chinese["greeting"] != english["greeting"]


async def test_approved_markdown_becomes_safe_html_and_literal_text_does_not(gateway, browser):
    text = "**Yes**, see [here](https://shop.example) <script>alert(1)</script>"

    async def approved(_: Any) -> Any:
        reply = said(text)
        return type(reply)(reply.choice, text, Tier.APPROVED, "en", is_markdown=True, citations=())

    gateway.scripted.does = approved
    await ask(browser)
    await gateway.doorbell.settled()

    html = (await browser.get("/chat/messages")).json()["messages"][1]["html"]
    assert "<strong>Yes</strong>" in html
    assert 'href="https://shop.example"' in html
    assert "<script" not in html


async def test_the_page_loads_only_from_here_and_only_listed_sites_may_frame_it(gateway, browser):
    page = await browser.get("/chat")

    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert f"frame-ancestors 'self' {SHOP}" in policy
    assert page.headers["cache-control"] == "no-store"
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("chat.css", "chat.js", "strings.js", "talking.js", "showing.js"):
        file = await browser.get(f"/chat/{name}")
        assert file.status_code == 200
        tag = {"If-None-Match": file.headers["etag"]}
        assert (await browser.get(f"/chat/{name}", headers=tag)).status_code == 304
    widget = await browser.get("/widget.js")
    assert widget.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    ("changes", "wanted", "unwanted"),
    [
        ({}, ("HttpOnly", "SameSite=lax"), ("Secure", "Partitioned")),
        (
            {"public_url": "https://chat.example"},
            ("HttpOnly", "SameSite=lax", "Secure"),
            ("Partitioned",),
        ),
        (
            {"public_url": "https://chat.example", "chat_origins": (SHOP,)},
            ("HttpOnly", "SameSite=none", "Secure", "Partitioned"),
            (),
        ),
    ],
)
def test_the_cookie_crosses_sites_only_where_the_chat_is_embedded(changes, wanted, unwanted):
    from starlette.responses import Response

    from bots.web import Cookies

    response = Response()
    Cookies(WebChat.of(settings(**changes))).write(response, Visitor.new())

    cookie = response.headers["set-cookie"]
    assert all(word in cookie for word in wanted)
    assert not any(word in cookie for word in unwanted)


def test_sites_that_may_embed_the_chat_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("DESKHAND_CHAT_ORIGINS", "https://a.example/, http://localhost:3000")

    assert Settings().chat_origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize("origin", ["shop.example", "https://a.example/path", "https://a;b", "*"])
def test_a_site_that_is_no_origin_is_refused_at_start(origin):
    with pytest.raises(ValidationError, match="without a path"):
        settings(chat_origins=(origin,))


def test_a_cookie_signed_with_another_key_is_not_believed():
    from starlette.requests import Request
    from starlette.responses import Response

    from bots.web import Cookies

    response = Response()
    Cookies(WebChat(SecretStr("another key"))).write(response, Visitor("a", "b"))
    value = response.headers["set-cookie"].partition(";")[0]
    request = Request({"type": "http", "headers": [(b"cookie", value.encode())]})

    assert Cookies(WebChat(SecretStr("our key"))).read(request) is None
    assert Cookies(WebChat(SecretStr("another key"))).read(request) == Visitor("a", "b")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, None),
        ("", None),
        ("*", None),
        ("de", "de"),
        ("fr;q=0, en", "en"),
        ("en;q=0.8,zh-CN", "zh-CN"),
        ("en;q=what", None),
    ],
)
def test_the_best_liked_language_is_taken(header, language):
    assert preferred(header) == language
