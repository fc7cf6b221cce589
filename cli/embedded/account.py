"""As whom the servers run, and whether that user reaches what it needs."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account() -> Account | None:
    """Return the user that the servers drop to, or None when they run as we do.

    PostgreSQL refuses to run as root.

    Raises:
        ConfigurationError: We are root, and there is no user to drop to.
    """
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise ConfigurationError(
            f"PostgreSQL does not run as root and this machine has no user {UNPRIVILEGED}; "
            "start as an ordinary user, or name a database in DESKHAND_DATABASE_URL."
        ) from None
    return Account(user.pw_name, user.pw_uid, user.pw_gid)


def require_reachable(path: Path, who: Account | None) -> None:
    """Make sure that a user can walk down to a path.

    Raises:
        ConfigurationError: A folder on the way is closed to them; the message names it.
    """
    if who is None:
        return
    for folder in reversed(path.resolve().parents):
        if not _may_enter(folder, who):
            raise ConfigurationError(
                f"As root the embedded servers run as the user {who.name}, to whom the folder "
                f"{folder} is closed; run `chmod o+x {folder}`, choose another DESKHAND_DATA_DIR, "
                "or start as an ordinary user."
            )


def own(path: Path, who: Account | None) -> None:
    """Create a folder, if missing, that this user alone may read."""
    path.mkdir(parents=True, exist_ok=True)
    if who is not None and path.stat().st_uid != who.uid:
        _give(path, who)
    path.chmod(0o700)


def _give(path: Path, who: Account) -> None:
    os.chown(path, who.uid, who.gid)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), who.uid, who.gid, follow_symlinks=False)


def _may_enter(folder: Path, who: Account) -> bool:
    about = folder.stat()
    if about.st_uid == who.uid:
        return bool(about.st_mode & 0o100)
    if about.st_gid == who.gid:
        return bool(about.st_mode & 0o010)
    return bool(about.st_mode & 0o001)
