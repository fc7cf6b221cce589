"""The files of versions: their hashes, their places, copying them whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.db.models import StoredFile
from core.errors import ConfigurationError

BLOB_LIMIT_BYTES = 64_000_000
"""Larger files do not go into the database: a row is read as a whole, several times over."""
CHUNK_BYTES = 1 << 20


def described(path: Path) -> StoredFile:
    """Return hash and size of a file."""
    return StoredFile(hash_of(path), path.stat().st_size)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: Path, files: Mapping[str, StoredFile]) -> list[str]:
    """Return which files of a folder are missing or not what was registered."""
    return [name for name, file in files.items() if not _is_whole(folder / name, file)]


def _is_whole(path: Path, file: StoredFile) -> bool:
    try:
        return path.stat().st_size == file.size_bytes and hash_of(path) == file.sha256
    except OSError:
        return False


def copy(source: Path, target: Path, file: StoredFile) -> None:
    """Copy a file, and make sure that it is the one that is meant.

    Raises:
        OSError: It is another one, or there is no room.
    """
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(CHUNK_BYTES):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    if digest.hexdigest() != file.sha256:
        raise OSError(f"{source} does not have the hash that was registered")


def place_of(url: str) -> Path:
    """Return the folder of a file:// address.

    Raises:
        ConfigurationError: It is another kind of address.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigurationError(
            f"DESKHAND_MODEL_URL {url} is not of the form file:///folder; other stores are not "
            "supported: mount the bucket as a folder"
        )
    return Path(unquote(parts.path))
