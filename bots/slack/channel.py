"""One Slack workspace: takes in what people say there, and posts our replies."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any, cast

import aiohttp
from fastapi import APIRouter
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack import sending, wire
from bots.slack.parsing import Command, Identity, Ignored, Opened, Uninstalled, parse
from bots.slack.routes import slack_routes
from bots.slack.settings import SlackSettings
from bots.slack.socket_mode import SocketMode
from core.errors import (
    ConfigurationError,
    InvalidInput,
    TransientError,
    Unavailable,
    UncertainError,
)
from core.ports import Receiver
from core.retrying import backoff
from core.types import (
    Delivery,
    Incoming,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    IncomingMove,
    Limits,
)

log = logging.getLogger(__name__)

RECEIVER = "deskhand_receiver"
"""Where a Bolt request's context holds the inbox's receiver."""

CLOCK_SKEW_SECONDS = 300.0
"""A look-up begins that much before the claim: Slack's clock stamps the posts, not ours."""
LOOK_UP_PAGES = 20
LOOK_UP_PAGE = 200

QUESTIONS_REMEMBERED = 1_000
PROMPTS = 4
"""Slack shows no more of them in the assistant's pane."""

WORKING = "is thinking…"
ANSWERS_DIRECTLY = "The answer comes as a direct message."
HOW_TO_ASK = "Write your question behind the command, or send it to me as a direct message."


