"""Telegram's Bot API over real HTTP, with the faults that real life has.

It records every request, keeps what was sent, and has a clock that a test can move. Nothing in it
sleeps to wait for a caller: tests await `sent_count`, `requested` or `delivered`.

Source: docs of the Bot API and its published server, as read for CHANNELS.md.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.emulators.telegram_formatting import (
    Refusal,
    check_entities,
    shown,
    utf16_length,
)

Json = dict[str, Any]

TEXT_LIMIT = 4096
CALLBACK_DATA_LIMIT_BYTES = 64
GROUP_LIMIT = 20
GROUP_WINDOW_SECONDS = 60.0
PATIENCE_SECONDS = 20.0
"""How long a test waits for an event before it fails."""

STRUCTURED = frozenset(
    [
        "entities",
        "reply_markup",
        "reply_parameters",
        "link_preview_options",
        "allowed_updates",
        "reaction",
    ]
)


class Clock:
    """Seconds that pass by themselves and can be moved on."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._moved = asyncio.Condition()

    def now(self) -> float:
        """Return the emulator's time in seconds."""
        return time.monotonic() + self._ahead

    async def advance(self, seconds: float) -> None:
        """Move the time on; whoever waits for it goes on at once."""
        async with self._moved:
            self._ahead += seconds
            self._moved.notify_all()

    async def wait_until(self, moment: float) -> None:
        """Return when the time has come, or was moved beyond it."""
        async with self._moved:
            while (left := moment - self.now()) > 0:
                try:
                    await asyncio.wait_for(self._moved.wait(), left)
                except TimeoutError:
                    continue


@dataclass(frozen=True)
class Call:
    """One request as it came in; `fields` are decoded."""

    method: str
    fields: Json
    content_type: str
    at: float

    @property
    def chat(self) -> int | None:
        """The chat that it is about."""
        return int(self.fields["chat_id"]) if "chat_id" in self.fields else None


@dataclass(frozen=True)
class Sent:
    """A message of the bot that stands in a chat."""

    chat: int
    message_id: int
    text: str
    at: float
    entities: tuple[Json, ...] = ()
    thread: int | None = None
    reply_to: int | None = None
    buttons: tuple[Json, ...] = ()
    message: Json = field(default_factory=dict[str, Any])

    def button(self, text: str) -> Json:
        """Return the button with this label."""
        return next(button for button in self.buttons if button["text"] == text)

    def marked(self, kind: str) -> list[str]:
        """Return the pieces of the text that carry an entity of this type."""
        units = self.text.encode("utf-16-le")
        return [
            units[e["offset"] * 2 : (e["offset"] + e["length"]) * 2].decode("utf-16-le")
            for e in self.entities
            if e["type"] == kind
        ]


@dataclass
class Fault:
    """What goes wrong with the next calls that match.

    Attributes:
        method: Of the Bot API; None matches all.
        chat: None matches all.
        times: How many calls it hits.
        status: Answer with this error; None answers as usual (after `hold`).
        stored: The call takes effect before the fault.
        reset: Drop the connection instead of answering.
        hold: The answer waits for this event.
        body: Sent instead of the usual JSON, such as an HTML page of a proxy.
    """

    method: str | None = None
    chat: int | None = None
    times: int = 1
    status: int | None = None
    description: str = ""
    parameters: dict[str, int] | None = None
    stored: bool = False
    reset: bool = False
    hold: asyncio.Event | None = None
    body: bytes | None = None

    @property
    def takes_effect(self) -> bool:
        """The call does what it should, whatever is answered."""
        return self.stored or (self.status is None and self.body is None and not self.reset)

    def hits(self, call: Call) -> bool:
        """Tell whether this fault is meant for a call."""
        return (
            self.times > 0 and self.method in (None, call.method) and self.chat in (None, call.chat)
        )


@dataclass(frozen=True)
class Webhook:
    """Where updates are posted to."""

    url: str
    secret: str | None
    set_at: float


