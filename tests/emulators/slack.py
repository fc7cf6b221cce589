"""Slack as a server on the wire: Web API, signed events, interactions, Socket Mode, and faults.

It answers the real SDK over real HTTP, keeps what was posted, records every request, and fails
where a test asks it to. What it does beyond Slack's documents stands as "measured" in the notes.

    async with SlackEmulator() as slack:
        slack.fail("chat.postMessage", Reset(stored=True))
        ...
        await slack.posted_count(1)
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
from aiohttp import WSMsgType, web

Json = dict[str, Any]

TEAM, APP, BOT_USER, BOT_ID = "T0001", "A0001", "U0BOT", "B0BOT"
ONE_POST_CHARACTERS = 4_040
"""Measured: a longer text becomes several posts of 4,000."""
ALL_BLOCKS_CHARACTERS = 13_200
"""Measured: above it the answer is `msg_blocks_too_long`."""


# --- faults ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RateLimited:
    """429 with Retry-After; lasts that long by the emulator's clock, however often it is asked."""

    seconds: int


@dataclass(frozen=True)
class ServerError:
    """A 5xx with a page of HTML, before or after the call took effect."""

    status: int = 500
    stored: bool = False


@dataclass(frozen=True)
class Reset:
    """The connection is dropped, before or after the call took effect."""

    stored: bool = True


@dataclass(frozen=True)
class Held:
    """The call takes effect, its answer is held until `release` is set."""

    release: asyncio.Event
    stored: bool = True


@dataclass(frozen=True)
class Refused:
    """`ok: false` with this error."""

    error: str


@dataclass(frozen=True)
class Garbage:
    """200 with something that is no JSON, after the call took effect or before."""

    body: str = "<html>Sorry</html>"
    stored: bool = False


Fault = RateLimited | ServerError | Reset | Held | Refused | Garbage


@dataclass
class _Planned:
    method: str
    fault: Fault
    channel: str | None
    times: int
    ends_at: float | None = None


# --- what is recorded --------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One call that we received."""

    method: str
    args: Json
    headers: Mapping[str, str]
    at: float


@dataclass
class Post:
    """One message in a channel."""

    channel: str
    ts: str
    text: str
    user: str
    blocks: list[Json] = field(default_factory=list[Json])
    thread_ts: str | None = None
    metadata: Json | None = None
    mrkdwn: bool = True
    edited: bool = False
    unfurl: bool = True

    @property
    def thread(self) -> str | None:
        """The thread that it stands in."""
        return self.thread_ts

    @property
    def own(self) -> bool:
        """The bot wrote it."""
        return self.user == BOT_USER

    @property
    def shown(self) -> str:
        """The words that people see: those of the blocks where there are some."""
        return _shown(self.blocks) if self.blocks else _unescape(self.text)

    @property
    def pings(self) -> list[str]:
        """Who is alerted by it: `!channel`, a user id."""
        found: list[str] = []
        for text in [self.text, *_mrkdwn_texts(self.blocks)]:
            for piece in text.split("<")[1:]:
                target = piece.partition(">")[0].partition("|")[0]
                if ">" in piece and target[:1] in "@!#" and target[1:]:
                    found.append(target if target[0] == "!" else target[1:])
        found.extend(e.get("user_id") or e.get("range", "") for e in _pinging(self.blocks))
        return found

    def buttons(self) -> list[Json]:
        """Its buttons, in order."""
        actions = [b for b in self.blocks if b["type"] in ("actions", "context_actions")]
        return [element for block in actions for element in block["elements"]]


@dataclass(frozen=True)
class Event:
    """An event as Slack sends it, in its envelope; `payload` can be sent again and again."""

    payload: Json

    @property
    def ts(self) -> str:
        """The message's id."""
        return self.payload["event"]["ts"]


