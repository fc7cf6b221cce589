"""What the Telegram channel takes from the environment."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigurationError

TELEGRAM = "https://api.telegram.org"
WEBHOOK_PORTS = (80, 88, 443, 8443)
"""The only ports to which Telegram's own servers post."""


class TelegramSettings(BaseSettings):
    """Settings of a Telegram inbox; the environment names carry the prefix `TELEGRAM_`.

    Raises:
        ConfigurationError: The webhook has no secret, or an address to which nobody would post.
    """

    model_config = SettingsConfigDict(
        env_prefix="TELEGRAM_",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # else a mistyped token stands in the error's text
    )

    bot_token: SecretStr | None = None
    """From BotFather; without it there is no Telegram inbox."""
    api_url: str = TELEGRAM
    """The Bot API server, without `/bot`; change it for a server of your own."""
    webhook_url: str | None = None
    """The whole https address of this gateway's /telegram/webhook; long polling without it."""
    webhook_secret: SecretStr | None = None
    """Proves that a webhook request comes from Telegram: 1 to 256 of A-Z, a-z, 0-9, _ and -."""

    @field_validator("bot_token", "webhook_secret", "webhook_url", mode="before")
    @classmethod
    def _empty_is_missing(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("bot_token")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[^\s/?#%{}]+", value.get_secret_value()):
            raise ValueError("must be the token from BotFather, such as 123456789:AAF…")
        return value

    @field_validator("api_url")
    @classmethod
    def _is_server(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/").removesuffix("/bot")

    @field_validator("webhook_secret")
    @classmethod
    def _allowed_signs(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", value.get_secret_value()):
            raise ValueError("must be 1 to 256 characters of A-Z, a-z, 0-9, _ and -")
        return value

    @model_validator(mode="after")
    def _whole_webhook(self) -> TelegramSettings:
        # Not a ValueError: pydantic would show all values, this goes through with its own text.
        if self.webhook_url is None:
            return self
        if self.webhook_secret is None:
            raise ConfigurationError(
                "TELEGRAM_WEBHOOK_URL is set without TELEGRAM_WEBHOOK_SECRET, so anybody could "
                "post messages; set a secret, or remove the URL to use long polling."
            )
        self._check_address(self.webhook_url)
        return self

    def token(self) -> str:
        """Return the bot's token.

        Raises:
            ConfigurationError: There is none.
        """
        if self.bot_token is None:
            raise ConfigurationError(
                "TELEGRAM_BOT_TOKEN is missing; take it from @BotFather with /newbot."
            )
        return self.bot_token.get_secret_value()

    def _check_address(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        except ValueError as error:
            raise ConfigurationError(f"TELEGRAM_WEBHOOK_URL is not an address: {error}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "TELEGRAM_WEBHOOK_URL must be a whole address, such as "
                "https://bot.example.com/telegram/webhook."
            )
        # A Bot API server of one's own posts to any port, without TLS too.
        if self.api_url == TELEGRAM and (parts.scheme != "https" or port not in WEBHOOK_PORTS):
            raise ConfigurationError(
                "TELEGRAM_WEBHOOK_URL must begin with https:// and use port 443, 80, 88 or 8443: "
                "Telegram posts nowhere else."
            )