class Slack:
    """Slack's Web API, with events by HTTP or Socket Mode.

    Args:
        settings: Tokens and secrets.

    Raises:
        ConfigurationError: The settings do not fit together.
    """

    name = "slack"
    limits = Limits(per_chat=60, window_seconds=60.0)
    working_seconds = 100.0  # Slack shows it for two minutes

    def __init__(self, settings: SlackSettings) -> None:
        settings.check()
        self.settings = settings
        self.identity = Identity()
        self._session: aiohttp.ClientSession | None = None
        self._client: AsyncWebClient | None = None
        self._bolt: AsyncApp | None = None
        self._learning: asyncio.Task[None] | None = None
        self._courtesies: set[asyncio.Task[None]] = set()
        self._questions: OrderedDict[str, str] = OrderedDict()

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the session; learn who we are, without failing while Slack is away."""
        self._session = wire.new_session()
        self._client = wire.new_client(self.settings, self._session)
        self._bolt = self._new_bolt(self._client)
        if self.settings.bot_token is not None:
            self._learning = asyncio.create_task(self._learn_identity())

    async def close(self) -> None:
        """Close the session."""
        tasks = [*self._courtesies, *([self._learning] if self._learning else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def bolt(self) -> AsyncApp:
        """The Bolt app to which requests are dispatched, once started."""
        if self._bolt is None:
            raise RuntimeError("Slack was not started")
        return self._bolt

    @property
    def client(self) -> AsyncWebClient:
        """The client, once started."""
        if self._client is None:
            raise RuntimeError("Slack was not started")
        return self._client

    def _new_bolt(self, client: AsyncWebClient) -> AsyncApp:
        """Return an app that stores ahead of Bolt's authorisation.

        Bolt asks `auth.test` before a listener runs, and answers 200 when that fails: the event
        would be lost. Our own middleware stands before it and answers everything.
        """
        return AsyncApp(
            logger=logging.getLogger("slack_bolt"),
            client=client,
            process_before_response=True,
            request_verification_enabled=False,  # signing.py did it, without Bolt's 500s
            before_authorize=self._handle,
        )

    async def identified(self) -> Identity:
        """Return who we are, as soon as Slack has told."""
        if self._learning is not None:
            await asyncio.shield(self._learning)
        return self.identity

    async def _learn_identity(self) -> None:
        """Ask until Slack tells; without it mentions are known from the events themselves."""
        attempts = 0
        while True:
            attempts += 1
            try:
                told = await self.client.auth_test()
            except (SlackApiError, *wire.LOST_CONNECTION) as error:
                code = wire.error_code(error) if isinstance(error, SlackApiError) else ""
                log.log(
                    logging.WARNING if attempts == 1 else logging.DEBUG,
                    "Slack does not tell who the bot is",
                    extra={
                        "action": "identity_unknown",
                        "reason": code[:80] or type(error).__name__,
                    },
                )
                await asyncio.sleep(backoff(attempts))
            else:
                self.identity = Identity(
                    str(told.get("user_id") or ""), str(told.get("bot_id") or "")
                )
                log.info("Slack told who the bot is", extra={"action": "identity_known"})
                return

    # --- in ------------------------------------------------------------------------------------

    def routes(self, receiver: Receiver) -> APIRouter:
        """Return the routes on which Slack calls us."""
        secret = self.settings.signing_secret

        async def dispatch(request: AsyncBoltRequest) -> BoltResponse:
            return await self._dispatch(request, receiver)

        return slack_routes(secret.get_secret_value() if secret else None, dispatch, receiver)

    async def poll(self, receiver: Receiver, stop: asyncio.Event) -> None:
        """Take in events by Socket Mode until `stop` is set."""
        if self.settings.app_token is None or self._session is None:
            raise ConfigurationError("Socket Mode needs SLACK_APP_TOKEN and a started channel.")

        async def take_in(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
            return await self._take_in_payload(payload, receiver)

        token = self.settings.app_token.get_secret_value()
        await SocketMode(self.client, token, self._session, take_in, receiver).run(stop)

    async def _dispatch(self, request: AsyncBoltRequest, receiver: Receiver) -> BoltResponse:
        request.context[RECEIVER] = receiver
        return await self.bolt.async_dispatch(request)

    async def _take_in_payload(
        self, payload: Mapping[str, Any], receiver: Receiver
    ) -> Mapping[str, Any] | None:
        """Send a Socket Mode payload the same way as an HTTP request.

        Raises:
            Unavailable: It could not be stored now.
        """
        try:
            request = AsyncBoltRequest(mode="socket_mode", body=dict(payload))
        except Exception:  # nothing that Slack would send; asking again would not mend it
            receiver.rejected("a payload that cannot be read")
            return None
        response = await self._dispatch(request, receiver)
        if response.status != 200:
            raise Unavailable(f"The event could not be stored (status {response.status}).")
        return json.loads(response.body) if response.body else None

    async def _handle(self, req: AsyncBoltRequest) -> BoltResponse:
        """Store what a request means, then answer it."""
        receiver = cast("Receiver", req.context[RECEIVER])
        try:
            return BoltResponse(status=200, body=await self.take_in(req.body, receiver))
        except Unavailable as error:
            wait = str(max(1, round(error.retry_after or 1)))
            return BoltResponse(status=503, body="", headers={"Retry-After": wait})
        except Exception:  # a defect of ours: Slack brings the event again
            log.exception("Event could not be taken in", extra={"action": "event_failed"})
            return BoltResponse(status=500, body="")

    async def take_in(self, body: Mapping[str, Any], receiver: Receiver) -> dict[str, Any] | str:
        """Hand what a request means to the receiver, and return what to answer.

        Raises:
            Unavailable: It could not be stored now.
        """
        parsed = parse(body, self.identity)
        try:
            match parsed:
                case Incoming():
                    self._note_question(parsed)
                    await receiver.receive(parsed)
                case IncomingFeedback():
                    await receiver.give_feedback(parsed)
                case Command(None):
                    return _only_for_them(HOW_TO_ASK)
                case Command(incoming):
                    if incoming is not None:
                        await receiver.receive(incoming)
                    return _only_for_them(ANSWERS_DIRECTLY)
                case IncomingEdit() | IncomingDeletion() | IncomingMove():
                    await receiver.change(parsed)
                case Opened(chat, thread):
                    self._in_background(self._suggest(chat, thread, receiver))
                case Uninstalled(trouble):
                    await receiver.shut(trouble)
                case Ignored(reason):
                    receiver.ignored(reason)
        except InvalidInput as error:  # the same event again would not be better
            receiver.rejected(str(error))
        return ""

    async def _suggest(self, chat: str, thread: str, receiver: Receiver) -> None:
        """Offer questions to begin with in a pane that was opened; a courtesy."""
        questions = await receiver.starters(PROMPTS)
        if not questions:
            return
        prompts = [{"title": question, "message": question} for question in questions]
        with suppress(SlackApiError, *wire.LOST_CONNECTION):
            await self.client.assistant_threads_setSuggestedPrompts(
                channel_id=chat, thread_ts=thread, prompts=prompts
            )

    def _note_question(self, incoming: Incoming) -> None:
        """Remember by which message of a direct conversation a status can be shown.

        The status is shown by the process that took the message in; elsewhere, or once it is
        forgotten, there is none, which is no loss.
        """
        if incoming.private and incoming.thread is None and _is_ts(incoming.message_id):
            self._questions[incoming.chat] = incoming.message_id
            self._questions.move_to_end(incoming.chat)
            while len(self._questions) > QUESTIONS_REMEMBERED:
                self._questions.popitem(last=False)

    # --- out -----------------------------------------------------------------------------------

    def parts(self, delivery: Delivery) -> int:
        """Return into how many posts a delivery is split."""
        return len(sending.parts(delivery))

    async def send(self, delivery: Delivery, part: int) -> str:
        """Post one part of a delivery and return its `ts`."""
        ts = await self._send(delivery, part)
        if delivery.thread is None and _is_ts(delivery.reply_to or ""):
            # In a thread the reply itself ends the status; beside it nothing else does.
            self._in_background(self._set_status(delivery.chat, str(delivery.reply_to), ""))
        return ts

    async def _send(self, delivery: Delivery, part: int) -> str:
        try:
            return await self._post(sending.post(delivery, part))
        except SlackApiError as error:
            if wire.error_code(error) not in wire.BROKEN_BLOCKS:
                raise wire.translated(error, delivery.chat) from error
        except Exception as error:  # the SDK stumbles over odd answers in many ways
            raise wire.translated(error, delivery.chat) from error
        # Refused, so surely not posted: the words matter more than their looks.
        log.warning(
            "Message posted again without its formatting",
            extra={"action": "formatting_refused", "delivery_id": delivery.id},
        )
        try:
            return await self._post(sending.plain_post(delivery, part))
        except Exception as error:
            raise wire.translated(error, delivery.chat) from error

    async def _post(self, arguments: dict[str, Any]) -> str:
        posted = await self.client.chat_postMessage(**arguments)
        return str(posted["ts"])

    async def find_sent(self, delivery: Delivery, part: int) -> str | None:
        """Return the `ts` of a part that stands in the chat, by its metadata."""
        wanted = sending.mark(delivery, part)
        try:
            async for message in self._messages_since(delivery):
                metadata = message.get("metadata") or {}
                if metadata.get("event_type") != sending.EVENT_TYPE:
                    continue
                if "event_payload" not in metadata:
                    raise UncertainError("Slack hides what its posts are marked with.")
                if metadata["event_payload"] == wanted:
                    return str(message["ts"])
        except SlackApiError as error:
            raise _look_up_error(error) from error
        except UncertainError:
            raise
        except Exception as error:
            raise TransientError("Slack cannot be asked what was posted") from error
        return None

    async def _messages_since(self, delivery: Delivery) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the messages of a delivery's chat or thread from its claim on.

        Raises:
            UncertainError: There are more than can be read.
        """
        arguments: dict[str, Any] = {"include_all_metadata": True, "limit": LOOK_UP_PAGE}
        if delivery.claimed_at is not None:
            arguments["oldest"] = f"{delivery.claimed_at.timestamp() - CLOCK_SKEW_SECONDS:.6f}"
        cursor = ""
        for _ in range(LOOK_UP_PAGES):
            if cursor:
                arguments["cursor"] = cursor
            page = await self._read_page(delivery, arguments)
            for message in page.get("messages") or []:
                yield message
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return
        raise UncertainError("Too much was posted since to look it all up.")

    async def _read_page(self, delivery: Delivery, arguments: dict[str, Any]) -> Mapping[str, Any]:
        if delivery.thread:
            answer = await self.client.conversations_replies(
                channel=delivery.chat, ts=delivery.thread, **arguments
            )
        else:
            answer = await self.client.conversations_history(channel=delivery.chat, **arguments)
        return cast("Mapping[str, Any]", answer.data)

    async def show_working(self, chat: str, thread: str | None) -> None:
        """Show that the bot is at work: in the thread, else by the message that asked."""
        place = thread or self._questions.get(chat)
        if place is not None:
            await self._set_status(chat, place, WORKING)

    async def _set_status(self, chat: str, thread: str, status: str) -> None:
        with suppress(SlackApiError, *wire.LOST_CONNECTION):
            await self.client.assistant_threads_setStatus(
                channel_id=chat, thread_ts=thread, status=status
            )

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._courtesies.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._courtesies.discard)


def _is_ts(message_id: str) -> bool:
    return re.fullmatch(r"\d{1,12}\.\d{1,9}", message_id, re.ASCII) is not None


def _only_for_them(text: str) -> dict[str, Any]:
    return {"response_type": "ephemeral", "text": text}


def _look_up_error(error: SlackApiError) -> Exception:
    translated = wire.translated(error, "")
    if isinstance(translated, TransientError):
        return translated
    code = wire.error_code(error)
    if not code or code in wire.PERHAPS_DONE:  # reading may be repeated
        return TransientError("Slack cannot be asked what was posted")
    # Bot tokens may not read every thread; and what may not be read cannot be settled.
    return UncertainError(f"Slack does not show what was posted ({code[:80]}).")