def _shown(elements: list[Json]) -> str:
    out: list[str] = []
    for element in elements:
        kind, text = element.get("type"), element.get("text")
        if kind in ("button", "actions", "context_actions"):
            continue
        if isinstance(text, str):
            out.append(text)
        elif isinstance(text, dict):
            out.append(_unescape(text["text"]))
        elif kind == "link":
            out.append(element["url"])
        if kind == "rich_text":
            out.append("\n".join(_shown([part]) for part in element["elements"]))
        elif kind == "rich_text_list":
            out.append("\n" + "\n".join(_shown([item]) for item in element["elements"]) + "\n")
        else:
            out.append(_shown(element.get("elements", [])))
    return "".join(out)


def _walk(elements: list[Json]) -> Iterator[Json]:
    for element in elements:
        yield element
        yield from _walk(element.get("elements", []))


def _mrkdwn_texts(blocks: list[Json]) -> list[str]:
    texts = [e.get("text") for e in _walk(blocks)]
    return [t["text"] for t in texts if isinstance(t, dict) and t.get("type") == "mrkdwn"]


def _pinging(blocks: list[Json]) -> list[Json]:
    return [e for e in _walk(blocks) if e.get("type") in ("user", "usergroup", "broadcast")]


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


class _Refusal(Exception):
    """`ok: false`."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer: Json = {"ok": False, "error": error, **more}


class SlackEmulator:
    """One workspace with one app in it.

    Args:
        signing_secret: What events are signed with.
        clock: Seconds since 1970; signatures, message ids and rate limits use it.
    """

    def __init__(
        self,
        signing_secret: str = "8f742231b10e8888abcd99yyyzzz85a5",
        bot_token: str = "xoxb-emulated-1-token",
        app_token: str = "xapp-emulated-1-token",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.signing_secret = signing_secret
        self.bot_token = bot_token
        self.app_token = app_token
        self.clock = clock
        self.requests: list[Request] = []
        self.channels: set[str] = {"C0001", "C0002", "D0001"}
        self.archived: set[str] = set()
        self.messages: list[Post] = []
        self.statuses: list[Json] = []
        self.reactions: list[Json] = []
        self.prompts: list[Json] = []
        self.responses: list[Json] = []
        self.acked: list[str] = []
        self.events_url: str | None = None
        """Where events go: the gateway's /slack/events."""
        self.echo_posts = False
        """Send the bot's own posts as events, as Slack does."""
        self.deliveries: list[tuple[str, int]] = []
        """Each push of an event: its id and the status that came back, 0 without an answer."""
        self._planned: list[_Planned] = []
        self._numbers = count(1)
        self._changed = asyncio.Condition()
        self._sockets: list[web.WebSocketResponse] = []
        self._transports: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._unacked: dict[str, tuple[Json, web.WebSocketResponse | None]] = {}
        self._tickets: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0

    # --- running -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * 2**20)
        app.router.add_route("*", "/api/{method}", self._call)
        app.router.add_post("/response/{id}", self._response_url)
        app.router.add_get("/socket/{ticket}", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await self._listen()
        return self

    async def _listen(self) -> None:
        if self._runner is None:
            raise RuntimeError("the emulator was not started")
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in list(self._sockets):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def go_away(self) -> None:
        """Refuse connections until `come_back`."""
        if self._runner is None or self._runner.server is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def come_back(self) -> None:
        """Listen again, on the same port."""
        await self._listen()

    @property
    def url(self) -> str:
        """What SLACK_API_URL is set to."""
        return f"http://127.0.0.1:{self._port}/api/"

    @property
    def posted(self) -> list[Post]:
        """What the bot posted, in order."""
        return [message for message in self.messages if message.own]

    async def posted_count(self, wanted: int, seconds: float = 30.0) -> list[Post]:
        """Return the bot's posts as soon as there are that many."""
        await self.until(lambda: len(self.posted) >= wanted, seconds)
        return self.posted

    async def called(self, method: str, wanted: int = 1, seconds: float = 30.0) -> list[Request]:
        """Return the calls of a method as soon as there are that many."""
        await self.until(lambda: len(self.calls(method)) >= wanted, seconds)
        return self.calls(method)

    def calls(self, method: str) -> list[Request]:
        """Return the calls of a method so far."""
        return [request for request in self.requests if request.method == method]

    async def until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until a condition on what is recorded holds."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(true), seconds)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def fail(self, method: str, fault: Fault, channel: str | None = None, times: int = 1) -> None:
        """Let the next calls of a method (in a channel) fail."""
        self._planned.append(_Planned(method, fault, channel, times))

    # --- the Web API ---------------------------------------------------------------------------

    async def _call(self, http: web.Request) -> web.StreamResponse:
        method = http.match_info["method"]
        args = await _arguments(http)
        self.requests.append(Request(method, args, dict(http.headers), self.clock()))
        try:
            return await self._answer(http, method, args)
        finally:
            await self._notify()

    async def _answer(self, http: web.Request, method: str, args: Json) -> web.StreamResponse:
        fault = self._next_fault(method, args.get("channel"))
        match fault:
            case RateLimited(seconds):
                body = {"ok": False, "error": "ratelimited"}
                return web.json_response(body, status=429, headers={"Retry-After": str(seconds)})
            case Refused(error):
                return web.json_response({"ok": False, "error": error})
            case None:
                return web.json_response(await self._done(http, method, args))
            case _:
                pass
        answer = await self._done(http, method, args) if fault.stored else {}
        await self._notify()
        match fault:
            case ServerError(status):
                return web.Response(status=status, text="<html>", content_type="text/html")
            case Garbage(body):
                return web.Response(text=body, content_type="application/json")
            case Held(release):
                await release.wait()
                return web.json_response(answer)
            case Reset():
                if http.transport is not None:
                    http.transport.abort()
                return web.Response()

    def _next_fault(self, method: str, channel: str | None) -> Fault | None:
        for planned in self._planned:
            if planned.method != method or planned.channel not in (None, channel):
                continue
            if isinstance(planned.fault, RateLimited):
                if planned.ends_at is None:
                    planned.ends_at = self.clock() + planned.fault.seconds
                if self.clock() >= planned.ends_at:
                    self._planned.remove(planned)
                    continue
                return planned.fault
            planned.times -= 1
            if planned.times == 0:
                self._planned.remove(planned)
            return planned.fault
        return None

    async def _done(self, http: web.Request, method: str, args: Json) -> Json:
        handler = getattr(self, "_do_" + method.replace(".", "_"), None)
        try:
            if handler is None:
                raise _Refusal("unknown_method")
            self._authorise(http, method, args)
            return {"ok": True, **handler(args)}
        except _Refusal as refusal:
            return refusal.answer

    def _authorise(self, http: web.Request, method: str, args: Json) -> None:
        token = http.headers.get("Authorization", "").removeprefix("Bearer ") or args.get("token")
        wanted = self.app_token if method == "apps.connections.open" else self.bot_token
        if not token:
            raise _Refusal("not_authed")
        if token != wanted:
            known = token in (self.app_token, self.bot_token)
            raise _Refusal("not_allowed_token_type" if known else "invalid_auth")

    def _do_auth_test(self, args: Json) -> Json:
        return {
            "url": "https://emulated.slack.com/",
            "team": "Emulated",
            "team_id": TEAM,
            "user": "deskhand",
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def _do_apps_connections_open(self, args: Json) -> Json:
        ticket = uuid4().hex
        self._tickets.add(ticket)
        return {"url": f"ws://127.0.0.1:{self._port}/socket/{ticket}"}

    def _channel(self, args: Json) -> str:
        channel = args.get("channel") or ""
        if channel.startswith("U"):  # a post to a user goes into the direct conversation
            channel = "D" + channel[1:]
            self.channels.add(channel)
        if channel not in self.channels:
            raise _Refusal("channel_not_found")
        return channel

    def _do_chat_postMessage(self, args: Json) -> Json:
        channel = self._channel(args)
        if channel in self.archived:
            raise _Refusal("is_archived")
        text, blocks = args.get("text") or "", args.get("blocks") or []
        if not text and not blocks and not args.get("attachments"):
            raise _Refusal("no_text")
        _check_blocks(blocks)
        metadata = args.get("metadata")
        if metadata and not (metadata.get("event_type") and "event_payload" in metadata):
            raise _Refusal("invalid_metadata_format")
        texts = [text[:40_000]]
        if not blocks and len(text) > ONE_POST_CHARACTERS:
            texts = [text[at : at + 4_000] for at in range(0, min(len(text), 40_000), 4_000)]
        posts = [self._store(channel, piece, blocks, args) for piece in texts]
        return {"channel": channel, "ts": posts[0].ts, "message": _message(posts[0], True)}

    def _store(self, channel: str, text: str, blocks: list[Json], args: Json) -> Post:
        thread = args.get("thread_ts")
        if thread and not self._find(channel, thread):
            thread = None  # Slack posts into the channel when the parent is not there
        post = Post(
            channel=channel,
            ts=self.next_ts(),
            text=text,
            user=BOT_USER,
            blocks=blocks,
            thread_ts=thread,
            metadata=args.get("metadata"),
            mrkdwn=_truth(args.get("mrkdwn"), True),
            unfurl=_truth(args.get("unfurl_links"), True),
        )
        self.messages.append(post)
        if self.echo_posts:
            self._spawn(self.push(self.own_post_event(post)))
        return post

    def _do_chat_update(self, args: Json) -> Json:
        channel = self._channel(args)
        post = self._find(channel, args.get("ts"))
        if post is None:
            raise _Refusal("message_not_found")
        if not post.own:
            raise _Refusal("cant_update_message")
        text, blocks = args.get("text") or "", args.get("blocks") or []
        if not text and not blocks:
            raise _Refusal("no_text")
        if len(text) > 4_000:
            raise _Refusal("msg_too_long")
        _check_blocks(blocks)
        post.text, post.blocks, post.edited = text, blocks, post.edited or not blocks
        post.metadata = args.get("metadata") or post.metadata
        return {"channel": channel, "ts": post.ts, "text": text}

    def _find(self, channel: str, ts: str | None) -> Post | None:
        return next((m for m in self.messages if (m.channel, m.ts) == (channel, ts)), None)

    def _do_conversations_history(self, args: Json) -> Json:
        channel = self._channel(args)
        found = [
            message
            for message in reversed(self.messages)
            if message.channel == channel and message.thread_ts in (None, message.ts)
        ]
        return _page(found, args)

    def _do_conversations_replies(self, args: Json) -> Json:
        channel = self._channel(args)
        parent = args.get("ts")
        if self._find(channel, parent) is None:
            raise _Refusal("thread_not_found")
        found = [m for m in self.messages if m.channel == channel and parent in (m.ts, m.thread_ts)]
        return _page(found, args)

    def _do_conversations_info(self, args: Json) -> Json:
        channel = self._channel(args)
        private = channel.startswith("D")
        archived = channel in self.archived
        return {"channel": {"id": channel, "is_im": private, "is_archived": archived}}

    def _do_conversations_open(self, args: Json) -> Json:
        channel = "D" + str(args.get("users", ""))[1:]
        self.channels.add(channel)
        return {"channel": {"id": channel}}

    def _do_users_info(self, args: Json) -> Json:
        user = str(args.get("user", ""))
        if not user:
            raise _Refusal("user_not_found")
        profile = {"display_name": f"Name of {user}", "real_name": f"Name of {user}"}
        locale = {"locale": "en-US"} if _truth(args.get("include_locale"), False) else {}
        return {"user": {"id": user, "is_bot": user == BOT_USER, "profile": profile, **locale}}

    def _do_assistant_threads_setStatus(self, args: Json) -> Json:
        if args.get("channel_id") not in self.channels:
            raise _Refusal("channel_not_found")
        if not args.get("thread_ts"):
            raise _Refusal("invalid_thread_ts")
        self.statuses.append(args)
        return {}

    def _do_assistant_threads_setSuggestedPrompts(self, args: Json) -> Json:
        prompts = args.get("prompts")
        if isinstance(prompts, str):
            prompts = json.loads(prompts)
        if not isinstance(prompts, list) or not 1 <= len(prompts) <= 4:
            raise _Refusal("invalid_arguments")
        self.prompts.append({**args, "prompts": prompts})
        return {}

    def _do_reactions_add(self, args: Json) -> Json:
        if self._find(self._channel(args), args.get("timestamp")) is None:
            raise _Refusal("message_not_found")
        self.reactions.append(args)
        return {}

    async def _response_url(self, http: web.Request) -> web.Response:
        self.responses.append(await http.json())
        await self._notify()
        return web.Response(text="ok")

    # --- what happens in the workspace ---------------------------------------------------------

    def next_ts(self) -> str:
        """Return the id of a new message: seconds, and a number that makes it unique."""
        return f"{int(self.clock())}.{next(self._numbers):06d}"

    def envelope(self, event: Json, event_id: str | None = None) -> Event:
        """Return an event in its envelope."""
        payload = {
            "token": "deprecated",
            "team_id": TEAM,
            "api_app_id": APP,
            "type": "event_callback",
            "event_id": event_id or f"Ev{uuid4().hex[:10].upper()}",
            "event_time": int(self.clock()),
            "event_context": "4-emulated",
            "is_ext_shared_channel": False,
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
            "event": event,
        }
        return Event(payload)

    def message(
        self,
        text: str,
        channel: str = "C0001",
        user: str = "U0001",
        thread_ts: str | None = None,
        **more: Any,
    ) -> Event:
        """Let somebody write in a channel; returns the `message` event."""
        self.channels.add(channel)
        ts = str(more.pop("ts", None) or self.next_ts())
        if self._find(channel, ts) is None:
            self.messages.append(Post(channel, ts, text, user, thread_ts=thread_ts))
        kind = "im" if channel.startswith("D") else "channel"
        event: Json = {
            "type": "message",
            "channel": channel,
            "channel_type": kind,
            "user": user,
            "text": text,
            "ts": ts,
            "event_ts": ts,
            "team": TEAM,
        }
        if thread_ts is not None:
            event["thread_ts"] = thread_ts
        return self.envelope(event | more)

    def direct(self, text: str, user: str = "U0001", **more: Any) -> Event:
        """Let somebody write to the bot alone."""
        return self.message(text, channel=more.pop("channel", "D" + user[1:]), user=user, **more)

    def mention(self, text: str, channel: str = "C0001", user: str = "U0001", **more: Any) -> Event:
        """Let somebody mention the bot in a channel; returns the `app_mention` event."""
        event = self.message(f"<@{BOT_USER}> {text}", channel=channel, user=user, **more)
        event.payload["event"]["type"] = "app_mention"
        event.payload["event"].pop("channel_type")
        return event

    def twin(self, event: Event) -> Event:
        """Return the other event about the same message: `message` for a mention, or reverse."""
        inner = dict(event.payload["event"])
        if inner["type"] == "app_mention":
            inner |= {"type": "message", "channel_type": "channel"}
        else:
            inner = {**inner, "type": "app_mention"}
        return self.envelope(inner)

    def edited(self, event: Event, text: str) -> Event:
        """Return the hidden notice that a person changed what they wrote."""
        before = event.payload["event"]
        after = {**before, "text": text, "edited": {"user": before["user"], "ts": self.next_ts()}}
        return self.envelope(
            {
                "type": "message", "subtype": "message_changed", "hidden": True,
                "channel": before["channel"], "ts": self.next_ts(),
                "channel_type": before.get("channel_type"),
                "message": {"type": "message", **after}, "previous_message": dict(before),
            }
        )  # fmt: skip

    def deleted(self, event: Event) -> Event:
        """Return the hidden notice that a person took back what they wrote."""
        before = event.payload["event"]
        return self.envelope(
            {
                "type": "message", "subtype": "message_deleted", "hidden": True,
                "channel": before["channel"], "ts": self.next_ts(),
                "channel_type": before.get("channel_type"),
                "deleted_ts": before["ts"], "previous_message": dict(before),
            }
        )  # fmt: skip

    def own_post_event(self, post: Post) -> Event:
        """Return the event by which a post of the bot comes back to it."""
        event = {**_message(post, True), "channel": post.channel, "channel_type": "channel"}
        return self.envelope(event | {"event_ts": post.ts})

    def press(self, post: Post, label: str, user: str = "U0001", **more: Any) -> Json:
        """Let somebody press a button of a post; returns the interaction's payload."""
        button = next(b for b in _presses(post) if b["label"] == label)
        return {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "username": "somebody", "name": "somebody"},
            "api_app_id": APP,
            "container": {
                "type": "message",
                "message_ts": post.ts,
                "channel_id": post.channel,
                **({"thread_ts": post.thread_ts} if post.thread_ts else {}),
            },
            "trigger_id": uuid4().hex,
            "channel": {"id": post.channel, "name": "channel"},
            "message": _message(post, True),
            "response_url": f"http://127.0.0.1:{self._port}/response/{uuid4().hex}",
            "actions": [{**button["action"], "action_ts": self.next_ts()}],
            **more,
        }

    # --- Slack calls us ------------------------------------------------------------------------

    def signature(self, body: bytes, timestamp: str) -> str:
        """Return the signature of a body."""
        signed = b"v0:" + timestamp.encode() + b":" + body
        return "v0=" + hmac.new(self.signing_secret.encode(), signed, hashlib.sha256).hexdigest()

    def signed(
        self,
        payload: Event | Json,
        *,
        retry: int = 0,
        reason: str = "http_timeout",
        skew: float = 0.0,
    ) -> dict[str, Any]:
        """Return `content` and `headers` of a signed JSON request; `skew` seconds are added."""
        body = payload.payload if isinstance(payload, Event) else payload
        headers = {"Content-Type": "application/json"}
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": reason}
        return self._signed(json.dumps(body).encode(), headers, skew)

    def signed_form(self, fields: Json, *, skew: float = 0.0) -> dict[str, Any]:
        """Return a signed form: a command's fields, or `{"payload": …}` of an interaction."""
        plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._signed(urlencode(plain).encode(), headers, skew)

    def command(self, text: str, user: str = "U0001", channel: str = "C0001") -> Json:
        """Return the fields of a slash command."""
        return {
            "command": "/deskhand",
            "text": text,
            "team_id": TEAM,
            "api_app_id": APP,
            "channel_id": channel,
            "channel_name": "channel",
            "user_id": user,
            "user_name": "somebody",
            "trigger_id": uuid4().hex,
            "response_url": f"http://127.0.0.1:{self._port}/response/{uuid4().hex}",
        }

    def _signed(self, body: bytes, headers: Json, skew: float) -> dict[str, Any]:
        timestamp = str(int(self.clock() + skew))
        headers = headers | {
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": self.signature(body, timestamp),
        }
        return {"content": body, "headers": headers}

    def url_verification(self, challenge: str = "3eZbrw1aBm2rZgRNFdxV") -> Json:
        """Return the body by which Slack checks a new address."""
        return {"token": "deprecated", "type": "url_verification", "challenge": challenge}

    async def push(self, event: Event, retries: int = 3) -> int:
        """Send an event to `events_url`, again on failure as Slack does, without the waits.

        Returns:
            The last status, 0 where no answer came.
        """
        if self.events_url is None:
            raise RuntimeError("events_url is not set")
        status = 0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            for attempt in range(retries + 1):
                call = self.signed(event, retry=attempt, reason="http_error")
                try:
                    async with session.post(
                        self.events_url, data=call["content"], headers=call["headers"]
                    ) as answer:
                        status = answer.status
                        stop = answer.headers.get("X-Slack-No-Retry") == "1"
                except (aiohttp.ClientError, TimeoutError):
                    status, stop = 0, False
                self.deliveries.append((event.payload["event_id"], status))
                await self._notify()
                if stop or 200 <= status < 300:
                    break
        return status

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- Socket Mode ---------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many sockets are open."""
        return len(self._sockets)

    @property
    def unacked(self) -> int:
        """How many envelopes wait for their acknowledgement."""
        return len(self._unacked)

    async def connected(self, wanted: int = 1, seconds: float = 30.0) -> None:
        """Wait until that many sockets are open."""
        await self.until(lambda: self.connections >= wanted, seconds)

    async def acked_count(self, wanted: int, seconds: float = 30.0) -> list[str]:
        """Return the acknowledged envelopes as soon as there are that many."""
        await self.until(lambda: len(self.acked) >= wanted, seconds)
        return self.acked

    async def send_envelope(self, payload: Event | Json, kind: str = "events_api") -> str:
        """Send something over a socket, now or when one opens; returns the envelope's id."""
        body = payload.payload if isinstance(payload, Event) else payload
        envelope: Json = {
            "envelope_id": str(uuid4()),
            "type": kind,
            "payload": body,
            "accepts_response_payload": kind != "events_api",
            "retry_attempt": 0,
            "retry_reason": "",
        }
        self._unacked[envelope["envelope_id"]] = (envelope, None)
        await self._flush()
        return envelope["envelope_id"]

    async def resend_unacked(self) -> None:
        """Send what was not acknowledged in time again, as Slack does after some seconds."""
        for key, (envelope, _) in list(self._unacked.items()):
            self._unacked[key] = (_again(envelope, "timeout"), None)
        await self._flush()

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """End the sockets with a reason: warning, refresh_requested, link_disabled …"""
        for socket in list(self._sockets):
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
            if reason != "warning":
                await socket.close()

    async def drop_sockets(self) -> None:
        """Cut the sockets' connections without a word."""
        for transport in list(self._transports.values()):
            transport.abort()

    async def _flush(self) -> None:
        for key, (envelope, sent_to) in list(self._unacked.items()):
            if sent_to is not None or not self._sockets:
                continue
            socket = self._sockets[next(self._numbers) % len(self._sockets)]
            self._unacked[key] = (envelope, socket)
            try:
                await socket.send_json(envelope)
            except ConnectionError:
                self._unacked[key] = (envelope, None)

    async def _socket(self, http: web.Request) -> web.StreamResponse:
        ticket = http.match_info["ticket"]
        if ticket not in self._tickets:
            return web.Response(status=404)
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(http)
        await socket.send_json(
            {
                "type": "hello",
                "num_connections": len(self._sockets) + 1,
                "debug_info": {"approximate_connection_time": 18_060},
                "connection_info": {"app_id": APP},
            }
        )
        self._sockets.append(socket)
        if http.transport is not None:
            self._transports[socket] = http.transport
        await self._notify()
        await self._flush()
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self._take_ack(json.loads(frame.data))
                    await self._notify()
        finally:
            self._sockets.remove(socket)
            self._transports.pop(socket, None)
            for key, (envelope, sent_to) in list(self._unacked.items()):
                if sent_to is socket:
                    self._unacked[key] = (_again(envelope, "connection_failed"), None)
            await self._notify()
            await self._flush()
        return socket

    def _take_ack(self, frame: Json) -> None:
        key = frame.get("envelope_id", "")
        if self._unacked.pop(key, None) is not None:
            self.acked.append(key)
        if frame.get("payload"):
            self.responses.append(frame["payload"])


# --- details -----------------------------------------------------------------------------------


async def _arguments(http: web.Request) -> Json:
    args: Json = dict(http.query)
    if http.content_type == "application/json":
        return args | await http.json()
    for name, value in (await http.post()).items():
        args[name] = value
        if isinstance(value, str) and name in ("blocks", "metadata", "attachments"):
            args[name] = json.loads(value)
    return args


def _truth(value: Any, default: bool) -> bool:
    return default if value is None else value in (True, "1", "true", "True", 1)


def _again(envelope: Json, reason: str) -> Json:
    attempt = envelope["retry_attempt"] + 1
    return {**envelope, "retry_attempt": attempt, "retry_reason": reason}


def _message(post: Post, with_metadata: bool) -> Json:
    message: Json = {"type": "message", "ts": post.ts, "text": post.text, "user": post.user}
    if post.own:
        message |= {"bot_id": BOT_ID, "app_id": APP, "bot_profile": {"id": BOT_ID, "app_id": APP}}
    if post.blocks:
        message["blocks"] = post.blocks
    if post.thread_ts:
        message["thread_ts"] = post.thread_ts
    if post.metadata:
        shown = dict(post.metadata)
        if not with_metadata:
            shown.pop("event_payload", None)
        message["metadata"] = shown
    return message


def _page(found: list[Post], args: Json) -> Json:
    oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
    inclusive = _truth(args.get("inclusive"), False)
    kept = [
        m
        for m in found
        if oldest < float(m.ts) < latest or (inclusive and float(m.ts) in (oldest, latest))
    ]
    limit, begin = int(args.get("limit") or 100), int(args.get("cursor") or 0)
    metadata = _truth(args.get("include_all_metadata"), False)
    page = kept[begin : begin + limit]
    more = begin + limit < len(kept)
    return {
        "messages": [_message(message, metadata) for message in page],
        "has_more": more,
        "response_metadata": {"next_cursor": str(begin + limit) if more else ""},
    }


_BLOCKS = {
    *("rich_text", "section", "actions", "context", "context_actions", "divider", "header"),
    *("image", "markdown", "input", "file", "video", "table"),
}


def _check_blocks(blocks: list[Json]) -> None:
    problem = next((p for block in blocks if (p := _problem(block))), None)
    if len(blocks) > 50:
        problem = "no more than 50 items allowed"
    if problem:
        raise _Refusal(
            "invalid_blocks", errors=[problem], response_metadata={"messages": [problem]}
        )
    if len(_shown(blocks)) > ALL_BLOCKS_CHARACTERS:
        raise _Refusal("msg_blocks_too_long")


def _problem(block: Json) -> str | None:
    elements = list(_walk([block]))
    buttons = [e for e in elements if e.get("type") == "button"]
    ids = [e["action_id"] for e in elements if e.get("action_id")]
    checks = {
        "unsupported type": block.get("type") not in _BLOCKS,
        "section text over 3000": block.get("type") == "section"
        and len((block.get("text") or {}).get("text", "")) > 3000,
        "text element is empty": any(e.get("type") == "text" and not e["text"] for e in elements),
        "link element is empty": any(e.get("type") == "link" and not e["url"] for e in elements),
        "elements are empty": any("elements" in e and not e["elements"] for e in elements),
        "over 25 elements": block.get("type") == "actions" and len(block["elements"]) > 25,
        "button text over 75": any(not 0 < len(b["text"]["text"]) <= 75 for b in buttons),
        "button value over 2000": any(len(b.get("value", "")) > 2000 for b in buttons),
        "action_id over 255": any(len(one) > 255 for one in ids),
        "action_id is not unique": len(set(ids)) < len(ids),
        "indent over 8": any(e.get("indent", 0) > 8 for e in elements),
    }
    return next((name for name, wrong in checks.items() if wrong), None)


def _presses(post: Post) -> Iterator[Json]:
    for block in post.blocks:
        for element in block.get("elements", []):
            action = {"block_id": block.get("block_id", ""), "action_id": element.get("action_id")}
            if element.get("type") == "button":
                pressed = {**action, "type": "button", "value": element.get("value", "")}
                yield {"label": element["text"]["text"], "action": pressed}
            for name in ("positive_button", "negative_button"):
                if name in element:
                    button = element[name]
                    pressed = {**action, "type": "feedback_buttons", "value": button["value"]}
                    yield {"label": button["text"]["text"], "action": pressed}
