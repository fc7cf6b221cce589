"""Events over Socket Mode: each is acknowledged only when it is stored.

Not the SDK's client: that closes the old socket before it opens the new one, handles frames as
parallel tasks without order, and has gone deaf after idle reconnects (python-slack-sdk#1701). Here
two connections overlap, each takes its frames in order, and a heartbeat notices a dead one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack import wire
from core.errors import TransientError
from core.ports import Receiver
from core.retrying import backoff

log = logging.getLogger(__name__)

CONNECTIONS = 2
"""Slack sends an event to any of them; while one is renewed, the other goes on."""
HEARTBEAT_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 60.0
"""After Slack refused our token, which only staff can change."""
FAILURES_OF_NOTE = 3
"""A single dropped connection is no news."""

Answer = Mapping[str, Any]
TakeIn = Callable[[Mapping[str, Any]], Awaitable[Answer | None]]
"""Stores what a payload means and returns what to answer; raises if it cannot be stored now."""


class SocketMode:
    """Holds the connections of one workspace.

    Args:
        client: Calls `apps.connections.open`.
        app_token: The `xapp-` token.
        take_in: What to do with a payload.
        receiver: Told of trouble.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        app_token: str,
        session: aiohttp.ClientSession,
        take_in: TakeIn,
        receiver: Receiver,
    ) -> None:
        self._client = client
        self._app_token = app_token
        self._session = session
        self._take_in = take_in
        self._receiver = receiver
        self._reported: str | None = "not known"  # what an earlier process left there

    async def run(self, stop: asyncio.Event) -> None:
        """Take in events until `stop` is set; whatever happens, go on."""
        holding = [asyncio.create_task(self._hold()) for _ in range(CONNECTIONS)]
        try:
            await stop.wait()
        finally:
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)

    async def _hold(self) -> None:
        failures = 0
        while True:
            try:
                async with self._connected() as socket:
                    await self._tell(None)
                    failures = 0
                    await self._serve(socket)
            except Exception as error:  # the loop must outlive everything
                failures += 1
                await asyncio.sleep(await self._judge(error, failures))

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        opened = await self._client.apps_connections_open(app_token=self._app_token)
        async with self._session.ws_connect(
            str(opened["url"]), heartbeat=HEARTBEAT_SECONDS, timeout=_NO_LONG_GOODBYE
        ) as socket:
            yield socket

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take in frames in their order until Slack ends the connection."""
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                continue
            envelope = _read(frame.data)
            if envelope.get("type") == "disconnect":
                # A warning comes 10 s ahead; the other connection holds while this one is renewed.
                reason = str(envelope.get("reason"))[:80]
                log.info(
                    "Slack ends a connection", extra={"action": "socket_ends", "reason": reason}
                )
                if reason == "link_disabled":
                    raise _LinkDisabled
                if reason in ("warning", "refresh_requested"):
                    return
                raise ConnectionResetError(reason)
            if isinstance(envelope.get("envelope_id"), str):
                await self._take_in_one(socket, envelope)
        raise ConnectionResetError("the socket closed")

    async def _take_in_one(
        self, socket: aiohttp.ClientWebSocketResponse, envelope: Mapping[str, Any]
    ) -> None:
        payload = envelope.get("payload")
        if not isinstance(payload, Mapping):
            payload = {}
        try:
            answer = await self._take_in(payload)
        except TransientError as error:
            # Not acknowledged: Slack sends it again.
            log.warning(
                "Event could not be stored", extra={"action": "event_put_off", "reason": str(error)}
            )
            return
        acknowledged: dict[str, Any] = {"envelope_id": envelope["envelope_id"]}
        if answer and envelope.get("accepts_response_payload"):
            acknowledged["payload"] = answer
        await socket.send_str(json.dumps(acknowledged))

    async def _judge(self, error: Exception, failures: int) -> float:
        """Tell staff what is of note, and return the pause."""
        growing = min(LONGEST_PAUSE_SECONDS, backoff(failures))
        if isinstance(error, _LinkDisabled):
            await self._tell("Slack: Socket Mode is switched off in the app's settings.")
            return REFUSED_PAUSE_SECONDS
        if isinstance(error, SlackApiError):
            refused = wire.translated(error, "")
            if isinstance(refused, TransientError):
                return refused.retry_after or growing
            code = wire.error_code(error)
            if code and code not in wire.PERHAPS_DONE:
                await self._tell(f"Slack refuses SLACK_APP_TOKEN ({code[:80]}); set a valid one.")
                return REFUSED_PAUSE_SECONDS
        elif not isinstance(error, wire.LOST_CONNECTION):
            log.exception("Socket Mode failed", extra={"action": "socket_failed"})
        if failures >= FAILURES_OF_NOTE:
            await self._tell("Slack cannot be reached by Socket Mode.")
        return growing

    async def _tell(self, trouble: str | None) -> None:
        if trouble == self._reported:
            return
        if trouble is not None:
            log.error(trouble, extra={"action": "slack_trouble"})
        with suppress(TransientError):  # the database may be what is away: told next time
            await self._receiver.report_trouble(trouble)
            self._reported = trouble


class _LinkDisabled(Exception):
    """Socket Mode was switched off for the app."""


# pyright does not see the fields of an attrs class.
_NO_LONG_GOODBYE = aiohttp.ClientWSTimeout(ws_close=1.0)  # pyright: ignore[reportCallIssue]


def _read(data: str) -> Mapping[str, Any]:
    try:
        envelope: object = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return envelope if isinstance(envelope, Mapping) else {}
