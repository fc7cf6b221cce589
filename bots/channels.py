"""The table of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter

from bots.slack import Slack, SlackSettings
from bots.telegram import Telegram, TelegramSettings
from core.ports import Channel, PolledChannel, Receiver


@dataclass(frozen=True)
class ChannelSettings:
    """The sections of all channels; a channel without its token is off."""

    slack: SlackSettings
    telegram: TelegramSettings


@dataclass(frozen=True)
class Account:
    """A channel account of this installation.

    Attributes:
        inbox: The name of its inbox.
        channel: What sends through it.
        configured: False where no token is set: its routes are there and refuse everything.
        routes: Makes the routes on which the platform calls us.
        polled: What fetches its events, None where the platform calls us.
    """

    inbox: str
    channel: Channel
    configured: bool
    routes: Callable[[Receiver], APIRouter]
    polled: PolledChannel | None


PUSHED = ("slack", "telegram")
"""Channels to whose platforms replies are sent; web chat and HTTP API fetch theirs."""


def accounts(settings: ChannelSettings) -> list[Account]:
    """Return the accounts of all channels, configured or not.

    Raises:
        ConfigurationError: A channel's settings do not fit together.
    """
    slack = Slack(settings.slack)
    telegram = Telegram(settings.telegram)
    return [
        Account(
            "slack",
            slack,
            configured=bool(settings.slack.bot_token or settings.slack.signing_secret),
            routes=slack.routes,
            polled=slack if settings.slack.app_token else None,
        ),
        Account(
            "telegram",
            telegram,
            configured=settings.telegram.bot_token is not None,
            routes=telegram.routes,
            polled=telegram,  # with a webhook it keeps that registered
        ),
    ]
