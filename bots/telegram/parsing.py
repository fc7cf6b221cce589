"""From Telegram's updates to our words; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from telegram import (
    CallbackQuery,
    Chat,
    Message,
    MessageEntity,
    MessageReactionUpdated,
    ReactionTypeEmoji,
    Update,
    User,
)
from telegram.constants import ChatType

from core.types import (
    Incoming,
    IncomingChange,
    IncomingEdit,
    IncomingFeedback,
    IncomingMove,
    MessageId,
    MessageKind,
    Sender,
    Verdict,
)

WITHOUT_WORDS = (
    "voice",
    "audio",
    "photo",
    "video",
    "video_note",
    "animation",
    "document",
    "sticker",
    "location",
    "venue",
    "contact",
    "poll",
    "dice",
    "story",
)
"""What a person may send instead of words; everything else without text is a service message."""

DEEP_LINK_PAYLOAD = re.compile(r"[A-Za-z0-9_-]{1,64}")

THUMBS = {"👍": Verdict.UP, "👎": Verdict.DOWN}

SUGGESTION = "q"
"""Callback data `q:<n>`: the button's own label is the question."""
RATING = "r"
"""Callback data `r:<up|down>:<our message id as 32 hex digits>`; 64 bytes are the limit."""


@dataclass(frozen=True)
class Identity:
    """Who the bot is; `reads_all` tells that its privacy mode in groups is off."""

    id: int
    username: str
    reads_all: bool = False

    def is_named(self, name: str) -> bool:
        """Tell whether a user name is the bot's; Telegram ignores case."""
        return name.lower() == self.username.lower()


@dataclass(frozen=True)
class Ignored:
    """An update that asks for nothing, and why."""

    reason: str


Parsed = Incoming | IncomingFeedback | IncomingChange | Ignored


def parse(update: Update, me: Identity) -> Parsed:
    """Return what a customer did, or why it is nothing for us."""
    if update.callback_query is not None:
        return _press(update.callback_query)
    if update.edited_message is not None:
        return _edited(update, update.edited_message, me)
    if update.message_reaction is not None:
        return _reacted(update, update.message_reaction)
    if update.message is not None and update.message.migrate_to_chat_id:
        moved_to = str(update.message.migrate_to_chat_id)
        return IncomingMove(str(update.message.chat.id), moved_to)
    if update.message is not None:
        return _said(update, update.message, me)
    return Ignored("an update of a kind that is not used")


def is_private(update: Update) -> bool:
    """Tell whether an update comes from a one-to-one chat."""
    chat = update.effective_chat
    return chat is not None and chat.type == ChatType.PRIVATE


# --- words -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """A text or caption with its entities, whose offsets count UTF-16 units."""

    text: str
    entities: Sequence[MessageEntity] = ()

    def piece(self, entity: MessageEntity) -> str:
        units = _units(self.text)
        return _text(units[entity.offset * 2 : (entity.offset + entity.length) * 2])

    def without(self, entities: Sequence[MessageEntity]) -> str:
        """Return the text without some pieces, and without the gap that each leaves."""
        units = _units(self.text)
        for entity in sorted(entities, key=lambda entity: entity.offset, reverse=True):
            before = _text(units[: entity.offset * 2])
            after = _text(units[(entity.offset + entity.length) * 2 :])
            if not before or before[-1].isspace():
                after = after.lstrip(" ")
            units = _units(before + after)
        return _text(units).strip()


