"""Builds settings from the environment and deskhand.toml; nothing else reads the two.

The environment wins over the file. A channel's section is built by the same function:
`section(SlackSettings, path)` takes SLACK_BOT_TOKEN, or `slack_bot_token` from the file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import typer
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from cli import secrets
from core.errors import ConfigurationError
from core.settings import Settings

if TYPE_CHECKING:
    from bots.channels import ChannelSettings

FILE = Path("deskhand.toml")
SECTIONS = ("slack_", "telegram_")
"""Prefixes of the channels' keys; each channel checks its own."""

NO_VARIABLE = "\0"
"""A prefix that no variable has: the values are gathered here, so that an error can be traced."""

Section = TypeVar("Section", bound=BaseSettings)


@dataclass(frozen=True)
class Options:
    """What stands before the command's name."""

    config: Path | None = None


def options(context: typer.Context) -> Options:
    """Return the options of the running command."""
    found = context.find_root().obj
    return found if isinstance(found, Options) else Options()


def of(context: typer.Context, *, create_secrets: bool = False) -> Settings:
    """Return the complete settings of the running command.

    Args:
        context: Of the command.
        create_secrets: Make the secrets that are missing; processes do, their clients do not.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    return completed(load(options(context).config), create_secrets=create_secrets)


def load(path: Path | None = None) -> Settings:
    """Return the settings as they are given.

    Args:
        path: The configuration file; deskhand.toml of the working folder, if any, when None.

    Raises:
        ConfigurationError: One is wrong or unknown; the text names it and where it stands.
    """
    return section(Settings, path)


def completed(settings: Settings, *, create_secrets: bool = False) -> Settings:
    """Fill in what is not given: the embedded servers' addresses and the generated secrets."""
    from cli.embedded.sockets import addresses

    data_dir = settings.data_dir.expanduser().absolute()
    embedded = addresses(data_dir)
    changes: dict[str, Any] = {"data_dir": data_dir}
    if settings.database_url is None:
        changes["database_url"] = SecretStr(embedded.database_url)
    if settings.broker_url is None:
        changes["broker_url"] = SecretStr(embedded.broker_url)
    if settings.api_token is None or settings.secret_key is None:
        known = secrets.load_or_create(data_dir) if create_secrets else secrets.load(data_dir)
        if known and settings.api_token is None:
            changes["api_token"] = SecretStr(known.api_token)
        if known and settings.secret_key is None:
            changes["secret_key"] = SecretStr(known.secret_key)
    return settings.model_copy(update=changes)


def section(kind: type[Section], path: Path | None = None) -> Section:
    """Return one section of the settings.

    Args:
        kind: Its class; its `env_prefix` names it.
        path: As in `load`.

    Raises:
        ConfigurationError: As in `load`.
    """
    prefix = str(kind.model_config.get("env_prefix", ""))
    file = _File.read(path)
    given = {
        name.removeprefix(_key_prefix(prefix)): value
        for name, value in file.values.items()
        if _belongs(name, prefix)
    }
    for name in given:
        if name not in kind.model_fields:
            raise ConfigurationError(file.unknown(_key_prefix(prefix) + name, _keys(kind)))
    environment = _from_environment(kind, prefix)
    try:
        return kind(_env_prefix=NO_VARIABLE, **(given | environment))
    except ValidationError as error:
        told = [_told(one, kind, prefix, file, environment) for one in error.errors()]
        raise ConfigurationError("; ".join(told)) from None


def channel_settings(path: Path | None = None) -> ChannelSettings:
    """Return the sections of all channels.

    Raises:
        ConfigurationError: As in `load`, or what is set does not fit together.
    """
    from bots.channels import ChannelSettings
    from bots.slack import SlackSettings
    from bots.telegram import TelegramSettings

    slack = section(SlackSettings, path)
    slack.check()
    return ChannelSettings(slack=slack, telegram=section(TelegramSettings, path))


def unknown_variables(environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return the DESKHAND_ variables that mean nothing, with the name that was likely meant."""
    known = [f"DESKHAND_{name.upper()}" for name in Settings.model_fields]
    wrong = [name for name in environment if name.startswith("DESKHAND_") and name not in known]
    close = {name: difflib.get_close_matches(name, known, 1) for name in wrong}
    return {name: matches[0] for name, matches in close.items() if matches}


@dataclass(frozen=True)
class _File:
    path: Path
    values: Mapping[str, Any]
    text: str = ""

    @classmethod
    def read(cls, path: Path | None) -> _File:
        source = path or FILE
        try:
            text = source.read_text(encoding="utf-8")
            return cls(source, _flat(tomllib.loads(text)), text)
        except FileNotFoundError:
            if path is None:
                return cls(source, {})
            raise ConfigurationError(f"There is no configuration file {source}.") from None
        except OSError as error:
            raise ConfigurationError(f"{source} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{source} is not UTF-8 text; save it as such.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{source} is not valid TOML: {error}.") from error

    def place(self, key: str) -> str:
        for number, line in enumerate(self.text.splitlines(), 1):
            name = line.partition("=")[0].strip().strip("\"'").lower()
            if name and (name == key or key.endswith(f"_{name}")) and "=" in line:
                return f"{self.path} line {number}"
        return str(self.path)

    def unknown(self, key: str, known: list[str]) -> str:
        bare = key.removeprefix("deskhand_")
        close = difflib.get_close_matches(bare, known, 1)
        advice = f"did you mean {close[0]}?" if close else "remove it, or see the reference."
        return f"{self.place(key)}: there is no setting {key}; {advice}"


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Join `[slack] bot_token` to `slack_bot_token`."""
    values: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            for inner, one in _flat(value).items():
                values[f"{name}_{inner}"] = one
        else:
            values[name] = value
    return values


def _key_prefix(prefix: str) -> str:
    lowered = prefix.lower()
    return lowered if lowered in SECTIONS else ""


def _belongs(name: str, prefix: str) -> bool:
    wanted = _key_prefix(prefix)
    return name.startswith(wanted) if wanted else not name.startswith(SECTIONS)


def _keys(kind: type[BaseSettings]) -> list[str]:
    prefix = _key_prefix(str(kind.model_config.get("env_prefix", "")))
    return [prefix + name for name in kind.model_fields]


def _from_environment(kind: type[BaseSettings], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        value = os.environ.get(prefix + name.upper(), "")
        if value.strip():  # set to nothing is not set
            found[name] = _parted(value) if _is_list(field.annotation) else value
    return found


def _is_list(annotation: Any) -> bool:
    return any(get_origin(kind) in (tuple, list) for kind in (annotation, *get_args(annotation)))


def _parted(value: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+", value) if part]


def _told(
    error: ErrorDetails,
    kind: type[BaseSettings],
    prefix: str,
    file: _File,
    environment: Mapping[str, Any],
) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    why = error["msg"].removeprefix("Value error, ")
    if not name:
        return why
    key = _key_prefix(prefix) + name
    where = prefix + name.upper()
    if name not in environment and key in file.values:
        where = f"{file.place(key)}: {key}"
    elif name not in environment:
        return f"{where} is missing: {why[:1].lower()}{why[1:]}"
    secret = "SecretStr" in str(kind.model_fields[name].annotation)
    shown = "" if secret else f" is {error['input']!r}"
    return f"{where}{shown}{' ' if secret else ': '}{why[:1].lower()}{why[1:]}"
