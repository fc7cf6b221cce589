"""Secrets that nobody gave: made once, kept in the data folder, readable by its owner alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError

FILE = "secrets"
TOKEN_BYTES = 32


@dataclass(frozen=True)
class Secrets:
    """What was generated for an installation.

    Attributes:
        fresh: Made just now: this is the moment to show the API token, the only one.
    """

    api_token: str
    secret_key: str
    fresh: bool = False

    def __repr__(self) -> str:
        return "Secrets(…)"


def load(data_dir: Path) -> Secrets | None:
    """Return the secrets of an installation, None if it has none yet.

    Raises:
        ConfigurationError: They cannot be read.
    """
    path = data_dir / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Secrets(_text(content, "api_token"), _text(content, "secret_key"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}); mend its owner and mode."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is damaged; restore it, or delete it and a new API token is made."
        ) from error


def load_or_create(data_dir: Path) -> Secrets:
    """Return the secrets of an installation, made now if it has none.

    Processes that start at the same moment all get the same ones.

    Raises:
        ConfigurationError: They cannot be read or written.
    """
    known = load(data_dir)
    if known is not None:
        return known
    made = Secrets(secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES), True)
    if _store(data_dir, made):
        return made
    other = load(data_dir)  # somebody was quicker
    if other is None:
        raise ConfigurationError(f"{data_dir / FILE} vanished while it was read; start again.")
    return other


def _text(content: dict[str, object], name: str) -> str:
    value = content[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value


def _store(data_dir: Path, made: Secrets) -> bool:
    """Write the file whole or not at all; False if there is one by now."""
    path = data_dir / FILE
    draft = data_dir / f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"api_token": made.api_token, "secret_key": made.secret_key}, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename it fails where a file is
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigurationError(
            f"The secrets cannot be written to {path} ({error.strerror}); mend the folder's "
            "owner, mode or free space, or choose another DESKHAND_DATA_DIR."
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return True
