"""What all processes share; a channel's section lives with the channel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.types import ReplyStyle


class Settings(BaseSettings):
    """Settings of a process, checked at start and passed down; only `cli` builds them.

    The environment names carry the prefix `DESKHAND_`; `deskhand.toml` has them in lower case
    without it.
    """

    model_config = SettingsConfigDict(
        env_prefix="DESKHAND_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    data_dir: Path = Path(".deskhand")
    """Where the embedded parts, secrets, models and pid files live."""
    database_url: SecretStr | None = None
    """A PostgreSQL >= 15 with pgvector; without it an embedded one is started."""
    broker_url: SecretStr | None = None
    """RabbitMQ (amqp://) or Redis/Valkey (redis://); without it an embedded Valkey is started."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65_535)
    public_url: str | None = None
    """The address under which customers reach the gateway, if it differs from host and port."""
    api_token: SecretStr | None = None
    """The bearer token of /v1; made once and printed when not given."""
    secret_key: SecretStr | None = None
    """Signs the web chat's cookies; made once when not given."""
    admin_email: str | None = None
    admin_password: SecretStr | None = None
    encoder: str = "multilingual-e5-small"
    reply_model: str = "smollm2-135m-instruct"
    """A model name or path, or `openai:<model>` for a server at `reply_model_url`."""
    reply_model_url: str | None = None
    """Base URL of an OpenAI-compatible server, such as http://host:8000/v1."""
    reply_model_key: SecretStr | None = None
    adapter: str | None = None
    """Path of a LoRA adapter; the shipped one for the default reply model when not given."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of the models; 0 takes the cores there are."""
    model_url: str | None = None
    reply_style: ReplyStyle = ReplyStyle.ADAPTIVE
    rewrite: Literal["rules", "model"] = "rules"
    """What makes a follow-up stand alone; the model is the reply model, which must be a large one.
    """
    reply_deadline: float = Field(default=30.0, gt=0, le=3600)
    """Seconds until a customer who still waits is told so."""
    debounce: float = Field(default=0.4, ge=0, le=30)
    """Seconds that a turn waits for more, when its text does not look complete."""
    chat_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web sites that may embed the chat, such as https://shop.example; separated by commas."""
    chat_messages_per_minute: int = Field(default=30, ge=1)
    """How many messages one web-chat visitor may send in a minute."""
    lease_seconds: float = Field(default=4.0, gt=0.5, le=300)
    """After this silence of a worker its turns go to another."""
    turn_attempts: int = Field(default=3, ge=1)
    """How often a turn is tried before it goes to the dead letters."""
    delivery_expiry: float = Field(default=86_400.0, gt=0)
    """Seconds after which an undelivered message is no longer worth sending."""
    worker_concurrency: int = Field(default=32, ge=1, le=1000)
    """Turns that one answering worker has in hand at once."""
    train_replies_hours: float = Field(default=0.0, ge=0, le=8760)
    """Hours between trainings of the reply model on agents' replies; 0 never trains."""
    log_level: str = "INFO"
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port of /metrics in worker, sender and scheduler; 0 leaves their figures to the gateway."""

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("amqp://", "amqps://", "redis://", "rediss://", "redis+socket://")
        if value and not value.get_secret_value().startswith(schemes):
            raise ValueError(f"must begin with one of {', '.join(schemes)}")
        return value

    @field_validator("chat_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            [part for part in re.split(r"[,\s]+", value) if part]
            if isinstance(value, str)
            else value
        )

    @field_validator("chat_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.rstrip("/") for origin in value)
        for origin in origins:
            if not re.fullmatch(r"https?://[\w.\-]+(:\d+)?", origin, re.ASCII):
                raise ValueError(
                    f"{origin!r} is no site; write it as https://shop.example, without a path"
                )
        return origins

    @field_validator("public_url", "reply_model_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _whole_model_address(self) -> Settings:
        if self.reply_model.startswith("openai:") and not self.reply_model_url:
            raise ValueError(
                "reply_model names an OpenAI-compatible server: set reply_model_url to its address"
            )
        if (
            self.rewrite == "model"
            and self.reply_model == type(self).model_fields["reply_model"].default
        ):
            raise ValueError(
                "rewrite=model needs a large model: the small one that ships cannot do it; set "
                "reply_model to another, or rewrite=rules"
            )
        return self

    @property
    def models_dir(self) -> Path:
        """The model store."""
        return self.data_dir / "models"

    @property
    def url(self) -> str:
        """Where the gateway is reached."""
        return self.public_url or f"http://{self.host}:{self.port}"
