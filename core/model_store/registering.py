"""A folder becomes a version."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from psycopg.errors import UniqueViolation

from core.db import inboxes, models
from core.db.connect import Connection, Database
from core.db.models import ModelVersion, StoredFile
from core.errors import ConfigurationError, Conflict, InvalidInput, Unavailable
from core.model_store import files as files_on_disk
from core.model_store.promoting import FOR_ALL, SHIPPED, effective
from core.types import ModelKind

log = logging.getLogger(__name__)

MOST_FILES = 200
CARDS = ("training.json", "intents.json", "card.json", "thresholds.json")
"""Files in which training writes on what data and how a folder was made, the first one counts."""
UNKNOWN_DATA = "unknown"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


async def register(
    database: Database,
    folder: Path,
    kind: ModelKind,
    *,
    name: str | None = None,
    base: str | None = None,
    data_sha256: str | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    author: str = "",
    model_url: str | None = None,
) -> ModelVersion:
    """Keep a folder as a version; the same folder again is the same version.

    Args:
        database: Where it is kept; all of it or, if interrupted, nothing.
        folder: With everything that loading needs.
        kind: What it is.
        name: Of the version, for ever; made from the kind, the day and the bytes when not given.
        base: The only knowledge base that it is made for; all when not given.
        data_sha256: Of the training data; else the folder's card tells it.
        settings: How it was made; else the card's.
        metrics: What was measured; else the card's.
        author: Who registers it.
        model_url: A `file://` folder that all machines see, for files above 64 MB.

    Raises:
        InvalidInput: The folder, the name or its card is not in order; nothing is kept.
        Conflict: The name stands for other bytes.
        ConfigurationError: A file is too large and there is no place for it.
    """
    paths = await asyncio.to_thread(_files_in, folder)
    card = await asyncio.to_thread(read_card, folder)
    data = _data_hash(data_sha256 or card.get("data_sha256"), folder)
    if base is not None and kind in FOR_ALL:
        raise InvalidInput(f"A version of the kind {kind} is for all bases.", field="base")
    files = await asyncio.to_thread(
        lambda: {n: files_on_disk.described(p) for n, p in paths.items()}
    )
    large = [n for n, file in files.items() if file.size_bytes > files_on_disk.BLOB_LIMIT_BYTES]
    url = _large_folder(model_url, large) if large else None
    async with database.transaction() as conn:
        base_id = (await inboxes.base_named(conn, base)).id if base else None
        made = ModelVersion(
            id=0,
            name=_checked(name) if name else _made_name(kind, base, files),
            kind=kind,
            files=files,
            data_sha256=data,
            base_id=base_id,
            parent=effective(await models.serving(conn), kind, base_id),
            url=model_url if large else None,
            settings={**(settings if settings is not None else _mapping(card, "settings"))},
            metrics={**(metrics if metrics is not None else _mapping(card, "metrics"))},
            author=author,
        )
        if (known := await models.version(conn, made.name)) is not None:
            return _same(known, made)
        await _keep_bytes(conn, paths, files, url)
        try:
            await models.insert(conn, made)
        except UniqueViolation as error:
            raise Conflict(
                f"There is a version named {made.name} already.", field="name"
            ) from error
        stored = await models.version(conn, made.name)
    assert stored is not None
    log.info("Model registered", extra={"action": "model_registered", "model": stored.name})
    return stored


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their path in it; hidden ones are unfinished or ours."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder.", field="folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.is_dir():
            continue
        if path.is_symlink() or not path.is_file():
            raise InvalidInput(
                f"{path} is no plain file; put the file itself there.", field="folder"
            )
        found[inside.as_posix()] = path
    if not found:
        raise InvalidInput(f"{folder} holds no files.", field="folder")
    if len(found) > MOST_FILES:
        raise InvalidInput(
            f"{folder} holds {len(found)} files, more than {MOST_FILES}; is it the folder of one "
            "model?",
            field="folder",
        )
    return found


def read_card(folder: Path) -> dict[str, Any]:
    """Return what training wrote about a folder, empty where it wrote nothing.

    Raises:
        InvalidInput: The card cannot be read.
    """
    cards = [folder / name for name in CARDS if (folder / name).is_file()]
    read: list[dict[str, Any]] = []
    for place in cards:
        try:
            card = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{place} is no JSON: {error}", field="folder") from error
        if isinstance(card, dict):
            read.append(card)  # pyright: ignore[reportUnknownArgumentType]
    return next((card for card in read if "data_sha256" in card), read[0] if read else {})


def _mapping(card: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a part of a card; a card without parts is all settings."""
    known = card.get(key)
    if isinstance(known, Mapping):
        extra = {"encoder": card["encoder"]} if key == "settings" and "encoder" in card else {}
        return {**extra, **known}
    if key == "settings" and "metrics" not in card:
        return {name: value for name, value in card.items() if name != "data_sha256"}
    return {}


