"""What Slack sends, in our words; how a delivery looks there; which settings are refused."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from bots.slack import SlackSettings, sending, signing
from bots.slack.parsing import Command, Identity, Ignored, parse, plain_text
from core.errors import ConfigurationError
from core.types import (
    Author,
    Citation,
    ConversationId,
    Delivery,
    DeliveryId,
    InboxId,
    Incoming,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    MessageId,
    MessageKind,
    Verdict,
)
from tests.emulators.slack import BOT_ID, BOT_USER, Post, SlackEmulator

KNOWN = Identity(BOT_USER, BOT_ID)
UNKNOWN = Identity()


@pytest.fixture
def slack() -> SlackEmulator:
    return SlackEmulator()


def a_delivery(text: str = "Hello", **more: Any) -> Delivery:
    delivery = Delivery(
        id=DeliveryId(uuid4()),
        inbox_id=InboxId(1),
        conversation_id=ConversationId(uuid4()),
        message_id=MessageId(uuid4()),
        chat="C0001",
        author=Author.BOT,
        text=text,
    )
    return replace(delivery, **more)


# --- events ------------------------------------------------------------------------------------


def test_a_mention_in_a_channel_is_answered_in_a_thread_under_it(slack: SlackEmulator) -> None:
    event = slack.mention("where is my parcel?")

    parsed = parse(event.payload, KNOWN)

    assert isinstance(parsed, Incoming)
    assert (parsed.chat, parsed.thread, parsed.message_id) == ("C0001", event.ts, event.ts)
    assert parsed.text == "where is my parcel?"
    assert parsed.addressed
    assert not parsed.private
    assert parsed.event_id == event.payload["event_id"]


@pytest.mark.parametrize("identity", [KNOWN, UNKNOWN])
def test_a_mention_and_its_message_twin_say_the_same(
    slack: SlackEmulator, identity: Identity
) -> None:
    mention = slack.mention("where is my parcel?")

    first = parse(mention.payload, identity)
    second = parse(slack.twin(mention).payload, identity)

    assert isinstance(first, Incoming)
    assert isinstance(second, Incoming)
    assert replace(second, event_id=first.event_id) == first


def test_a_direct_message_is_answered_where_it_was_written(slack: SlackEmulator) -> None:
    plain = parse(slack.direct("hello").payload, KNOWN)
    parent = slack.direct("first").ts
    threaded = parse(slack.direct("hello", thread_ts=parent).payload, KNOWN)

    assert isinstance(plain, Incoming)
    assert isinstance(threaded, Incoming)
    assert plain.private
    assert plain.addressed
    assert plain.thread is None
    assert threaded.thread == parent


def test_a_reply_in_a_thread_is_for_us_only_if_the_thread_is(slack: SlackEmulator) -> None:
    parent = slack.mention("first").ts

    reply = parse(slack.message("and the blue one?", thread_ts=parent).payload, KNOWN)
    mention = parse(slack.mention("and the blue one?", thread_ts=parent).payload, KNOWN)

    assert isinstance(reply, Incoming)
    assert isinstance(mention, Incoming)
    assert (reply.addressed, mention.addressed) == (False, True)
    assert reply.conversation_key == mention.conversation_key == f"C0001#{parent}"


def test_talk_in_a_channel_without_a_mention_is_ignored(slack: SlackEmulator) -> None:
    assert isinstance(parse(slack.message("lunch?").payload, KNOWN), Ignored)


@pytest.mark.parametrize(
    "more",
    [
        {"bot_id": "B0OTHER"},
        {"bot_profile": {"id": "B0OTHER"}},
        {"subtype": "bot_message"},
        {"user": BOT_USER},
        {"user": "USLACKBOT"},
        {"subtype": "message_changed", "hidden": True},
        {"subtype": "message_deleted", "hidden": True},
        {"subtype": "channel_join"},
        {"user": None},
        {"ts": "1\u0000"},
        {"channel": {"id": "C1"}},
    ],
)
def test_bots_and_slacks_own_notices_are_ignored(
    slack: SlackEmulator, more: dict[str, Any]
) -> None:
    payload = slack.direct("hello").payload
    payload["event"].update(more)

    assert isinstance(parse(payload, KNOWN), Ignored)


def test_an_edited_message_has_the_first_ones_ts_and_its_new_words(slack: SlackEmulator) -> None:
    said = slack.mention("where is my pracel?")

    parsed = parse(slack.edited(said, f"<@{BOT_USER}> where is my parcel?").payload, KNOWN)

    assert parsed == IncomingEdit("C0001", said.ts, "where is my parcel?")


def test_a_link_preview_changes_no_words(slack: SlackEmulator) -> None:
    said = slack.direct("see https://example.com")
    event = slack.edited(said, "see https://example.com")
    event.payload["event"]["message"]["attachments"] = [{"title": "Example"}]

    assert isinstance(parse(event.payload, KNOWN), Ignored)


def test_our_own_post_that_changes_is_ignored(slack: SlackEmulator) -> None:
    said = slack.direct("hello", bot_id="B0OTHER")

    assert isinstance(parse(slack.edited(said, "hello again").payload, KNOWN), Ignored)


def test_a_message_that_is_taken_back_is_named_by_its_ts(slack: SlackEmulator) -> None:
    said = slack.direct("where is my parcel?")
    gone = slack.edited(said, "This message was deleted.")
    gone.payload["event"]["message"]["subtype"] = "tombstone"

    expected = IncomingDeletion(said.payload["event"]["channel"], said.ts)
    assert parse(slack.deleted(said).payload, KNOWN) == expected
    assert parse(gone.payload, KNOWN) == expected


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"type": "event_callback"},
        {"type": "event_callback", "event": []},
        {"type": "event_callback", "event": {"type": "app_home_opened"}},
        {"type": "event_callback", "event": {"type": "never_heard_of"}, "authorizations": 3},
        {"type": "app_rate_limited"},
        {"type": "view_submission"},
        {"type": "block_actions", "actions": []},
        {"type": "block_actions", "actions": [{"action_id": "deskhand_suggestion:0"}]},
        {"command": "/deskhand", "text": "hi"},
    ],
)
def test_what_is_not_for_us_is_ignored(payload: dict[str, Any]) -> None:
    assert isinstance(parse(payload, KNOWN), Ignored)


def test_a_file_with_words_is_a_question_and_one_without_is_unreadable(
    slack: SlackEmulator,
) -> None:
    files = [{"id": "F1"}]
    said = slack.direct("is this broken?", subtype="file_share", files=files)
    silent = slack.direct("", subtype="file_share", files=files)

    with_words, without = parse(said.payload, KNOWN), parse(silent.payload, KNOWN)

    assert isinstance(with_words, Incoming)
    assert isinstance(without, Incoming)
    assert (with_words.text, with_words.kind) == ("is this broken?", MessageKind.TEXT)
    assert without.kind is MessageKind.UNREADABLE


def test_an_over_long_text_is_cut(slack: SlackEmulator) -> None:
    parsed = parse(slack.direct("x" * 20_000).payload, KNOWN)

    assert isinstance(parsed, Incoming)
    assert len(parsed.text) == 8_000


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("&lt;b&gt; &amp; <https://x.example|y>", "<b> & y (https://x.example)"),
        ("<@U0BOT> hi", "hi"),
        ("hi <@U0BOT|deskhand> there", "hi  there"),
        ("ask <@U0002> or <@U0003|bob>", "ask @U0002 or @bob"),
        ("<#C1|general> <!here> <!subteam^S1|@team>", "#general @here @team"),
        ("<!date^1^{date}|Feb 18>", "Feb 18"),
        ("<http://shop.example|shop.example>", "shop.example"),
        ("<https://shop.example/a?b=1&amp;c=2>", "https://shop.example/a?b=1&c=2"),
        ("<mailto:me@shop.example|me@shop.example>", "me@shop.example"),
        ("&amp;lt;", "&lt;"),
        ("2 < 3", "2 < 3"),
    ],
)
def test_slacks_notation_becomes_plain_text(sent: str, read: str) -> None:
    assert plain_text(sent, {BOT_USER}) == read


# --- interactions and commands -----------------------------------------------------------------


def a_post(**more: Any) -> Post:
    delivery = a_delivery(suggestions=("How do I return it?",), rateable=True, **more)
    made = sending.post(delivery, 0)
    return Post("C0001", "5.000001", made["text"], BOT_USER, made["blocks"], delivery.thread)


def test_a_pressed_suggestion_is_the_customers_message(slack: SlackEmulator) -> None:
    press = slack.press(a_post(thread="4.000001"), "How do I return it?")

    first, again = parse(press, KNOWN), parse(press, KNOWN)

    assert isinstance(first, Incoming)
    assert first == again
    assert (first.text, first.thread, first.sender.id) == (
        "How do I return it?",
        "4.000001",
        "U0001",
    )
    action_ts = press["actions"][0]["action_ts"]
    assert first.event_id == f"press:U0001:5.000001:{action_ts}"


def test_thumbs_are_feedback_on_the_reply_under_which_they_stand(slack: SlackEmulator) -> None:
    rated = MessageId(uuid4())

    parsed = parse(slack.press(a_post(message_id=rated), "👎"), KNOWN)

    assert isinstance(parsed, IncomingFeedback)
    assert (parsed.verdict, parsed.message_id) == (Verdict.DOWN, rated)
    assert parsed.external_id == "5.000001"


def test_a_command_is_answered_in_the_direct_conversation(slack: SlackEmulator) -> None:
    here = parse(slack.command("where are you?", channel="D0001"), KNOWN)
    elsewhere = parse(slack.command("where are you?"), KNOWN)

    assert isinstance(here, Command)
    assert isinstance(elsewhere, Command)
    assert here.incoming is not None
    assert elsewhere.incoming is not None
    assert (here.incoming.chat, elsewhere.incoming.chat) == ("D0001", "U0001")
    assert parse(slack.command("  "), KNOWN) == Command(None)


# --- signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"x-slack-signature": "v0=" + "0" * 64}, "a wrong signature"),
        ({"x-slack-signature": "v0=ß"}, "a wrong signature"),
        ({"x-slack-signature": ""}, "no signature"),
        ({"x-slack-request-timestamp": ""}, "no signature"),
        ({"x-slack-request-timestamp": "today"}, "a timestamp that is no number"),
        ({"x-slack-request-timestamp": "²"}, "a timestamp that is no number"),
        ({"x-slack-request-timestamp": "9" * 400}, "a timestamp that is no number"),
    ],
)
def test_a_request_is_refused_for_a_reason(changes: dict[str, str], why: str | None) -> None:
    slack = SlackEmulator(clock=lambda: 1_000_000.0)
    call = slack.signed({"type": "event_callback"})
    headers = {name.lower(): value for name, value in call["headers"].items()} | changes

    refused = signing.refusal(slack.signing_secret, headers, call["content"], 1_000_000.0)

    assert refused == why


@pytest.mark.parametrize(
    ("skew", "accepted"), [(-300, True), (-301, False), (300, True), (301, False)]
)
def test_a_signature_is_good_for_five_minutes(skew: float, accepted: bool) -> None:
    slack = SlackEmulator(clock=lambda: 1_000_000.0)
    call = slack.signed({"type": "event_callback"}, skew=skew)
    headers = {name.lower(): value for name, value in call["headers"].items()}

    refused = signing.refusal(slack.signing_secret, headers, call["content"], 1_000_000.0)

    assert (refused is None) == accepted


def test_without_a_secret_everything_is_refused() -> None:
    assert signing.refusal(None, {}, b"", time.time()) == "no signing secret is set"


# --- what is sent ------------------------------------------------------------------------------


def shown(post: dict[str, Any]) -> Post:
    return Post("C0001", "1.0", post["text"], BOT_USER, post.get("blocks", []))


@pytest.mark.parametrize(
    "text", ["<!channel> <@U0001> *no* _no_ ~no~ `no` 1 < 2 & 3.", "a_b_c * d"]
)
@pytest.mark.parametrize("plain", [False, True])
def test_literal_words_are_shown_as_they_stand_and_ping_nobody(text: str, plain: bool) -> None:
    post = (sending.plain_post if plain else sending.post)(a_delivery(text), 0)

    assert shown(post).shown == text
    assert shown(post).pings == []
    assert post["mrkdwn"] is False
    assert post["link_names"] is False


def test_an_approved_answers_markdown_is_rendered_and_pings_nobody() -> None:
    answer = "**Free** for [members](https://shop.example/m). <!channel>\n\n- one\n- *two*"

    post = sending.post(a_delivery(answer, is_markdown=True), 0)

    (block,) = post["blocks"]
    section, items = block["elements"]
    assert section["elements"][0] == {"type": "text", "text": "Free", "style": {"bold": True}}
    assert section["elements"][2]["url"] == "https://shop.example/m"
    assert items["type"] == "rich_text_list"
    assert shown(post).pings == []
    assert post["text"].startswith("*Free* for <https://shop.example/m|members>. &lt;!channel&gt;")


def test_a_long_text_becomes_several_posts_with_the_buttons_under_the_last() -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "words & more " * 20 for number in range(30))
    delivery = a_delivery(text, suggestions=("More?",), rateable=True)

    posts = [sending.post(delivery, part) for part in range(len(sending.parts(delivery)))]

    assert len(posts) > 2
    assert all(len(post["text"]) <= 4_000 for post in posts)
    assert [bool(shown(post).buttons()) for post in posts] == [False] * (len(posts) - 1) + [True]
    assert "\n".join(shown(post).shown for post in posts).split() == text.split()
    assert len({post["client_msg_id"] for post in posts}) == len(posts)
    assert [post["metadata"]["event_payload"]["part"] for post in posts] == list(range(len(posts)))


def test_sources_are_links_to_the_pages_of_the_cited_entries() -> None:
    citations = (
        Citation("1", "How do I *return* it?", "https://shop.example/returns"),
        Citation("2", "No page"),
        Citation("3", "Bad page", "javascript:alert(1)"),
    )

    post = sending.post(a_delivery("So.", citations=citations), 0)

    links = [e for e in post["blocks"][0]["elements"][0]["elements"] if e["type"] == "link"]
    assert [(link["url"], link["text"]) for link in links] == [
        ("https://shop.example/returns", "How do I *return* it?")
    ]


def test_a_reply_stands_in_its_thread_and_unfurls_nothing() -> None:
    threaded, direct = (sending.post(a_delivery(thread=thread), 0) for thread in ("1.2", None))

    assert threaded["thread_ts"] == "1.2"
    assert "thread_ts" not in direct
    assert (direct["unfurl_links"], direct["unfurl_media"]) == (False, False)


def test_buttons_keep_to_slacks_limits() -> None:
    questions = (" ", *(f"{number} " + "long " * 600 for number in range(30)))

    buttons = shown(sending.post(a_delivery(suggestions=questions), 0)).buttons()

    assert 0 < len(buttons) <= 25
    assert all(len(button["text"]["text"]) <= 75 for button in buttons)
    assert all(len(button["value"]) <= 2_000 for button in buttons)


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"bot_token": "xoxb-1"}, "SLACK_SIGNING_SECRET"),
        ({"app_token": "xapp-1"}, "SLACK_BOT_TOKEN"),
        ({"bot_token": "xapp-1", "signing_secret": "s"}, "SLACK_BOT_TOKEN"),
        ({"bot_token": "xoxb-1", "app_token": "xoxb-1"}, "SLACK_APP_TOKEN"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SlackSettings.model_validate(given).check()


@pytest.mark.parametrize(
    "given", [{"bot_token": "xoxb-1\nx"}, {"api_url": "slack.com/api/"}, {"unknown": "x"}]
)
def test_a_malformed_setting_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        SlackSettings.model_validate(given)


def test_empty_settings_are_missing_ones_and_the_address_ends_in_a_slash() -> None:
    settings = SlackSettings.model_validate(
        {"bot_token": "", "app_token": "", "api_url": "http://localhost:1/api"}
    )

    assert settings.bot_token is None
    assert settings.api_url == "http://localhost:1/api/"
    settings.check()
