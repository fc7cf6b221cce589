"""From Slack's events, interactions and commands to our words; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.types import (
    TEXT_LIMIT_CHARACTERS,
    Incoming,
    IncomingChange,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    MessageId,
    MessageKind,
    Sender,
    Verdict,
)

SUGGESTION = "deskhand_suggestion"
FEEDBACK = "deskhand_feedback"
"""How the `action_id`s of our buttons begin."""

THUMBS = {
    "+1": Verdict.UP, "thumbsup": Verdict.UP, "-1": Verdict.DOWN, "thumbsdown": Verdict.DOWN,
}  # fmt: skip

Payload = Mapping[str, Any]

SPOKEN = {"", "file_share", "thread_broadcast"}
"""Subtypes of what a person said; all others are Slack's own notices."""


@dataclass(frozen=True)
class Identity:
    """Who we are in the workspace; empty until `auth.test` has answered."""

    user: str = ""
    bot: str = ""


@dataclass(frozen=True)
class Ignored:
    """Nothing for us, and why."""

    reason: str


@dataclass(frozen=True)
class Command:
    """A slash command, and where its answer is shown."""

    incoming: Incoming | None
    """None: it carried no words."""


@dataclass(frozen=True)
class Uninstalled:
    """The workspace took our access away, and how."""

    trouble: str


@dataclass(frozen=True)
class Opened:
    """Somebody opened the assistant's pane: an empty thread of their direct conversation."""

    chat: str
    thread: str


Parsed = Incoming | IncomingFeedback | IncomingChange | Command | Opened | Uninstalled | Ignored


def parse(body: Payload, identity: Identity) -> Parsed:
    """Return what a request of Slack's means.

    Args:
        body: An Events API envelope, an interaction's payload, or a command's fields.
        identity: Who we are; an envelope's `authorizations` tell it too.
    """
    kind = _word(body, "type")
    if kind == "event_callback":
        return _parse_event(body, identity)
    if kind == "block_actions":
        return _parse_press(body)
    if "command" in body and not kind:
        return _parse_command(body)
    return Ignored(f"a request of type {kind or 'unknown'}")


# --- events ------------------------------------------------------------------------------------


def _parse_event(body: Payload, identity: Identity) -> Parsed:
    event = _mapping(body, "event")
    match kind := _word(event, "type"):
        case "message" | "app_mention":
            return _parse_message(body, event, identity)
        case "reaction_added":
            return _reacted(body, event)
        case "assistant_thread_started":
            return _opened(_mapping(event, "assistant_thread"))
        case "app_uninstalled":
            return Uninstalled("The app was removed from the Slack workspace; install it again.")
        case "tokens_revoked" if _mapping(event, "tokens").get("bot"):
            return Uninstalled("The Slack bot token was revoked; install the app again.")
        case _:
            return Ignored(f"an event of type {kind or 'unknown'}")


def _parse_message(
    body: Payload, event: Payload, identity: Identity
) -> Incoming | IncomingChange | Ignored:
    subtype = _word(event, "subtype")
    ours = _our_users(body, identity)
    if subtype == "message_changed":
        return _changed(event, ours, identity)
    if subtype == "message_deleted":
        return _deletion(event, _id(event, "deleted_ts"))
    if subtype not in SPOKEN:
        return Ignored(f"a message of subtype {subtype}")
    if _is_from_bot(event, ours, identity):
        return Ignored("a bot's message")
    return _read_message(body, event, ours)


def _changed(
    event: Payload, ours: set[str], identity: Identity
) -> IncomingEdit | IncomingDeletion | Ignored:
    """Read a hidden notice that a message is another now; link previews cause it as well."""
    message, before = _mapping(event, "message"), _mapping(event, "previous_message")
    if _word(message, "subtype") == "tombstone":  # deleted, with replies that stay
        return _deletion(event, _id(message, "ts"))
    if _is_from_bot(message, ours, identity):
        return Ignored("a bot's message that changed")
    text = plain_text(_text(message, "text"), ours)
    chat, ts = _id(event, "channel"), _id(message, "ts")
    if not (chat and ts) or text == plain_text(_text(before, "text"), ours):
        return Ignored("a message whose words did not change")
    return IncomingEdit(chat, ts, text)


