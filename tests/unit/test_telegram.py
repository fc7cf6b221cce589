"""What the Telegram channel makes of updates, and how it lays out what it sends."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError
from telegram import Update
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, NetworkError

from bots.telegram import TelegramSettings, sending, wire
from bots.telegram.parsing import Identity, Ignored, parse
from core.errors import (
    ConfigurationError,
    PermanentError,
    TransientError,
    UncertainError,
)
from core.types import (
    Author,
    Citation,
    ConversationId,
    Delivery,
    DeliveryId,
    InboxId,
    Incoming,
    IncomingEdit,
    IncomingFeedback,
    IncomingMove,
    MessageId,
    MessageKind,
    Sender,
    Verdict,
)

ME = Identity(99, "DeskhandBot")
ADA = {"id": 42, "is_bot": False, "first_name": "Ada", "last_name": "L", "language_code": "de"}
PRIVATE = {"id": 42, "type": "private"}
GROUP = {"id": -100, "type": "supergroup", "title": "Friends"}
BOT = {"id": 99, "is_bot": True, "first_name": "Deskhand", "username": "DeskhandBot"}


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def entity(kind: str, text: str, piece: str) -> dict[str, Any]:
    return {"type": kind, "offset": units(text[: text.index(piece)]), "length": units(piece)}


def message(text: str | None = None, **fields: Any) -> dict[str, Any]:
    made = {"message_id": 7, "date": 1_700_000_000, "chat": PRIVATE, "from": ADA}
    return made | ({} if text is None else {"text": text}) | fields


def read(kind: str = "message", me: Identity = ME, **data: Any) -> Any:
    update = Update.de_json({"update_id": 5, kind: data}, None)
    return parse(update, me)


def said(text: str | None = None, me: Identity = ME, **fields: Any) -> Any:
    return read(me=me, **message(text, **fields))


def test_a_private_message_is_what_its_customer_said():
    incoming = said("Where is my parcel?")

    assert isinstance(incoming, Incoming)
    assert (incoming.event_id, incoming.message_id, incoming.chat) == ("5", "7", "42")
    assert incoming.text == "Where is my parcel?"
    assert incoming.sender == Sender("42", "Ada L", "de")
    assert incoming.private
    assert incoming.thread is None
    assert incoming.sent_at is not None
    assert incoming.sent_at.tzinfo is not None


def test_talk_in_a_group_that_names_nobody_is_none_of_our_business():
    assert isinstance(said("Who ate my cake?", chat=GROUP), Ignored)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("@DeskhandBot where is it?", "where is it?"),
        ("😀👨‍👩‍👧 @deskhandbot where is it?", "😀👨‍👩‍👧 where is it?"),
        ("where is it, @DeskhandBot", "where is it,"),
        ("where @DeskhandBot is it?", "where is it?"),
        ("@DeskhandBot", ""),
    ],
)
def test_a_mention_is_cut_out_exactly(text: str, left: str):
    name = next(word for word in text.split() if word.startswith("@"))

    incoming = said(text, chat=GROUP, entities=[entity("mention", text, name)])

    assert isinstance(incoming, Incoming)
    assert incoming.text == left
    assert not incoming.private


def test_a_mention_of_somebody_else_stays_and_does_not_address_the_bot():
    text = "@DeskhandBot2 hello"

    assert isinstance(
        said(text, chat=GROUP, entities=[entity("mention", text, "@DeskhandBot2")]), Ignored
    )


def test_a_mention_by_name_of_a_bot_without_user_name_counts():
    text = "Deskhand, help me"
    named = entity("text_mention", text, "Deskhand") | {"user": BOT}

    incoming = said(text, chat=GROUP, entities=[named])

    assert isinstance(incoming, Incoming)
    assert incoming.text == ", help me"


def test_a_reply_to_the_bot_in_a_group_is_for_the_bot():
    ours = message("We open at nine.", chat=GROUP) | {"from": BOT}

    assert isinstance(said("And on Sunday?", chat=GROUP, reply_to_message=ours), Incoming)


def test_a_reply_to_another_person_is_not():
    theirs = message("Hm.", chat=GROUP)

    assert isinstance(said("And on Sunday?", chat=GROUP, reply_to_message=theirs), Ignored)


def test_a_message_in_a_topic_that_the_bot_created_is_no_reply_to_the_bot():
    begun = message(chat=GROUP, forum_topic_created={"name": "Orders", "icon_color": 7322096}) | {
        "from": BOT
    }

    assert isinstance(said("Hi all", chat=GROUP, reply_to_message=begun), Ignored)


def test_a_topic_is_a_thread_and_a_chain_of_replies_is_not():
    text = "@DeskhandBot hi"
    mention = [entity("mention", text, "@DeskhandBot")]

    topic = said(text, chat=GROUP, entities=mention, message_thread_id=3, is_topic_message=True)
    chain = said(text, chat=GROUP, entities=mention, message_thread_id=3)

    assert (topic.thread, topic.conversation_key) == ("3", "-100#3")
    assert (chain.thread, chain.conversation_key) == (None, "-100")


@pytest.mark.parametrize(
    ("text", "kind", "left", "payload"),
    [
        ("/start", MessageKind.START, "/start", None),
        ("/start promo_2026-A", MessageKind.START, "/start promo_2026-A", "promo_2026-A"),
        ("/start@DeskhandBot promo", MessageKind.START, "/start promo", "promo"),
        ("/start where is my parcel?", MessageKind.TEXT, "where is my parcel?", None),
        ("/help", MessageKind.START, "/help", None),
        ("/human", MessageKind.PERSON, "/human", None),
        ("/track_order 123", MessageKind.TEXT, "track order 123", None),
    ],
)
def test_a_command_says_what_it_asks(text: str, kind: MessageKind, left: str, payload: str | None):
    command = entity("bot_command", text, text.split(" ")[0])

    incoming = said(text, entities=[command])

    assert (incoming.kind, incoming.text, incoming.payload) == (kind, left, payload)


@pytest.mark.parametrize("chat", [PRIVATE, GROUP])
def test_a_command_for_another_bot_meets_silence(chat: dict[str, Any]):
    text = "/help@otherbot"

    parsed = said(text, chat=chat, entities=[entity("bot_command", text, text)])

    assert isinstance(parsed, Ignored)


def test_a_plain_command_in_a_group_is_ours_only_in_privacy_mode():
    text = "/help"
    command = [entity("bot_command", text, text)]

    assert isinstance(said(text, chat=GROUP, entities=command), Incoming)
    assert isinstance(
        said(text, Identity(99, "DeskhandBot", reads_all=True), chat=GROUP, entities=command),
        Ignored,
    )


def test_a_caption_is_the_question():
    photo = [{"file_id": "a", "file_unique_id": "a", "width": 1, "height": 1}]
    caption = "😀 @DeskhandBot is this broken?"

    incoming = said(
        chat=GROUP,
        photo=photo,
        caption=caption,
        caption_entities=[entity("mention", caption, "@DeskhandBot")],
    )

    assert (incoming.kind, incoming.text) == (MessageKind.TEXT, "😀 is this broken?")


def test_a_voice_note_gets_a_polite_reply():
    voice = {"file_id": "a", "file_unique_id": "a", "duration": 2}

    incoming = said(voice=voice)

    assert (incoming.kind, incoming.text) == (MessageKind.UNREADABLE, "")


def test_an_album_without_words_counts_once():
    photo = [{"file_id": "a", "file_unique_id": "a", "width": 1, "height": 1}]

    first = said(photo=photo, media_group_id="77")
    second = said(photo=photo, media_group_id="77", message_id=8)

    assert first.kind is MessageKind.UNREADABLE
    assert first.event_id == second.event_id


@pytest.mark.parametrize(
    "fields",
    [
        {"new_chat_members": [ADA]},
        {"pinned_message": message("x")},
        {"group_chat_created": True},
        {"migrate_from_chat_id": -5},
    ],
)
def test_a_service_message_is_ignored(fields: dict[str, Any]):
    assert isinstance(said(chat=GROUP, **fields), Ignored)


def test_bots_are_not_answered():
    other = {"id": 8, "is_bot": True, "first_name": "Other"}

    assert isinstance(said("hello", **{"from": other}), Ignored)
    assert isinstance(said("hello", **{"from": BOT}), Ignored)


def test_an_anonymous_admin_is_answered_under_the_name_of_the_chat():
    text = "@DeskhandBot hi"
    stand_in = {"id": 1087968824, "is_bot": True, "first_name": "Group"}

    incoming = said(
        text,
        chat=GROUP,
        sender_chat=GROUP,
        entities=[entity("mention", text, "@DeskhandBot")],
        **{"from": stand_in},
    )

    assert incoming.sender == Sender("-100", "Friends")


def test_albums_and_forwarded_messages_are_bursts_and_a_plain_message_is_none():
    origin = {"type": "hidden_user", "date": 1_700_000_000, "sender_user_name": "Bob"}

    assert said("Is this broken?", media_group_id="9").is_burst
    assert said("Look at that.", forward_origin=origin).is_burst
    assert not said("Is this broken?").is_burst


def test_a_post_that_a_channel_forwards_into_its_group_is_ignored():
    assert isinstance(
        said("news", chat=GROUP, sender_chat=GROUP, is_automatic_forward=True), Ignored
    )


def test_an_edited_message_keeps_the_id_of_what_it_changes():
    parsed = read("edited_message", **message("Where is my order?", edit_date=1_700_000_009))

    assert isinstance(parsed, IncomingEdit)
    assert (parsed.message_id, parsed.text) == ("7", "Where is my order?")


def test_a_group_that_became_a_supergroup_is_followed_by_the_old_groups_notice():
    notice = message("", chat=GROUP) | {"migrate_to_chat_id": -1009}

    parsed = read("message", **{k: v for k, v in notice.items() if k != "text"})

    assert parsed == IncomingMove("-100", "-1009")


def test_an_update_of_an_unknown_kind_is_ignored():
    update = Update.de_json({"update_id": 5, "thing_of_tomorrow": {"a": 1}}, None)

    assert isinstance(parse(update, ME), Ignored)


def test_lone_surrogates_do_not_break_the_cutting():
    text = "\ud83d @DeskhandBot hi"
    mention = {"type": "mention", "offset": 2, "length": 12}

    incoming = said(text, chat=GROUP, entities=[mention])

    assert incoming.text == "\ud83d hi"


@pytest.mark.parametrize(("offset", "length"), [(900, 5), (-4, 2), (0, 0)])
def test_entities_beyond_the_text_do_no_harm(offset: int, length: int):
    wild = {"type": "mention", "offset": offset, "length": length}

    assert said("hello", entities=[wild]).text == "hello"


def pressed(data: str, **fields: Any) -> Any:
    keyboard = [[{"text": "How long does it take?", "callback_data": "q:0"}]]
    under = message("Which one?", reply_markup={"inline_keyboard": keyboard}) | {"from": BOT}
    query = {"id": "31", "from": ADA, "chat_instance": "1", "message": under, "data": data}
    return read("callback_query", **(query | fields))


def test_a_pressed_question_counts_as_that_customers_message():
    incoming = pressed("q:0")

    assert isinstance(incoming, Incoming)
    assert incoming.text == "How long does it take?"
    assert incoming.sender.id == "42"
    assert incoming.event_id == incoming.message_id == "press:31"


@pytest.mark.parametrize(
    "data", ["q:5", "q", "x:1", "r:up:no-id", "r:up", "", "r:maybe:" + "0" * 32]
)
def test_an_unknown_button_is_ignored(data: str):
    assert isinstance(pressed(data), Ignored)


def test_a_button_under_a_message_that_is_gone_is_ignored():
    gone = {"message_id": 7, "date": 0, "chat": PRIVATE}

    assert isinstance(pressed("q:0", message=gone), Ignored)


def test_a_rating_also_counts_under_a_message_that_is_gone():
    rated = uuid4()
    gone = {"message_id": 7, "date": 0, "chat": PRIVATE}

    feedback = pressed(f"r:down:{rated.hex}", message=gone)

    assert isinstance(feedback, IncomingFeedback)
    assert (feedback.verdict, feedback.message_id) == (Verdict.DOWN, rated)


# --- out -------------------------------------------------------------------------------------


def delivery(text: str, **fields: Any) -> Delivery:
    known: dict[str, Any] = {
        "id": DeliveryId(UUID(int=1)),
        "inbox_id": InboxId(1),
        "conversation_id": ConversationId(UUID(int=2)),
        "message_id": MessageId(UUID(int=3)),
        "chat": "42",
        "author": Author.BOT,
        "text": text,
    }
    return Delivery(**(known | fields))


def test_generated_text_is_literal_and_approved_text_is_rendered():
    words = "**Free** returns_within_30 days."

    (literal,) = sending.posts(delivery(words))
    (approved,) = sending.posts(delivery(words, is_markdown=True))

    assert (literal.text, literal.entities) == (words, ())
    assert approved.text == "Free returns_within_30 days."
    assert [(e.type, e.offset, e.length) for e in approved.entities] == [("bold", 0, 4)]


def test_nine_thousand_characters_become_several_posts_within_the_limit():
    text = "\n".join(f"Line {n} 😀 of a long answer." for n in range(350))

    parts = sending.posts(delivery(text, rateable=True))

    assert len(parts) > 2
    assert all(units(part.text) <= 4096 for part in parts)
    assert "\n".join(part.text for part in parts).split() == text.split()
    assert [part.buttons is None for part in parts] == [True] * (len(parts) - 1) + [False]


def test_all_callback_data_fits_in_sixty_four_bytes():
    (post,) = sending.posts(
        delivery("Which one?", suggestions=("问" * 300, "b") * 9, rateable=True)
    )

    assert post.buttons is not None
    buttons = [button for row in post.buttons.inline_keyboard for button in row]
    assert len(buttons) == sending.MOST_SUGGESTIONS + 2
    assert all(1 <= len(str(button.callback_data).encode()) <= 64 for button in buttons)
    assert all(len(button.text) <= sending.LABEL_LIMIT for button in buttons)


def test_sources_with_a_page_are_linked_once_each():
    cited = (
        Citation("1", "How long does shipping take?", "https://shop.example/shipping"),
        Citation("2", "How long does it take?", "https://shop.example/shipping"),
        Citation("3", "No page"),
        Citation("4", "Bad page", "javascript:alert(1)"),
    )

    (post,) = sending.posts(delivery("Two days.", citations=cited))

    assert post.text == "Two days.\n\n↗ How long does shipping take?"
    assert [e.url for e in post.entities] == ["https://shop.example/shipping"]


def test_replies_name_whom_they_answer_in_groups_only():
    group = delivery("Yes.", private=False, reply_to="7")

    parameters = sending.reply_parameters(group, 0)

    assert parameters is not None
    assert (parameters.message_id, parameters.allow_sending_without_reply) == (7, True)
    assert sending.reply_parameters(group, 1) is None
    assert sending.reply_parameters(delivery("Yes.", reply_to="7"), 0) is None
    assert sending.reply_parameters(delivery("Yes.", private=False, reply_to="press:1"), 0) is None


@pytest.mark.parametrize(
    ("error", "branch"),
    [
        (wire.TooManyRequests(3), TransientError),
        (ChatMigrated(-1009), PermanentError),
        (Forbidden("bot was blocked by the user"), PermanentError),
        (BadRequest("chat not found"), PermanentError),
        (InvalidToken("Unauthorized"), PermanentError),
        (NetworkError("Bad Gateway"), UncertainError),
        (TimeoutError(), UncertainError),
    ],
)
def test_errors_branch_by_what_the_sender_must_do(error: Any, branch: type[Exception]):
    assert isinstance(wire.translated(error, "42"), branch)


# --- settings --------------------------------------------------------------------------------


def settings(**fields: Any) -> TelegramSettings:
    given: dict[str, Any] = {"bot_token": "123:abc"} | fields
    return TelegramSettings(**given)


def test_polling_needs_nothing_but_a_token():
    assert settings().token() == "123:abc"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bot_token": ""}, "TELEGRAM_BOT_TOKEN"),
        ({"webhook_url": "https://bot.example/telegram/webhook"}, "TELEGRAM_WEBHOOK_SECRET"),
        ({"webhook_url": "http://bot.example/x", "webhook_secret": "s"}, "https://"),
        ({"webhook_url": "https://bot.example:99/x", "webhook_secret": "s"}, "port"),
        ({"webhook_url": "bot.example", "webhook_secret": "s"}, "TELEGRAM_WEBHOOK_URL"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(fields: dict[str, Any], named: str):
    with pytest.raises(ConfigurationError, match=named):
        settings(**fields).token()


@pytest.mark.parametrize(
    "fields",
    [{"webhook_secret": "späß"}, {"bot_token": "1:a b"}, {"api_url": "api.telegram.org"}],
)
def test_malformed_settings_are_refused_without_showing_secrets(fields: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        settings(**fields)

    assert "1:a b" not in str(refused.value)
    assert "späß" not in str(refused.value)


def test_an_update_that_cannot_be_read_keeps_its_id():
    payload = (
        b'{"ok": true, "result": [{"update_id": 5, "message": {"chat": 3}}, {"update_id": 6}]}'
    )

    answer = wire.Request.parse_json_payload(payload)

    assert answer["result"] == [{"update_id": 5}, {"update_id": 6}]
