"""The short folder of the unix sockets, and the addresses that follow from it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cli.embedded.account import Account
from core.errors import ConfigurationError

PATH_LIMIT_BYTES = 103
"""Of a unix socket's path: 107 on Linux, 103 on macOS."""

POSTGRES_SOCKET = ".s.PGSQL.5432"
VALKEY_SOCKET = "valkey.sock"
USER = DATABASE = "deskhand"


@dataclass(frozen=True)
class Addresses:
    """Where the embedded servers of a data folder are reached."""

    database_url: str
    broker_url: str


def addresses(data_dir: Path) -> Addresses:
    """Return where the embedded servers are, or will be when they are started."""
    folder = socket_folder(data_dir)
    return Addresses(database_url(folder), f"redis+socket://{folder / VALKEY_SOCKET}")


def database_url(folder: Path, database: str = DATABASE) -> str:
    """Return the address of a database behind the socket in a folder."""
    return f"postgresql://{USER}@/{database}?host={folder}"


def socket_folder(data_dir: Path) -> Path:
    """Return the folder of a data folder's sockets.

    It is written down at the first start: a later process may have another XDG_RUNTIME_DIR, and
    must find the same servers.
    """
    try:
        return Path(_note(data_dir).read_text().strip())
    except OSError:
        return _choose(data_dir)


def prepare_socket_folder(data_dir: Path, who: Account | None) -> Path:
    """Create the folder of the sockets, closed to all but the servers' user.

    Trust in who connects rests on this folder's mode alone, so one that somebody else made is
    refused.

    Raises:
        ConfigurationError: It cannot be made, or is not ours.
    """
    folder = socket_folder(data_dir)
    if not folder.parent.is_dir():  # after a log-out or reboot the note may be stale
        folder = _choose(data_dir)
    owner = os.geteuid() if who is None else who.uid
    try:
        folder.mkdir(mode=0o700)
        if who is not None:
            os.chown(folder, who.uid, who.gid)
    except FileExistsError:
        _require_ours(folder, owner)
    _note(data_dir).parent.mkdir(parents=True, exist_ok=True)
    _note(data_dir).write_text(f"{folder}\n")
    return folder


def _require_ours(folder: Path, owner: int) -> None:
    about = folder.lstat()
    ours = about.st_uid in {owner, os.geteuid()}
    if not (stat.S_ISDIR(about.st_mode) and ours and not about.st_mode & 0o077):
        raise ConfigurationError(
            f"The folder {folder}, meant for the embedded servers' sockets, belongs to somebody "
            "else or is open to others; remove it."
        )
    if about.st_uid != owner:
        os.chown(folder, owner, -1)


def _note(data_dir: Path) -> Path:
    return data_dir / "run" / "sockets"


def _choose(data_dir: Path) -> Path:
    digest = hashlib.sha256(f"{os.geteuid()}:{data_dir.resolve()}".encode()).hexdigest()[:12]
    for parent in _candidates():
        folder = parent / f"deskhand-{digest}"
        if len(os.fsencode(folder / POSTGRES_SOCKET)) <= PATH_LIMIT_BYTES:
            return folder
    return Path("/tmp") / f"deskhand-{digest}"  # noqa: S108 - the mode is checked


def _candidates() -> list[Path]:
    found = [Path(tempfile.gettempdir())]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # As root the servers run as somebody else, to whom root's runtime folder is closed.
    if os.geteuid() != 0 and runtime and os.access(runtime, os.W_OK | os.X_OK):
        found.insert(0, Path(runtime))
    return found