def _deletion(event: Payload, ts: str) -> IncomingDeletion | Ignored:
    chat = _id(event, "channel")
    return IncomingDeletion(chat, ts) if chat and ts else Ignored("a deletion of nothing")


def _reacted(body: Payload, event: Payload) -> IncomingFeedback | Ignored:
    """Read a thumb under a post; whether it is one of ours is known where posts are kept."""
    item = _mapping(event, "item")
    verdict = THUMBS.get(_word(event, "reaction").partition("::")[0])  # `+1::skin-tone-3`
    chat, ts, user = _id(item, "channel"), _id(item, "ts"), _id(event, "user")
    if verdict is None or not (chat and ts and user):
        return Ignored("a reaction that is no verdict")
    event_id = _id(body, "event_id") or f"reaction:{chat}:{ts}:{user}:{verdict}"
    return IncomingFeedback(event_id, chat, Sender(user), verdict, external_id=ts)


def _opened(thread: Payload) -> Opened | Ignored:
    chat, ts = _id(thread, "channel_id"), _id(thread, "thread_ts")
    return Opened(chat, ts) if chat and ts else Ignored("a pane without its thread")


def _our_users(body: Payload, identity: Identity) -> set[str]:
    """Return the ids under which we are mentioned; known even while `auth.test` fails."""
    granted = body.get("authorizations")
    users = {
        _word(one, "user_id")
        for one in (granted if isinstance(granted, list) else [])
        if isinstance(one, Mapping) and one.get("is_bot")
    }
    return (users | {identity.user}) - {""}


def _is_from_bot(event: Payload, ours: set[str], identity: Identity) -> bool:
    """Tell our own and other bots' posts; current apps' messages have no subtype but `bot_id`."""
    if _word(event, "bot_id") or event.get("bot_profile"):
        return True
    user = _word(event, "user")
    return user in ours or user == "USLACKBOT"


def _read_message(body: Payload, event: Payload, ours: set[str]) -> Incoming | Ignored:
    chat, user, ts = _id(event, "channel"), _id(event, "user"), _id(event, "ts")
    if not (chat and user and ts):
        return Ignored("a message without channel, user or ts")
    private = _word(event, "channel_type") == "im" or chat.startswith("D")
    said = _text(event, "text")
    mentioned = _word(event, "type") == "app_mention" or _mentions(said, ours)
    parent = _id(event, "thread_ts")
    if not (private or mentioned or parent):
        return Ignored("talk in a channel that is not for us")
    text = plain_text(said, ours)
    return Incoming(
        event_id=_id(body, "event_id") or f"{chat}:{ts}",
        message_id=ts,
        chat=chat,
        # In a channel the answer opens a thread under the question, or stays in the question's.
        thread=parent or (None if private else ts),
        sender=Sender(user),
        text=text,
        kind=MessageKind.UNREADABLE if not text and event.get("files") else MessageKind.TEXT,
        sent_at=_time(ts),
        addressed=private or mentioned,
        private=private,
    )


def _mentions(text: str, ours: set[str]) -> bool:
    return any(found[1] in ours for found in _MENTION.finditer(text))


# --- interactions and commands -----------------------------------------------------------------


def _parse_press(body: Payload) -> Incoming | IncomingFeedback | Ignored:
    actions = body.get("actions")
    action = actions[0] if isinstance(actions, list) and actions else None
    if not isinstance(action, Mapping):
        return Ignored("an interaction without an action")
    name = _word(action, "action_id")
    press = _read_press(body, action)
    if press is None:
        return Ignored("an interaction outside a message")
    if name.startswith(SUGGESTION):
        return _suggested(press, _text(action, "value"))
    if name.startswith(FEEDBACK):
        return _rated(press, _text(action, "value"))
    return Ignored("a button that is not ours")


@dataclass(frozen=True)
class _Press:
    """Who pressed where; Slack gives interactions no event id, `key` stands for it."""

    key: str
    chat: str
    user: str
    ts: str
    parent: str
    pressed_at: str


