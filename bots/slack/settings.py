"""What the Slack channel takes from the environment."""

from __future__ import annotations

import re

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigurationError

SLACK = "https://slack.com/api/"


class SlackSettings(BaseSettings):
    """Settings of a Slack inbox; the environment names carry the prefix `SLACK_`."""

    model_config = SettingsConfigDict(env_prefix="SLACK_", frozen=True, extra="forbid")

    bot_token: SecretStr | None = None
    """The app's bot token, `xoxb-…`; without it there is no Slack inbox."""
    signing_secret: SecretStr | None = None
    """Proves that a request to /slack/… comes from Slack; without it all of them are refused."""
    app_token: SecretStr | None = None
    """An app-level token, `xapp-…`, with `connections:write`: events come by Socket Mode."""
    api_url: str = SLACK
    """Where Slack's methods are; ends in `/api/`."""

    @field_validator("bot_token", "signing_secret", "app_token", mode="before")
    @classmethod
    def _empty_is_missing(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("bot_token", "signing_secret", "app_token")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        # It goes into a header; a line break pasted along would break every request.
        if value and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be one word, without spaces or line breaks")
        return value

    @field_validator("api_url")
    @classmethod
    def _is_server(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") + "/"

    def check(self) -> None:
        """Refuse what does not fit together, before anything is started.

        Raises:
            ConfigurationError: A setting is missing or wrong.
        """
        if self.bot_token is None:
            if self.app_token is not None:
                raise ConfigurationError(
                    "SLACK_APP_TOKEN is set without SLACK_BOT_TOKEN; set the bot token too "
                    "(OAuth & Permissions in the app's settings)."
                )
            return
        if self.bot_token.get_secret_value().startswith("xapp-"):
            raise ConfigurationError(
                "SLACK_BOT_TOKEN holds an app-level token; it must be the bot token, xoxb-…"
            )
        if self.app_token and not self.app_token.get_secret_value().startswith("xapp-"):
            raise ConfigurationError(
                "SLACK_APP_TOKEN must be an app-level token, xapp-… (Basic Information in the "
                "app's settings)."
            )
        if self.signing_secret is None and self.app_token is None:
            raise ConfigurationError(
                "SLACK_BOT_TOKEN is set, but no messages can come in: set SLACK_SIGNING_SECRET "
                "(Events API) or SLACK_APP_TOKEN (Socket Mode)."
            )