def _units(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def _text(units: bytes) -> str:
    return units.decode("utf-16-le", "surrogatepass")


def _words(message: Message) -> _Words | None:
    if message.text is not None:
        return _Words(message.text, message.entities)
    if message.caption is not None:
        return _Words(message.caption, message.caption_entities)
    return None


def _mentions(words: _Words, me: Identity) -> list[MessageEntity]:
    """Return the entities that name the bot."""
    return [
        entity
        for entity in words.entities
        if (entity.type == MessageEntity.MENTION and me.is_named(words.piece(entity)[1:]))
        or (
            entity.type == MessageEntity.TEXT_MENTION
            and entity.user is not None
            and entity.user.id == me.id
        )
    ]


@dataclass(frozen=True)
class _Command:
    """`/name@bot arguments` at the beginning of a text; `bot` is empty if it names none."""

    name: str
    bot: str
    arguments: str


def _command(words: _Words | None) -> _Command | None:
    if words is None:
        return None
    for entity in words.entities:
        if entity.type == MessageEntity.BOT_COMMAND and entity.offset == 0:
            name, _, bot = words.piece(entity)[1:].partition("@")
            return _Command(name.lower(), bot, words.without([entity]))
    return None


# --- messages --------------------------------------------------------------------------------


def _said(update: Update, message: Message, me: Identity) -> Incoming | Ignored:
    words = _words(message)
    command = _command(words)
    if reason := _not_for_us(message, words, command, me):
        return Ignored(reason)
    sender = _sender(message)
    if sender is None:
        return Ignored("a message of nobody")
    incoming = Incoming(
        event_id=str(update.update_id),
        message_id=str(message.message_id),
        chat=str(message.chat.id),
        sender=sender,
        text="",
        thread=_topic(message),
        sent_at=message.date,
        private=message.chat.type == ChatType.PRIVATE,
        is_burst=message.media_group_id is not None or message.forward_origin is not None,
    )
    if words is None:
        return _unreadable(incoming, message)
    if command is not None:
        return _commanded(incoming, command)
    return replace(incoming, text=words.without(_mentions(words, me)))


def _edited(update: Update, message: Message, me: Identity) -> IncomingEdit | Ignored:
    """An edit has the first version's id; Telegram also tells of changes that nobody sees."""
    said = _said(update, message, me)
    if isinstance(said, Ignored):
        return said
    if said.kind is not MessageKind.TEXT:
        return Ignored("an edit without words")
    return IncomingEdit(said.chat, said.message_id, said.text)


def _not_for_us(
    message: Message, words: _Words | None, command: _Command | None, me: Identity
) -> str | None:
    """Return why a message asks nothing of the bot, or None if it does."""
    # With `sender_chat` (an anonymous admin, a channel) `from` is a stand-in that is a bot.
    if message.from_user is not None and message.from_user.is_bot and message.sender_chat is None:
        return "a message of a bot"
    if message.is_automatic_forward or message.chat.type == ChatType.CHANNEL:
        return "a post of a channel"
    if message.migrate_to_chat_id or message.migrate_from_chat_id:
        return "a group became a supergroup"  # the old group's own message names both ids
    if words is None and not any(getattr(message, kind) for kind in WITHOUT_WORDS):
        return "a service message"
    if command is not None and command.bot and not me.is_named(command.bot):
        return "a command for another bot"
    if message.chat.type != ChatType.PRIVATE and not _addressed(message, words, command, me):
        return "talk in a group that is not addressed to the bot"
    return None


def _addressed(
    message: Message, words: _Words | None, command: _Command | None, me: Identity
) -> bool:
    if words is not None and _mentions(words, me):
        return True
    if command is not None and (command.bot or not me.reads_all):
        # In privacy mode Telegram passes on a command without a name only if it is for us.
        return True
    replied = message.reply_to_message
    if replied is None or replied.from_user is None:
        return False
    # In a topic every message "replies" to the topic's beginning, which the bot may have made.
    return replied.from_user.id == me.id and replied.forum_topic_created is None


def _unreadable(incoming: Incoming, message: Message) -> Incoming:
    if message.media_group_id is None:
        return replace(incoming, kind=MessageKind.UNREADABLE)
    # An album is one message a picture: those without a caption count once.
    album = f"album:{message.media_group_id}"
    return replace(incoming, kind=MessageKind.UNREADABLE, event_id=album, message_id=album)


def _commanded(incoming: Incoming, command: _Command) -> Incoming:
    """Return what a command asks; of the unknown ones the words count."""
    rest = command.arguments
    if command.name == "start" and DEEP_LINK_PAYLOAD.fullmatch(rest):
        return replace(incoming, kind=MessageKind.START, text=f"/start {rest}", payload=rest)
    if command.name in ("start", "help"):
        if rest:
            return replace(incoming, text=rest)
        return replace(incoming, kind=MessageKind.START, text=f"/{command.name}")
    if command.name == "human":
        return replace(incoming, kind=MessageKind.PERSON, text=rest or "/human")
    return replace(incoming, text=f"{command.name.replace('_', ' ')} {rest}".strip())


def _topic(message: Message) -> str | None:
    """Return the forum topic; `message_thread_id` alone also marks chains of replies."""
    if message.is_topic_message and message.message_thread_id is not None:
        return str(message.message_thread_id)
    return None


def _sender(message: Message) -> Sender | None:
    if message.sender_chat is not None:
        return _of_chat(message.sender_chat)
    return None if message.from_user is None else _of_user(message.from_user)


def _of_chat(chat: Chat) -> Sender:
    return Sender(id=str(chat.id), name=chat.title or chat.username or "")


def _of_user(user: User) -> Sender:
    return Sender(id=str(user.id), name=user.full_name, locale=user.language_code)


# --- buttons ---------------------------------------------------------------------------------


def _reacted(update: Update, reaction: MessageReactionUpdated) -> IncomingFeedback | Ignored:
    """Read a thumb that is new under a message; whether that is ours is known where posts are."""
    before = _thumbs(reaction.old_reaction)
    verdicts = [verdict for verdict in _thumbs(reaction.new_reaction) if verdict not in before]
    if reaction.user is None or reaction.user.is_bot or not verdicts:
        return Ignored("a reaction that is no verdict")
    return IncomingFeedback(
        event_id=f"reaction:{update.update_id}",
        chat=str(reaction.chat.id),
        sender=_of_user(reaction.user),
        verdict=verdicts[0],
        external_id=str(reaction.message_id),
    )


def _thumbs(reactions: Sequence[object]) -> list[Verdict]:
    emoji = [r.emoji for r in reactions if isinstance(r, ReactionTypeEmoji)]
    return [THUMBS[each] for each in emoji if each in THUMBS]


def _press(query: CallbackQuery) -> Incoming | IncomingFeedback | Ignored:
    if query.from_user.is_bot:
        return Ignored("a press of a bot")
    if query.message is None:
        return Ignored("a button without its message")
    match (query.data or "").split(":"):
        case [kind, "up" | "down" as verdict, rated] if kind == RATING:
            return _rating(query, query.message.chat, Verdict(verdict), rated)
        case [kind, _] if kind == SUGGESTION and isinstance(query.message, Message):
            return _suggestion(query, query.message)
        case _:
            return Ignored("a button that is not known")


def _rating(
    query: CallbackQuery, chat: Chat, verdict: Verdict, rated: str
) -> IncomingFeedback | Ignored:
    if not re.fullmatch("[0-9a-f]{32}", rated):
        return Ignored("a rating of nothing")
    return IncomingFeedback(
        event_id=f"press:{query.id}",
        chat=str(chat.id),
        sender=_of_user(query.from_user),
        verdict=verdict,
        message_id=MessageId(UUID(rated)),
    )


def _suggestion(query: CallbackQuery, message: Message) -> Incoming | Ignored:
    """A pressed question counts as if the customer had written it."""
    markup = message.reply_markup
    labels = [
        button.text
        for row in (markup.inline_keyboard if markup else ())
        for button in row
        if button.callback_data == query.data
    ]
    if not labels:
        return Ignored("a button that is no longer there")
    return Incoming(
        # Once per press, whatever the update's id; presses have no message of their own.
        event_id=f"press:{query.id}",
        message_id=f"press:{query.id}",
        chat=str(message.chat.id),
        sender=_of_user(query.from_user),
        text=labels[0].removesuffix("…"),
        thread=_topic(message),
        private=message.chat.type == ChatType.PRIVATE,
    )