def _read_press(body: Payload, action: Payload) -> _Press | None:
    container, message = _mapping(body, "container"), _mapping(body, "message")
    chat = _id(container, "channel_id") or _id(_mapping(body, "channel"), "id")
    user = _id(_mapping(body, "user"), "id")
    ts = _id(container, "message_ts") or _id(message, "ts")
    pressed_at = _id(action, "action_ts")
    if not (chat and user and ts and pressed_at):
        return None
    parent = _id(container, "thread_ts") or _id(message, "thread_ts")
    return _Press(f"press:{user}:{ts}:{pressed_at}", chat, user, ts, parent, pressed_at)


def _suggested(press: _Press, question: str) -> Incoming | Ignored:
    if not question.strip():
        return Ignored("a button without a question")
    private = press.chat.startswith("D")
    return Incoming(
        event_id=press.key,
        message_id=press.key,
        chat=press.chat,
        thread=press.parent or (None if private else press.ts),
        sender=Sender(press.user),
        text=question[:TEXT_LIMIT_CHARACTERS],
        sent_at=_time(press.pressed_at),
        private=private,
    )


def _rated(press: _Press, value: str) -> IncomingFeedback | Ignored:
    """Read `up:<our message's id>`; the post's own ts is kept beside it."""
    verdict, _, rated = value.partition(":")
    try:
        verdict, message_id = Verdict(verdict), MessageId(UUID(rated))
    except ValueError:
        return Ignored("a rating that is not ours")
    return IncomingFeedback(
        event_id=press.key,
        chat=press.chat,
        sender=Sender(press.user),
        verdict=verdict,
        external_id=press.ts,
        message_id=message_id,
    )


def _parse_command(body: Payload) -> Command | Ignored:
    user, trigger = _id(body, "user_id"), _id(body, "trigger_id")
    if not (user and trigger):
        return Ignored("a command without a user")
    text = plain_text(_text(body, "text"), set())
    if not text:
        return Command(None)
    here = _id(body, "channel_id")
    return Command(
        Incoming(
            event_id=f"command:{trigger}",
            message_id=f"command:{trigger}",
            # Slack opens the direct conversation when a user's id stands for a channel's.
            chat=here if here.startswith("D") else user,
            sender=Sender(user, _word(body, "user_name")),
            text=text,
        )
    )


# --- Slack's notation --------------------------------------------------------------------------

_MENTION = re.compile(r"<@([A-Z0-9]+)(?:\|[^<>]*)?>")
_CONTROL = re.compile(r"<([^<>]*)>")


def plain_text(text: str, ours: set[str]) -> str:
    """Return a message as people read it: without mentions of us, links and escapes resolved.

    Source: https://docs.slack.dev/messaging/formatting-message-text
    """
    text = _MENTION.sub(lambda found: "" if found[1] in ours else found[0], text)
    text = _CONTROL.sub(lambda found: _resolved(found[1]), text)
    # In this order: `&amp;lt;` is what somebody wrote as `&lt;`.
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text.strip()[:TEXT_LIMIT_CHARACTERS]


def _resolved(control: str) -> str:
    target, _, label = control.partition("|")
    match target[:1]:
        case "@":
            return "@" + (label or target[1:]).lstrip("@")
        case "#":
            return "#" + (label or target[1:]).lstrip("#")
        case "!":
            return label or "@" + target[1:].partition("^")[0]
        case _:
            return _link(target, label)


def _link(target: str, label: str) -> str:
    """Return an address, with its label where that says more; Slack labels bare domains itself."""
    bare = re.sub(r"^(?:https?://|mailto:|tel:)", "", target)
    if not label:
        return bare if target.startswith(("mailto:", "tel:")) else target
    if label in (target, bare, bare.rstrip("/")):
        return label
    return f"{label} ({bare if target.startswith('mailto:') else target})"


# --- reading what may be anything --------------------------------------------------------------

_PLAIN_ID = re.compile(r"[\w.:-]{1,120}", re.ASCII)


def _mapping(body: Payload, name: str) -> Payload:
    value = body.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(body: Payload, name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _word(body: Payload, name: str) -> str:
    """Return a short word for comparing and logging."""
    return _text(body, name)[:80]


def _id(body: Payload, name: str) -> str:
    """Return an id that the database can hold, empty if there is none."""
    value = _text(body, name)
    return value if _PLAIN_ID.fullmatch(value) else ""


def _time(ts: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(ts), UTC)
    except (ValueError, OverflowError, OSError):
        return None
