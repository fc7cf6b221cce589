"""The chat page in a real browser, before a real gateway and database; replies are scripted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from core import conversations
from core.conversations import Desk
from core.db.connect import Database
from core.ports import Show
from core.types import Choice, Citation, Decision, MessageKind, Question, Reply, Tier
from tests.conftest import missing
from tests.end_to_end.stack import Stack
from tests.services import Server
from tests.storage.served import Stand, serving, stand
from tests.storage.spine import said

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 375, "height": 667}
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


@pytest.fixture
async def gateway(database: Database) -> AsyncIterator[Stand]:
    """A running gateway."""
    async with stand(database, chat_messages_per_minute=10) as running:
        running.scripted.does = reply
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser without a window."""
    if not HAS_CHROMIUM:
        missing("Chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def page(gateway: Stand, browser: Browser) -> AsyncIterator[Page]:
    """The chat as a visitor with a phone opens it; any error in its scripts fails the test."""
    async with watched_page(browser, f"{gateway.url}/chat", viewport=PHONE) as opened:
        yield opened


class watched_page:
    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self._browser, self._url, self._options = browser, url, options
        self._errors: list[str] = []

    async def __aenter__(self) -> Page:
        self._context = await self._browser.new_context(**{"locale": "en-US", **self._options})
        page = await self._context.new_page()
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        await page.goto(self._url)
        return page

    async def __aexit__(self, *_: object) -> None:
        await self._context.close()
        assert self._errors == []


async def reply(question: Question) -> Reply:
    if question.kind is MessageKind.PERSON:
        return said("A colleague comes.", Decision.HAND_OFF)
    text = f"**Yes**: {question.messages[-1]}"
    return Reply(
        Choice(Decision.ANSWER, "a test said so"),
        text,
        Tier.APPROVED,
        "en",
        is_markdown=True,
        citations=(
            Citation("e1", "Do you ship?", "https://shop.example/help"),
            Citation("e2", "No link", "javascript:alert(1)"),
        ),
        suggestions=("How long does it take?",),
    )


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Your message").fill(text)
    await page.keyboard.press("Enter")


async def test_a_visitor_asks_sees_the_work_and_gets_the_reply_with_its_sources(gateway, page):
    await expect(page.get_by_text("automated assistant and answer")).to_be_visible()
    gateway.doorbell.go.clear()

    await ask(page, "Do you ship?")

    await expect(page.locator(".mine .bubble")).to_have_text("Do you ship?")
    await expect(page.get_by_text("Looking for an answer")).to_be_visible()
    gateway.doorbell.go.set()
    await expect(page.locator(".ours strong")).to_have_text("Yes")
    await expect(page.get_by_text("Looking for an answer")).to_be_hidden()
    await expect(page.get_by_role("link", name="Do you ship?")).to_have_attribute(
        "href", "https://shop.example/help"
    )
    await expect(page.get_by_role("link", name="No link")).to_have_count(0)


async def test_sentences_are_shown_as_they_come_and_grow_into_the_reply(gateway, page):
    may_go_on, may_end = asyncio.Event(), asyncio.Event()

    async def writes(question: Question, show: Show) -> Reply:
        gateway.scripted.shows = None
        await show("It takes 3 days.")
        await may_go_on.wait()
        await show("Islands take 5.")
        await may_end.wait()
        whole = said("It takes 3 days. Islands take 5. Weekends do not count.")
        return replace(whole, citations=(Citation("e1", "How long does it take?"),))

    gateway.scripted.shows = writes
    await ask(page, "How long does it take?")

    bubble = page.locator(".ours .bubble").nth(1)
    await expect(bubble).to_have_text("It takes 3 days.")
    await expect(page.locator("#working")).to_contain_text("Writing")
    await page.evaluate("document.querySelectorAll('.ours')[1].dataset.mark = 'the same'")
    may_go_on.set()
    await expect(bubble).to_have_text("It takes 3 days. Islands take 5.")
    await ask(page, "And to Malta?")
    await expect(page.locator(".mine .bubble").nth(1)).to_have_text("And to Malta?")
    may_end.set()

    await expect(bubble).to_have_text("It takes 3 days. Islands take 5. Weekends do not count.")
    await expect(page.locator(".sources li").first).to_have_text("How long does it take?")
    assert await page.locator("[data-mark]").count() == 1, "the reply stands where it was begun"
    await expect(page.locator(".ours .bubble").nth(2)).to_have_text("Yes: And to Malta?")
    await expect(page.locator("#working")).to_be_hidden()


async def test_a_reload_in_the_middle_of_a_reply_shows_what_was_shown(gateway, page):
    may_end = asyncio.Event()

    async def writes(question: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        await may_end.wait()
        return said("It takes 3 days. Islands take 5.")

    gateway.scripted.shows = writes
    await ask(page, "How long does it take?")
    await expect(page.get_by_text("It takes 3 days.")).to_be_visible()

    await page.reload()

    await expect(page.get_by_text("It takes 3 days.")).to_have_count(1)
    may_end.set()
    await expect(page.locator(".ours .bubble").nth(1)).to_have_text(
        "It takes 3 days. Islands take 5."
    )


async def test_a_person_who_takes_over_leaves_what_was_shown_and_no_more(gateway, page):
    taken = asyncio.Event()

    async def writes(question: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        await taken.wait()
        await show("Islands take 5.")
        raise AssertionError("a person has the conversation")

    gateway.scripted.shows = writes
    await ask(page, "How long does it take?")
    await expect(page.get_by_text("It takes 3 days.")).to_be_visible()

    desk = Desk(gateway.database, gateway.doorbell, 3600.0)
    (held,) = await conversations.overview(gateway.database)
    await conversations.take(desk, str(held.id), "Ana")
    taken.set()
    await conversations.say(desk, str(held.id), "Ana", "Hello, this is Ana.")

    await expect(page.locator(".agent .bubble")).to_have_text("Hello, this is Ana.")
    await expect(page.get_by_text("It takes 3 days.")).to_have_count(1)
    await expect(page.get_by_text("Islands take 5.")).to_have_count(0)
    await page.reload()
    await expect(page.get_by_text("It takes 3 days.")).to_have_count(1)


async def test_the_options_of_a_question_back_are_named_as_answers(gateway, page):
    async def asks_back(_: Question) -> Reply:
        text = "Which one do you mean?\n1. Heron\n2. Lantern"
        return replace(said(text, Decision.CLARIFY), suggestions=("Heron", "Lantern"))

    gateway.scripted.does = asks_back
    await ask(page, "How much is it?")

    options = page.get_by_role("group", name="Please choose one")
    await expect(options.get_by_role("button")).to_have_text(["Heron", "Lantern"])
    await expect(page.get_by_role("group", name="You may also ask")).to_have_count(0)


async def test_a_suggestion_is_asked_when_it_is_pressed(gateway, page):
    await ask(page, "Do you ship?")

    await page.get_by_role("button", name="How long does it take?").click()

    await expect(page.locator(".mine .bubble").nth(1)).to_have_text("How long does it take?")
    await expect(page.locator(".ours strong")).to_have_count(2)
    await expect(page.get_by_role("button", name="How long does it take?")).to_have_count(1)


async def test_a_reply_is_rated_and_the_verdict_is_still_there_after_a_reload(gateway, page):
    await ask(page, "Do you ship?")

    await page.get_by_role("button", name="Helpful", exact=True).click()

    await expect(page.get_by_text("Thank you!")).to_be_visible()
    await expect(page.locator("[data-verdict=up]")).to_have_attribute("aria-pressed", "true")
    await page.reload()
    await expect(page.locator("[data-verdict=up]")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(".mine .bubble")).to_have_text("Do you ship?")


async def test_a_person_is_asked_for_takes_over_and_is_shown_by_name(gateway, page):
    await page.get_by_role("button", name="Ask for a person").click()
    await expect(page.get_by_text("A colleague comes.")).to_be_visible()
    await expect(page.locator("#holder")).to_have_text("A colleague will answer you here")

    desk = Desk(gateway.database, gateway.doorbell, 3600.0)
    (waiting,) = await conversations.overview(gateway.database)
    await conversations.take(desk, str(waiting.id), "Ana Pérez")
    await conversations.say(desk, str(waiting.id), "Ana Pérez", "Hello, this is Ana.")

    await expect(page.locator(".agent .name")).to_have_text("Ana Pérez")
    await expect(page.locator("#holder")).to_have_text("Ana Pérez is answering you")
    await ask(page, "Thank you, Ana!")
    await expect(page.locator(".mine .bubble").nth(1)).to_have_text("Thank you, Ana!")
    await expect(page.get_by_text("Looking for an answer")).to_be_hidden()


async def test_what_anybody_writes_is_shown_and_never_run(gateway, page):
    async def hostile(_: Question) -> Reply:
        literal = said(HOSTILE)
        return replace(literal, suggestions=(HOSTILE,), citations=(Citation("e", HOSTILE),))

    gateway.scripted.does = hostile

    await ask(page, HOSTILE)

    await expect(page.locator(".mine .bubble")).to_have_text(HOSTILE)
    await expect(page.locator(".ours .bubble").nth(1)).to_have_text(HOSTILE)
    await expect(page.locator(".sources li")).to_have_text(HOSTILE)
    await expect(page).to_have_title("Chat with us")
    await expect(page.locator("#thread img, #thread script")).to_have_count(0)


async def test_a_message_that_could_not_be_sent_is_sent_once_by_pressing_again(gateway, page):
    await expect(page.get_by_text("automated assistant and answer")).to_be_visible()
    await page.route("**/chat/messages", lambda route: route.fulfill(status=422, json={}))
    await ask(page, "Do you ship?")
    await expect(page.get_by_text("Not sent.")).to_be_visible()
    await page.unroute("**/chat/messages")

    await page.get_by_role("button", name="Try again").click()

    await expect(page.locator(".ours strong")).to_have_text("Yes")
    await expect(page.locator(".mine")).to_have_count(1)


async def test_a_post_whose_answer_was_lost_is_repeated_and_answered_once(gateway, page):
    lost = []

    async def lose_the_first(route: Any) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(await route.fetch())  # the gateway has it, the browser never knows
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/chat/messages", lose_the_first)

    await ask(page, "Do you ship?")

    await expect(page.locator(".ours strong")).to_have_text("Yes")
    await expect(page.locator('.mine[data-state=""]')).to_have_count(1)
    assert len(lost) == 1
    assert len(gateway.scripted.asked) == 1


async def test_what_is_written_offline_is_sent_when_the_visitor_is_back(gateway, page):
    await expect(page.get_by_text("automated assistant and answer")).to_be_visible()
    await page.context.set_offline(True)
    await expect(page.get_by_text("You are offline.")).to_be_visible()
    await ask(page, "Do you ship?")
    await expect(page.get_by_text("Not sent.")).to_be_visible()

    await page.context.set_offline(False)

    await expect(page.locator(".ours strong")).to_have_text("Yes")
    await expect(page.get_by_text("You are offline.")).to_be_hidden()


async def test_what_is_written_before_the_page_has_loaded_is_sent_then(gateway, browser):
    async with watched_page(browser, "about:blank", viewport=PHONE) as page:
        waiting: list[Any] = []
        await page.route("**/chat/start?*", lambda route: waiting.append(route))
        await page.goto(f"{gateway.url}/chat")
        await ask(page, "Do you ship?")
        await expect(page.locator(".mine .bubble")).to_have_text("Do you ship?")

        await waiting[0].continue_()

        await expect(page.locator(".ours strong")).to_have_text("Yes")
        await expect(page.locator("#thread > *").first).to_have_class(re.compile("greeting"))
        await expect(page.locator(".mine")).to_have_count(1)


async def test_a_restart_of_the_gateway_is_noticed_and_outlived(database, browser):
    async with AsyncExitStack() as visit:
        async with stand(database) as before:
            page = await visit.enter_async_context(watched_page(browser, f"{before.url}/chat"))
            await ask(page, "One?")
            await expect(page.locator(".ours .bubble").nth(1)).to_have_text("You asked: One?")
            port = int(before.url.rpartition(":")[2])
        await expect(page.get_by_text("Connecting again")).to_be_visible()
        await ask(page, "Two?")

        async with stand(database, port=port):
            await expect(page.locator(".ours .bubble").nth(2)).to_have_text(
                "You asked: Two?", timeout=20_000
            )
            await expect(page.get_by_text("Connecting again")).to_be_hidden(timeout=20_000)
            await expect(page.locator(".mine")).to_have_count(2)


async def test_a_second_tab_shows_the_same_conversation_live(gateway, page):
    await ask(page, "Do you ship?")
    await expect(page.locator(".ours strong")).to_have_count(1)
    other = await page.context.new_page()
    await other.goto(f"{gateway.url}/chat")
    await expect(other.locator(".ours strong")).to_have_count(1)

    await ask(page, "And abroad?")

    await expect(other.locator(".mine .bubble").nth(1)).to_have_text("And abroad?")
    await expect(other.locator(".ours strong")).to_have_count(2)


async def test_a_new_conversation_begins_empty(gateway, page):
    await ask(page, "Do you ship?")
    await expect(page.locator(".ours strong")).to_have_count(1)

    await page.get_by_role("button", name="New conversation").click()
    await page.get_by_role("button", name="Start anew").click()

    await expect(page.locator(".mine")).to_have_count(0)
    await ask(page, "Something else?")
    await expect(page.locator(".ours strong")).to_have_count(1)
    assert len(await conversations.overview(gateway.database)) == 2


async def test_enter_sends_shift_enter_breaks_the_line(gateway, page):
    await page.get_by_label("Your message").fill("One")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("Two")
    await page.keyboard.press("Enter")

    await expect(page.locator(".mine .bubble")).to_have_text("One\nTwo", use_inner_text=True)
    await expect(page.get_by_label("Your message")).to_be_focused()


@pytest.mark.models
async def test_the_sample_shop_answers_a_starter_and_a_follow_up(
    data_dir: Path, shop_url: str, valkey: Server, browser: Browser
):
    async with (
        Stack(data_dir, shop_url, valkey.url) as stack,
        watched_page(browser, f"{stack.url}/chat", viewport=PHONE) as page,
    ):
        await page.get_by_role("button", name="Where is my order?").click()
        first = page.locator(".ours:not(.greeting)").first
        await expect(first.locator(".sources")).to_contain_text(
            "Where is my order?", timeout=30_000
        )

        await ask(page, "And can I still change the address?")

        second = page.locator(".ours:not(.greeting)").nth(1)
        await expect(second.locator(".bubble")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize(
    ("locale", "title"),
    [
        ("zh-CN", "在线咨询"),
        ("de-AT", "Fragen Sie uns"),
        ("fr-FR", "Écrivez-nous"),
        ("es-MX", "Escríbanos"),
        ("ja-JP", "お問い合わせ"),
        ("pt-BR", "Chat with us"),
    ],
)
async def test_the_page_speaks_the_browsers_language(gateway, browser, locale, title):
    async with watched_page(browser, f"{gateway.url}/chat", locale=locale) as page:
        await expect(page.get_by_role("heading", level=1)).to_have_text(title)


@pytest.mark.parametrize("width", [320, 375, 1280])
async def test_nothing_is_wider_than_the_screen_and_the_field_stays_in_view(
    gateway, browser, width
):
    size = {"width": width, "height": 640}
    async with watched_page(browser, f"{gateway.url}/chat", viewport=size) as page:
        await ask(page, "Averylongwordwithoutanyspaces" * 20)
        await expect(page.locator(".ours strong")).to_have_count(1)

        widths = await page.evaluate(
            "[document.documentElement.scrollWidth, document.getElementById('log').scrollWidth"
            " - document.getElementById('log').clientWidth]"
        )
        box = await page.get_by_label("Your message").bounding_box()

    assert widths == [width, 0]
    assert box is not None
    assert box["y"] + box["height"] <= 640


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_against_its_ground(gateway, browser, scheme):
    async with watched_page(
        browser, f"{gateway.url}/chat", viewport=PHONE, color_scheme=scheme, reduced_motion="reduce"
    ) as page:
        await ask(page, "Do you ship?")
        await expect(page.locator(".ours strong")).to_have_count(1)

        ratios = await page.evaluate(CONTRASTS)

    assert ratios
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}


CONTRASTS = """
(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const color = parts(getComputedStyle(n).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !node.checkVisibility() || node.closest("noscript, .sr")) continue;
    const a = light(parts(getComputedStyle(node).color)), b = light(ground(node));
    found[text] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
})()
"""


async def test_the_chat_is_put_on_another_page_by_one_tag(database, browser):
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    shop = FastAPI()
    async with serving(shop) as shop_url, stand(database, chat_origins=(shop_url,)) as gateway:

        @shop.get("/", response_class=HTMLResponse)
        def home() -> str:
            return (
                "<!doctype html><title>Shop</title><body>"
                f'<script src="{gateway.url}/widget.js" defer></script>'
            )

        async with watched_page(browser, shop_url) as page:
            await page.get_by_role("button", name="Open the chat").click()
            chat = page.frame_locator("iframe")
            await chat.get_by_label("Your message").fill("Where?")
            await chat.get_by_role("button", name="Send").click()
            await expect(chat.locator(".ours .bubble").nth(1)).to_have_text("You asked: Where?")

            await chat.get_by_role("button", name="Close the chat").click()

            await expect(page.locator("iframe")).to_be_hidden()
            await expect(page.get_by_role("button", name="Open the chat")).to_be_focused()


async def test_a_site_that_is_not_listed_cannot_frame_the_chat(gateway, browser):
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    evil = FastAPI()

    @evil.get("/", response_class=HTMLResponse)
    def home() -> str:
        return f'<!doctype html><title>Evil</title><iframe src="{gateway.url}/chat"></iframe>'

    async with serving(evil) as evil_url, watched_page(browser, "about:blank") as page:
        refused = []
        page.on("console", lambda message: refused.append(message.text))

        await page.goto(evil_url)

        await expect(page.frame_locator("iframe").get_by_label("Your message")).to_have_count(0)
        assert any(re.search("frame-ancestors", text) for text in refused)