class TelegramEmulator:
    """One bot's side of the Bot API, and the customers who write to it.

    Use it as an async context manager; `url` is what `TELEGRAM_API_URL` takes.

    Args:
        token: The only token that is accepted.
        username: Of the bot.
        reads_all: The bot's privacy mode is off in groups.
        group_limit: Messages per minute and group, as a sliding window.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        token: str = "123456789:AAF-emulated-token-0123456789abcdefgh",
        username: str = "deskhand_bot",
        *,
        reads_all: bool = False,
        group_limit: int = GROUP_LIMIT,
        port: int = 0,
    ) -> None:
        self.token = token
        self.bot_id = int(token.split(":")[0]) if token.split(":")[0].isdigit() else 123456789
        self.username = username
        self.reads_all = reads_all
        self.group_limit = group_limit
        self.clock = Clock()
        self.calls: list[Call] = []
        self.sent: list[Sent] = []
        self.edits: list[Json] = []
        self.answered_callbacks: list[Json] = []
        self.reactions: list[Json] = []
        self.webhook: Webhook | None = None
        self.webhook_answers: list[tuple[int, int]] = []
        """(update_id, HTTP status) of each attempt; status 0: no answer at all."""
        self.pending: list[Json] = []
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self._allowed: tuple[str, ...] = ()
        self._chats: dict[int, str] = {}
        self._threads: set[tuple[int, int]] = set()
        self._message_ids: dict[int, int] = defaultdict(int)
        self._refusals: dict[int, Refusal] = {}
        self._revoked = False
        self._windows: dict[int, deque[float]] = defaultdict(deque)
        self._next_update = 700_000_001
        self._poll = 0
        self._closing = False
        self._changed = asyncio.Condition()
        self._queues: dict[str, asyncio.Task[None]] = {}
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    # --- running ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=50 * 1024 * 1024)
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        app.router.add_get("/file/bot{token}/{path:.+}", self._download)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        await self._notify()
        for task in self._queues.values():
            task.cancel()
        await asyncio.gather(*self._queues.values(), return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self) -> None:
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self._port}"

    async def go_down(self) -> None:
        """Refuse connections, as a platform that is away; `come_back` ends it."""
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            for connection in self._runner.server.connections if self._runner.server else ():
                connection.force_close()  # idle ones; else they would be used once more
                if connection.transport is not None:
                    connection.transport.abort()
            server = self._runner.server
            while server is not None and server.connections:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)  # the sockets are closed a turn of the loop later

    async def come_back(self) -> None:
        """Listen again on the same port."""
        await self._listen()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(
        self, happened: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Return when something happened; it is looked at after every change.

        Raises:
            AssertionError: It did not happen in time.
        """
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(happened)
        except TimeoutError:
            raise AssertionError(f"{what} did not happen within {seconds:g} s") from None

    async def sent_count(self, count: int, seconds: float = PATIENCE_SECONDS) -> list[Sent]:
        """Return all that was sent, when there are so many messages."""
        await self.until(lambda: len(self.sent) >= count, f"message {count}", seconds)
        return self.sent

    async def requested(self, method: str, count: int = 1) -> list[Call]:
        """Return all calls of a method, when there are so many."""
        await self.until(lambda: len(self.called(method)) >= count, f"call {count} of {method}")
        return self.called(method)

    async def confirmed(self) -> None:
        """Return when no update is left that the bot has not confirmed."""
        await self.until(lambda: not self.pending, "the confirmation of all updates")

    async def delivered(self, attempts: int) -> list[tuple[int, int]]:
        """Return the webhook's answers, when so many attempts were made."""
        await self.until(
            lambda: len(self.webhook_answers) >= attempts, f"webhook attempt {attempts}"
        )
        return self.webhook_answers

    def called(self, method: str) -> list[Call]:
        """Return the calls of a method so far."""
        return [call for call in self.calls if call.method == method]

    # --- customers -------------------------------------------------------------------------------

    async def say(
        self,
        text: str | None,
        *,
        chat: int = 42,
        sender: int = 42,
        name: str = "Ada",
        thread: int | None = None,
        reply_to: Sent | None = None,
        mentions: bool = False,
        **fields: Any,
    ) -> Json:
        """Let somebody write; return the update.

        Args:
            text: None for a message without any (give `voice`, `photo` … in `fields`).
            chat: Negative for groups.
            thread: The topic of a group.
            mentions: Put `@bot ` before the text.
            fields: Further fields of the message, which replace what stands here.
        """
        if mentions:
            text = f"@{self.username} {text}"
        message: Json = {
            "message_id": self._new_message_id(chat),
            "date": int(time.time()),
            "chat": self._chat(chat),
            "from": {"id": sender, "is_bot": False, "first_name": name, "language_code": "en"},
        }
        if text is not None:
            message |= {"text": text, "entities": self.entities(text)}
        if thread is not None:
            self._threads.add((chat, thread))
            message |= {"message_thread_id": thread, "is_topic_message": True}
        if reply_to is not None:
            message["reply_to_message"] = reply_to.message
        return await self.update(message=message | fields)

    async def edit(self, update: Json, text: str) -> Json:
        """Let somebody change what they wrote."""
        changed = update["message"] | {"text": text, "edit_date": int(time.time())}
        return await self.update(edited_message=changed | {"entities": self.entities(text)})

    async def react(
        self, sent: Sent, emoji: str, *, before: str | None = None, sender: int = 42
    ) -> Json:
        """Let somebody put a reaction on one of the bot's messages."""
        reaction = {
            "chat": sent.message["chat"],
            "message_id": sent.message["message_id"],
            "date": int(time.time()),
            "user": {"id": sender, "is_bot": False, "first_name": "Ada"},
            "old_reaction": [{"type": "emoji", "emoji": before}] if before else [],
            "new_reaction": [{"type": "emoji", "emoji": emoji}],
        }
        return await self.update(message_reaction=reaction)

    async def press(self, sent: Sent, button: str, *, sender: int = 42, name: str = "Ada") -> Json:
        """Let somebody press a button under one of the bot's messages."""
        query = {
            "id": str(8_000_000_000 + self._next_update),
            "from": {"id": sender, "is_bot": False, "first_name": name},
            "chat_instance": "1",
            "message": sent.message,
            "data": sent.button(button)["callback_data"],
        }
        return await self.update(callback_query=query)

    async def update(self, **fields: Any) -> Json:
        """Queue any update; return it with its id."""
        update = {"update_id": self._next_update, **fields}
        self._next_update += 1
        await self.repeat(update)
        return update

    async def repeat(self, update: Json, *, new_id: bool = False) -> None:
        """Queue an update once more, under the same id or under a new one."""
        if new_id:
            update = {**update, "update_id": self._next_update}
            self._next_update += 1
        kind = next(key for key in update if key != "update_id")
        if self._allowed and kind not in self._allowed:
            return
        async with self._changed:
            self.pending.append(update)
            self._changed.notify_all()
        self._deliver(update)

    def entities(self, text: str) -> list[Json]:
        """Return the mentions and commands that Telegram marks in a text."""
        found: list[Json] = []
        at = 0
        for word in text.split(" "):
            bare = word.rstrip(".,:;!?")
            kind = {"@": "mention", "/": "bot_command"}.get(bare[:1])
            if kind and len(bare) > 1:
                found.append(
                    {
                        "type": kind,
                        "offset": utf16_length(text[:at]),
                        "length": utf16_length(bare),
                    }
                )
            at += len(word) + 1
        return found

    def block(self, chat: int, description: str = "bot was blocked by the user") -> None:
        """Let every message to a chat be refused with 403."""
        self._refusals[chat] = Refusal(403, f"Forbidden: {description}")

    async def migrate(self, chat: int, new: int) -> None:
        """Upgrade a group to a supergroup with a new id, and tell the bot."""
        self._chats[new] = self._chats.get(chat, "supergroup")
        self._refusals[chat] = Refusal(
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
            {"migrate_to_chat_id": new},
        )
        await self.say(None, chat=chat, migrate_to_chat_id=new)
        await self.say(None, chat=new, migrate_from_chat_id=chat)

    def know(self, chat: int) -> None:
        """Let the bot write to a chat from which nothing came yet."""
        self._chat(chat)

    def revoke(self) -> None:
        """Answer 401 to the token from now on."""
        self._revoked = True

    def fail(self, method: str | None = "sendMessage", **fields: Any) -> Fault:
        """Let the next matching calls fail; the fields are those of `Fault`."""
        fault = Fault(method=method, **fields)
        self.faults.append(fault)
        return fault

    def rate_limit(
        self, seconds: int, *, method: str = "sendMessage", chat: int | None = None, times: int = 1
    ) -> Fault:
        """Answer 429 with `retry_after`."""
        return self.fail(
            method,
            chat=chat,
            times=times,
            status=429,
            description=f"Too Many Requests: retry after {seconds}",
            parameters={"retry_after": seconds},
        )

    # --- the wire --------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if ":" not in request.match_info["token"]:
            return _error(Refusal(404, "Not Found"))
        if self._revoked or request.match_info["token"] != self.token:
            return _error(Refusal(401, "Unauthorized"))
        names = {name.lower(): name for name in METHODS}
        method = names.get(request.match_info["method"].lower())  # the API ignores case
        if method is None:
            return _error(Refusal(404, "Not Found: method not found"))
        call = Call(method, await _fields(request), request.content_type or "", self.clock.now())
        self.calls.append(call)
        await self._notify()
        fault = next((fault for fault in self.faults if fault.hits(call)), None)
        if fault is None:
            return await self._answer(call)
        return await self._go_wrong(request, call, fault)

    async def _answer(self, call: Call) -> web.Response:
        try:
            result = await METHODS[call.method](self, call.fields)
        except Refusal as refusal:
            return _error(refusal)
        finally:
            await self._notify()
        return web.json_response({"ok": True, "result": result})

    async def _go_wrong(self, request: web.Request, call: Call, fault: Fault) -> web.StreamResponse:
        fault.times -= 1
        usual = await self._answer(call) if fault.takes_effect else None
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.reset:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault.body is not None:
            return web.Response(status=fault.status or 200, body=fault.body)
        if fault.status is None and usual is not None:
            return usual
        description = fault.description or "Internal Server Error"
        return _error(Refusal(fault.status or 500, description, fault.parameters))

    async def _download(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["path"])
        if request.match_info["token"] != self.token or content is None:
            return web.Response(status=404)
        return web.Response(body=content)

    # --- methods ---------------------------------------------------------------------------------

    async def get_me(self, fields: Json) -> Json:
        """Tell the bot who it is."""
        return {
            **self._me(),
            "can_join_groups": True,
            "can_read_all_group_messages": self.reads_all,
            "supports_inline_queries": False,
        }

    def _me(self) -> Json:
        return {
            "id": self.bot_id,
            "is_bot": True,
            "first_name": "Deskhand",
            "username": self.username,
        }

    async def get_updates(self, fields: Json) -> list[Json]:
        """Return what is not confirmed yet; a second poll ends the first with 409."""
        if self.webhook is not None:
            raise Refusal(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        self._poll += 1
        mine = self._poll
        if "allowed_updates" in fields:
            self._allowed = tuple(fields["allowed_updates"])
        offset = int(fields.get("offset", 0))
        if offset > 0:
            self.pending = [u for u in self.pending if u["update_id"] >= offset]
        elif offset < 0:
            self.pending = self.pending[offset:]
        seconds = min(float(fields.get("timeout", 0)), 50.0)
        await self._notify()
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(
                    lambda: self.pending or self._poll != mine or self.webhook or self._closing
                )
        except TimeoutError:
            return []
        if self._poll != mine or self.webhook:
            raise Refusal(
                409,
                "Conflict: terminated by other getUpdates request; make sure that only one bot "
                "instance is running",
            )
        return self.pending[: int(fields.get("limit", 100))]

    async def set_webhook(self, fields: Json) -> bool:
        """Post updates to a URL from now on."""
        now = self.clock.now()
        if self.webhook is not None and now - self.webhook.set_at < 1.0:
            raise Refusal(429, "Too Many Requests: retry after 1", {"retry_after": 1})
        url = str(fields.get("url", ""))
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise Refusal(400, "Bad Request: bad webhook: An HTTPS URL must be provided")
        self.webhook = Webhook(url, fields.get("secret_token"), now)
        if "allowed_updates" in fields:
            self._allowed = tuple(fields["allowed_updates"])
        for update in self.pending:
            self._deliver(update)
        return True

    async def delete_webhook(self, fields: Json) -> bool:
        """Go back to polling."""
        self.webhook = None
        for task in self._queues.values():
            task.cancel()
        self._queues.clear()
        if str(fields.get("drop_pending_updates", "")).lower() == "true":
            self.pending.clear()
        return True

    async def get_webhook_info(self, fields: Json) -> Json:
        """Tell where updates are posted to."""
        return {
            "url": self.webhook.url if self.webhook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(self.pending),
            "allowed_updates": list(self._allowed),
        }

    async def send_message(self, fields: Json) -> Json:
        """Put a message into a chat."""
        chat = self._writable(fields)
        text = shown(str(fields.get("text", "")), fields.get("parse_mode"))
        if not text.strip():
            raise Refusal(400, "Bad Request: message text is empty")
        if utf16_length(text) > TEXT_LIMIT:
            raise Refusal(400, "Bad Request: message is too long")
        entities: list[Json] = fields.get("entities", [])
        check_entities(text, entities)
        thread = int(fields["message_thread_id"]) if "message_thread_id" in fields else None
        if thread is not None and (chat, thread) not in self._threads:
            raise Refusal(400, "Bad Request: message thread not found")
        buttons = _buttons(fields.get("reply_markup"))
        reply_to = self._reply_to(chat, fields.get("reply_parameters"))
        self._count(chat)
        message: Json = {
            "message_id": self._new_message_id(chat),
            "date": int(time.time()),
            "chat": self._chat(chat),
            "from": self._me(),
            "text": text,
            "entities": entities,
        }
        if buttons:
            message["reply_markup"] = fields["reply_markup"]
        if thread is not None:
            message |= {"message_thread_id": thread, "is_topic_message": True}
        self.sent.append(
            Sent(
                chat,
                message["message_id"],
                text,
                self.clock.now(),
                tuple(entities),
                thread,
                reply_to,
                tuple(buttons),
                message,
            )
        )
        return message

    async def send_message_draft(self, fields: Json) -> bool:
        """Show a preview that does not stay."""
        self._writable(fields)
        return True

    async def send_chat_action(self, fields: Json) -> bool:
        """Show that the bot is typing."""
        self._writable(fields)
        if fields.get("action") != "typing":
            raise Refusal(400, "Bad Request: wrong parameter action in request")
        return True

    async def edit_message_text(self, fields: Json) -> Json:
        """Change a message of the bot."""
        chat, message_id = int(fields["chat_id"]), int(fields["message_id"])
        at = next(
            (n for n, s in enumerate(self.sent) if (s.chat, s.message_id) == (chat, message_id)),
            None,
        )
        if at is None:
            raise Refusal(400, "Bad Request: message to edit not found")
        text = shown(str(fields.get("text", "")), fields.get("parse_mode"))
        old = self.sent[at]
        if text == old.text:
            raise Refusal(400, "Bad Request: message is not modified")
        message = {**old.message, "text": text, "edit_date": int(time.time())}
        self.sent[at] = Sent(chat, message_id, text, old.at, thread=old.thread, message=message)
        self.edits.append(message)
        return message

    async def answer_callback_query(self, fields: Json) -> bool:
        """End the waiting that a pressed button shows."""
        if utf16_length(str(fields.get("text", ""))) > 200:
            raise Refusal(400, "Bad Request: MESSAGE_TOO_LONG")
        self.answered_callbacks.append(fields)
        return True

    async def set_message_reaction(self, fields: Json) -> bool:
        """Put a reaction on a message."""
        self._writable(fields)
        self.reactions.append(fields)
        return True

    async def get_file(self, fields: Json) -> Json:
        """Tell where a file can be fetched."""
        file_id = str(fields.get("file_id"))
        if file_id not in self.files:
            raise Refusal(400, "Bad Request: invalid file_id")
        return {
            "file_id": file_id,
            "file_unique_id": file_id,
            "file_path": file_id,
            "file_size": len(self.files[file_id]),
        }

    # --- chats -----------------------------------------------------------------------------------

    def _chat(self, chat: int) -> Json:
        kind = self._chats.setdefault(chat, "private" if chat > 0 else "supergroup")
        if kind == "private":
            return {"id": chat, "type": kind, "first_name": "Ada"}
        return {"id": chat, "type": kind, "title": f"Group {-chat}"}

    def _new_message_id(self, chat: int) -> int:
        self._message_ids[chat] += 1
        return self._message_ids[chat]

    def _writable(self, fields: Json) -> int:
        try:
            chat = int(fields["chat_id"])
        except (KeyError, ValueError):
            raise Refusal(400, "Bad Request: chat_id is empty") from None
        if refusal := self._refusals.get(chat):
            raise refusal
        if chat not in self._chats:
            raise Refusal(400, "Bad Request: chat not found")
        return chat

    def _reply_to(self, chat: int, parameters: Json | None) -> int | None:
        if not parameters:
            return None
        wanted = int(parameters["message_id"])
        if 0 < wanted <= self._message_ids[chat]:
            return wanted
        if parameters.get("allow_sending_without_reply"):
            return None
        raise Refusal(400, "Bad Request: message to be replied not found")

    def _count(self, chat: int) -> None:
        if self._chats[chat] == "private":
            return
        now, window = self.clock.now(), self._windows[chat]
        while window and window[0] <= now - GROUP_WINDOW_SECONDS:
            window.popleft()
        if len(window) >= self.group_limit:
            wait = int(window[0] + GROUP_WINDOW_SECONDS - now) + 1
            raise Refusal(429, f"Too Many Requests: retry after {wait}", {"retry_after": wait})
        window.append(now)

    # --- webhook ---------------------------------------------------------------------------------

    def _deliver(self, update: Json) -> None:
        if self.webhook is None:
            return
        queue = _queue_of(update)
        before = self._queues.get(queue)
        self._queues[queue] = asyncio.create_task(self._post_after(before, update, self.webhook))

    async def _post_after(
        self, before: asyncio.Task[None] | None, update: Json, webhook: Webhook
    ) -> None:
        """Post when the queue's earlier update is through: one in flight per queue."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        pauses = iter([0.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        while True:
            status, asked = await self._post(update, webhook)
            async with self._changed:
                if 200 <= status < 300 and update in self.pending:
                    self.pending.remove(update)
                self.webhook_answers.append((update["update_id"], status))
                self._changed.notify_all()
            if 200 <= status < 300:
                return
            pause = asked if asked is not None else next(pauses, 60.0)
            await self.clock.wait_until(self.clock.now() + pause)

    async def _post(self, update: Json, webhook: Webhook) -> tuple[int, float | None]:
        headers = {}
        if webhook.secret:
            headers["X-Telegram-Bot-Api-Secret-Token"] = webhook.secret
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=60)) as session,
                session.post(webhook.url, json=update, headers=headers) as response,
            ):
                asked = response.headers.get("Retry-After")
                return response.status, float(asked) if asked else None
        except (ClientError, TimeoutError):
            return 0, None


def _queue_of(update: Mapping[str, Any]) -> str:
    """Messages and edits of a chat share a queue, callbacks have one per user."""
    for kind in ("message", "edited_message"):
        if kind in update:
            return f"chat {update[kind]['chat']['id']}"
    if "callback_query" in update:
        return f"user {update['callback_query']['from']['id']}"
    return "others"


def _buttons(markup: Json | None) -> list[Json]:
    buttons = [button for row in (markup or {}).get("inline_keyboard", []) for button in row]
    for button in buttons:
        if not button.get("text"):
            raise Refusal(400, "Bad Request: can't parse inline keyboard button: text is empty")
        data = str(button.get("callback_data", ""))
        if "url" not in button and not 1 <= len(data.encode()) <= CALLBACK_DATA_LIMIT_BYTES:
            raise Refusal(400, "Bad Request: BUTTON_DATA_INVALID")
    return buttons


def _error(refusal: Refusal) -> web.Response:
    body: Json = {
        "ok": False,
        "error_code": refusal.status,
        "description": refusal.description,
    }
    headers: dict[str, str] = {}
    if refusal.parameters:
        body["parameters"] = refusal.parameters
        if "retry_after" in refusal.parameters:
            headers["Retry-After"] = str(refusal.parameters["retry_after"])
    return web.json_response(body, status=refusal.status, headers=headers)


async def _fields(request: web.Request) -> Json:
    """Return the parameters, however they were sent: query, form, multipart or JSON."""
    fields: Json = dict(request.query)
    if request.content_type == "application/json":
        fields |= await request.json()
    elif request.method == "POST":
        fields |= dict(await request.post())
    return {
        name: json.loads(value) if name in STRUCTURED and isinstance(value, str) else value
        for name, value in fields.items()
    }


METHODS: Mapping[str, Callable[[TelegramEmulator, Json], Any]] = {
    "getMe": TelegramEmulator.get_me,
    "getUpdates": TelegramEmulator.get_updates,
    "setWebhook": TelegramEmulator.set_webhook,
    "deleteWebhook": TelegramEmulator.delete_webhook,
    "getWebhookInfo": TelegramEmulator.get_webhook_info,
    "sendMessage": TelegramEmulator.send_message,
    "sendMessageDraft": TelegramEmulator.send_message_draft,
    "sendChatAction": TelegramEmulator.send_chat_action,
    "editMessageText": TelegramEmulator.edit_message_text,
    "answerCallbackQuery": TelegramEmulator.answer_callback_query,
    "setMessageReaction": TelegramEmulator.set_message_reaction,
    "getFile": TelegramEmulator.get_file,
}
"""The methods by their names in the Bot API."""
