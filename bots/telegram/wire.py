"""The Bot API's client: timeouts, what it never logs, and its errors in our branches."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from telegram import Bot, Update
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Forbidden,
    InvalidToken,
    NetworkError,
    TelegramError,
)
from telegram.request import HTTPXRequest

from bots.telegram.settings import TelegramSettings
from core import telemetry
from core.errors import DeskhandError, PermanentError, TransientError, UncertainError

log = logging.getLogger(__name__)

POLL_SECONDS = 20
"""How long Telegram holds an empty getUpdates."""
CALL_SECONDS = 35.0
"""The longest a call may take in all; the parts' timeouts alone do not bound it."""
LONGEST_DESCRIPTION = 200
LONGEST_WAIT_SECONDS = 3_600.0
"""A longer one is asked for again: nothing outside may stop an inbox for good."""

GONE = re.compile(
    "chat not found|user not found|PEER_ID_INVALID|group chat was deactivated|chat was deleted",
    re.IGNORECASE,
)
FORMATTING = re.compile(r"can't parse|entit|button|keyboard|markup", re.IGNORECASE)
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class TooManyRequests(TelegramError):
    """Telegram asks us to wait.

    PTB's own `RetryAfter` warns of a change at each use, so it is never made.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Telegram asks to wait {seconds:g} s")
        self.seconds = seconds


class Request(HTTPXRequest):
    """PTB's HTTP client, minding status 429 and never logging a body."""

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        status, body = await super().do_request(*args, **kwargs)
        if status == 429:
            raise TooManyRequests(_asked_wait(body))
        return status, body

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        """Return an answer; an update that PTB cannot read comes back bare, with its id.

        PTB would log the body (customers' words), and one odd update would stall all others.
        """
        try:
            answer = json.loads(payload.decode("utf-8", "replace"))
        except ValueError:
            raise TelegramError("The answer is not JSON") from None
        if not isinstance(answer, dict) or ("result" not in answer and answer.get("ok", True)):
            raise TelegramError("The answer is not one of the Bot API")
        result: Any = answer.get("result")
        if isinstance(result, list):
            answer["result"] = [_readable(update) for update in result]
        return answer


def _asked_wait(body: bytes) -> float:
    with suppress(ValueError, KeyError, TypeError):
        asked = float(json.loads(body)["parameters"]["retry_after"])
        return min(max(1.0, asked), LONGEST_WAIT_SECONDS)
    return 1.0


def _readable(update: Any) -> dict[str, Any]:
    try:
        Update.de_json(update, None)
    except Exception as error:  # whatever Telegram may add, the others must come through
        update_id = int(update["update_id"])
        log.error(
            "Update cannot be read",
            extra={
                "action": "update_unreadable",
                "update_id": update_id,
                "reason": type(error).__name__,
            },
        )
        return {"update_id": update_id}
    return update


def read_update(body: bytes, bot: Bot) -> Update:
    """Return the update that a webhook request carries.

    Raises:
        ValueError: It is not one.
    """
    data = json.loads(body)
    if not isinstance(data, dict) or not isinstance(data.get("update_id"), int):
        raise ValueError("not an update")
    return Update.de_json(_readable(data), bot)


NO_TOKEN = "none"  # noqa: S105 - the absence of one
"""Of a bot that is not set up: its webhook route is there and refuses all, it is never started."""


@dataclass(frozen=True)
class Client:
    """A bot and the two connection pools that it uses; a long poll has one of its own."""

    bot: Bot
    calls: Request
    updates: Request

    @classmethod
    def of(cls, settings: TelegramSettings) -> Client:
        """Return a client with timeouts that fit sends."""
        # Adding the same filter again does nothing.
        logging.getLogger("httpx").addFilter(HIDE_TOKENS)
        logging.getLogger("telegram.Bot").addFilter(HIDE_PARAMETERS)
        # More time for an answer than PTB's 5 s: a send that timed out is uncertain for good.
        calls = Request(connection_pool_size=64, connect_timeout=5, read_timeout=20, pool_timeout=2)
        updates = Request(connection_pool_size=2, connect_timeout=5, read_timeout=10)
        token = settings.bot_token.get_secret_value() if settings.bot_token else NO_TOKEN
        bot = Bot(
            token,
            base_url=f"{settings.api_url}/bot",
            base_file_url=f"{settings.api_url}/file/bot",
            request=calls,
            get_updates_request=updates,
        )
        return cls(bot, calls, updates)

    async def open(self) -> None:
        """Open the pools, also after `close`; makes no request."""
        await asyncio.gather(self.calls.initialize(), self.updates.initialize())

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self.calls.shutdown(), self.updates.shutdown())


class _HideTokens(logging.Filter):
    """Takes the token out of the URLs that httpx logs at INFO."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; keep it."""
        said = record.getMessage()
        if "/bot" in said:
            record.msg, record.args = re.sub(r"/bot[^/\s\"']+", "/bot[token]", said), ()
        return True


class _HideParameters(logging.Filter):
    """Drops what PTB logs at DEBUG: URLs, customers' words, the webhook's secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what is not chatter."""
        return record.levelno >= logging.WARNING


HIDE_TOKENS = _HideTokens()
HIDE_PARAMETERS = _HideParameters()


# --- errors ----------------------------------------------------------------------------------


def is_formatting(error: TelegramError) -> bool:
    """Tell whether Telegram refused a message for its entities or buttons, not for its chat."""
    return isinstance(error, BadRequest) and FORMATTING.search(error.message) is not None


def surely_not_sent(error: BaseException) -> bool:
    """Tell whether a call failed before a byte of it left: no connection, or none free."""
    return isinstance(error.__cause__, NOT_SENT)


def translated(error: TelegramError | TimeoutError, chat: str) -> DeskhandError:
    """Return what an error of a send means for the sender.

    The order matters: PTB's `BadRequest` is a `NetworkError`.
    """
    match error:
        case TooManyRequests():
            return TransientError(str(error), retry_after=error.seconds)
        case ChatMigrated():
            return PermanentError("The group became a supergroup.", moved_to=str(error.new_chat_id))
        case Forbidden():
            return PermanentError(_refused(error, chat), contact_gone=True)
        case BadRequest():
            return PermanentError(
                _refused(error, chat), contact_gone=GONE.search(error.message) is not None
            )
        case InvalidToken():
            return PermanentError(
                "Telegram refuses the bot token; set a valid TELEGRAM_BOT_TOKEN.", inbox_gone=True
            )
        case NetworkError() if surely_not_sent(error):
            return TransientError("Telegram cannot be reached.")
        case _:  # 5xx, timeouts, a dropped connection, an answer that is no JSON
            return UncertainError(f"Telegram may have sent it ({_kind(error)}).")


def _refused(error: TelegramError, chat: str) -> str:
    description = telemetry.mask(error.message)[:LONGEST_DESCRIPTION]
    return f"Telegram refused chat {chat}: {description}"


def _kind(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__
