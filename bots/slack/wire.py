"""The client that speaks to Slack, and its errors in our branches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.settings import SlackSettings
from core.errors import DeskhandError, PermanentError, TransientError, UncertainError

CALL_SECONDS = 30.0
"""Slack itself gives up earlier; a delivery's claim must outlive it."""
CONNECT_SECONDS = 5.0
"""So that sending resumes within seconds of an outage's end."""
RATE_LIMIT_SECONDS = 30.0
"""Where a 429 names no wait."""

INBOX_GONE = {
    *("account_inactive", "invalid_auth", "not_authed", "token_revoked", "token_expired"),
    *("missing_scope", "not_allowed_token_type", "org_login_required", "access_denied"),
    *("team_access_not_granted", "ekm_access_denied", "enterprise_is_restricted"),
}
"""Our own account, token or permission is at fault: nothing can be sent until staff act."""

CONTACT_GONE = {
    *("is_archived", "channel_not_found", "not_in_channel", "user_not_found", "user_disabled"),
    *("cannot_dm_bot", "messages_tab_disabled", "restricted_action"),
}
BROKEN_BLOCKS = {
    *("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "block_mismatch"),
    *("invalid_arguments", "unsupported_block_type"),
}
PERHAPS_DONE = {"internal_error", "fatal_error", "service_unavailable"}
SURELY_NOT_DONE = {"ratelimited", "rate_limited", "request_timeout", "team_added_to_org"}


NOT_INSTALLED = "not-installed"
"""Bolt wants a token, also before there is one."""


def new_session() -> aiohttp.ClientSession:
    """Return the session of all calls; the SDK would open one for each."""
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True)


def new_client(settings: SlackSettings, session: aiohttp.ClientSession) -> AsyncWebClient:
    """Return a client that calls once: its own repetition after a lost connection posts twice."""
    token = settings.bot_token.get_secret_value() if settings.bot_token else NOT_INSTALLED
    client = AsyncWebClient(
        token,
        base_url=settings.api_url,
        timeout=int(CALL_SECONDS),
        session=session,
        retry_handlers=[],
    )
    client.proxy = None  # the session heeds the environment's proxy, with its exceptions
    return client


def error_code(error: SlackApiError) -> str:
    """Return Slack's word for what is wrong, empty if the answer was no answer."""
    return str(_data(error).get("error") or "")


def _data(error: SlackApiError) -> Mapping[str, Any]:
    data: object = getattr(error.response, "data", error.response)
    return cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else {}


def _status(error: SlackApiError) -> int:
    return int(getattr(error.response, "status_code", 0) or getattr(error.response, "status", 0))


def _retry_after(error: SlackApiError) -> float:
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    named = next((v for name, v in headers.items() if name.lower() == "retry-after"), "")
    try:
        return max(1.0, float(named))
    except ValueError:
        return RATE_LIMIT_SECONDS


def translated(error: Exception, chat: str) -> DeskhandError:
    """Return our error for a failed post; texts of Slack's only where they are known words."""
    if isinstance(error, SlackApiError):
        return _refused(error, chat)
    if surely_not_sent(error):
        return TransientError("Slack cannot be reached")
    return UncertainError(f"Slack may have posted it ({type(error).__name__})")


def surely_not_sent(error: Exception) -> bool:
    """Tell whether no connection came about, so that nothing can have been sent."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _refused(error: SlackApiError, chat: str) -> DeskhandError:
    code, status = error_code(error), _status(error)
    if status == 429 or code in ("ratelimited", "rate_limited"):
        # The limit is the method's in the whole workspace, whichever chat ran into it.
        return TransientError("Slack says wait", retry_after=_retry_after(error), whole_inbox=True)
    if code in SURELY_NOT_DONE:
        return TransientError(f"Slack did not take the request ({code})")
    if status >= 500 or code in PERHAPS_DONE or not code:
        return UncertainError(f"Slack may have posted it ({code or status})")
    if code in INBOX_GONE:
        return PermanentError(f"Slack refuses our account: {code[:80]}", inbox_gone=True)
    gone = code in CONTACT_GONE
    return PermanentError(f"Slack refused chat {chat}: {code[:80]}", contact_gone=gone)


LOST_CONNECTION = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