def _data_hash(given: object, folder: Path) -> str:
    if not given:
        raise InvalidInput(
            f"On what was {folder} trained? Its card ({', '.join(CARDS)}) has no data_sha256: give "
            f"--data with the training file, or --data {UNKNOWN_DATA}.",
            field="data",
        )
    if given != UNKNOWN_DATA and not _DIGEST.fullmatch(str(given)):
        raise InvalidInput(f"{given} is no SHA-256 in hexadecimal digits.", field="data")
    return str(given)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name == SHIPPED:
        raise InvalidInput(
            f"{name!r} is no name for a version: small letters, digits, dots, dashes and "
            f"underscores, 80 at most, not {SHIPPED!r}.",
            field="name",
        )
    return name


def _made_name(kind: ModelKind, base: str | None, files: Mapping[str, StoredFile]) -> str:
    digest = hashlib.sha256(f"{kind} {base}".encode())
    for name, file in sorted(files.items()):
        digest.update(f"{name} {file.sha256}\n".encode())
    return f"{str(kind).replace('_', '-')}-{digest.hexdigest()[:12]}"


def _same(known: ModelVersion, made: ModelVersion) -> ModelVersion:
    if (known.kind, known.base_id, dict(known.files)) == (made.kind, made.base_id, made.files):
        return known
    raise Conflict(
        f"There is another version named {known.name} already; names are for ever: give a new one.",
        field="name",
    )


async def _keep_bytes(
    conn: Connection, paths: Mapping[str, Path], files: Mapping[str, StoredFile], url: Path | None
) -> None:
    missing = await models.missing_blobs(conn, [file.sha256 for file in files.values()])
    for name, file in files.items():
        if file.size_bytes > files_on_disk.BLOB_LIMIT_BYTES:
            assert url is not None
            await asyncio.to_thread(_keep_large, paths[name], file, url)
        elif file.sha256 in missing:
            content = await asyncio.to_thread(paths[name].read_bytes)
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise Conflict(f"{paths[name]} changed meanwhile; try again.", field="folder")
            await models.put_blob(conn, file.sha256, content)


def _large_folder(url: str | None, names: Sequence[str]) -> Path:
    if url is None:
        raise ConfigurationError(
            f"{names[0]} has more than {files_on_disk.BLOB_LIMIT_BYTES // 1_000_000} MB, too much "
            "for the database: set DESKHAND_MODEL_URL to a file:// folder that all machines see"
        )
    return files_on_disk.place_of(url)


def _keep_large(path: Path, file: StoredFile, folder: Path) -> None:
    place = folder / file.sha256
    if place.is_file() and place.stat().st_size == file.size_bytes:
        return
    unfinished = folder / f".{file.sha256}.{uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files_on_disk.copy(path, unfinished, file)
        unfinished.replace(place)
    except OSError as error:
        raise Unavailable(f"{path.name} could not be kept in {folder}: {error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
