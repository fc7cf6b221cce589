"""The manifest from which Slack makes the app: what it may do, and where Slack calls us."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from core.errors import InvalidInput

SCOPES = (
    "app_mentions:read",
    "assistant:write",
    "channels:history",
    "chat:write",
    "commands",
    "groups:history",
    "im:history",
    "mpim:history",
    "reactions:read",
)
"""What is said to the bot, replies and what is thought of them, the status, and `/deskhand`."""
EVENTS = (
    "app_mention",
    "app_uninstalled",
    "assistant_thread_started",
    "message.channels",
    "message.groups",
    "message.im",
    "message.mpim",
    "reaction_added",
    "tokens_revoked",
)


def manifest(url: str | None, name: str = "Deskhand") -> dict[str, Any]:
    """Return an app's manifest (schema 1), as *From a manifest* takes it.

    Args:
        url: The gateway's public https address; None for Socket Mode, which needs none.
        name: Of the app and its bot, as people see it.

    Raises:
        InvalidInput: The address is not one that Slack calls, or Slack takes no such name.
    """
    if not name.strip() or len(name) > 35:
        raise InvalidInput("Slack takes a name of 1 to 35 characters.", field="name")
    base = None if url is None else _address(url)
    description = "Answers questions from your FAQ"
    command = {
        "command": "/deskhand",
        "description": "Ask a question",
        "usage_hint": "[your question]",
        "should_escape": True,
    }
    events: dict[str, Any] = {"bot_events": list(EVENTS)}
    interactivity: dict[str, Any] = {"is_enabled": True}
    if base is not None:
        command["url"] = f"{base}/slack/commands"
        events["request_url"] = f"{base}/slack/events"
        interactivity["request_url"] = f"{base}/slack/interactions"
    return {
        "display_information": {"name": name, "description": description},
        "features": {
            "app_home": {"messages_tab_enabled": True, "messages_tab_read_only_enabled": False},
            "bot_user": {"display_name": name, "always_online": True},
            "slash_commands": [command],
            "assistant_view": {"assistant_description": description},
        },
        "oauth_config": {"scopes": {"bot": list(SCOPES)}},
        "settings": {
            "event_subscriptions": events,
            "interactivity": interactivity,
            "org_deploy_enabled": False,
            "socket_mode_enabled": base is None,
            # It cannot be switched off again, and such tokens are not renewed here.
            "token_rotation_enabled": False,
        },
    }


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(
            f"{url} is not an address that Slack calls; give the gateway's public one, such as "
            "https://bot.example.com, or leave it out for Socket Mode.",
            field="url",
        )
    return url.rstrip("/")
