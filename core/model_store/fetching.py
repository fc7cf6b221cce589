"""This machine's copies of versions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from uuid import uuid4

from core.db import models
from core.db.connect import Database
from core.db.models import ModelVersion, StoredFile
from core.errors import Unavailable
from core.model_store import files as files_on_disk
from core.model_store.files import damaged

log = logging.getLogger(__name__)

MANIFEST = ".manifest.json"
"""In a fetched folder: the hashes of its files, so that it can be examined without the database."""
ABANDONED_SECONDS = 3600.0
"""An unfinished copy that old belongs to a process that is gone."""


def damaged_versions(models_dir: Path) -> dict[str, list[str]]:
    """Return the fetched versions that are damaged, with their files, without the database."""
    found: dict[str, list[str]] = {}
    for place in sorted((models_dir / "versions").glob("*/" + MANIFEST)):
        try:
            stored = json.loads(place.read_text(encoding="utf-8"))
            files = {name: StoredFile(**file) for name, file in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            found[place.parent.name] = [MANIFEST]
            continue
        if bad := damaged(place.parent, files):
            found[place.parent.name] = bad
    return found


class Store:
    """This machine's copies of versions, fetched when they are needed.

    Args:
        database: Has the bytes.
        models_dir: The model store; copies lie in `versions/<name>`.
    """

    def __init__(self, database: Database, models_dir: Path) -> None:
        self._database = database
        self._folder = models_dir / "versions"

    async def folder(self, version: ModelVersion) -> Path:
        """Return a folder that holds exactly what was registered.

        A damaged copy is named in the log and fetched anew.

        Raises:
            Unavailable: It could not be fetched: no room, no bytes, no database.
        """
        place = self._folder / version.name
        if not (bad := await asyncio.to_thread(damaged, place, version.files)):
            return place
        if await asyncio.to_thread(place.exists):
            log.warning(
                "Model folder is damaged and fetched anew",
                extra={
                    "action": "model_damaged", "model": version.name, "folder": str(place),
                    "files": bad,
                },
            )  # fmt: skip
        await self._fetch(version, place)
        return place

    async def _fetch(self, version: ModelVersion, place: Path) -> None:
        unfinished = self._folder / f".{version.name}.{uuid4().hex[:8]}"
        await asyncio.to_thread(_sweep, self._folder)
        try:
            await asyncio.to_thread(unfinished.mkdir, parents=True)
            for name, file in version.files.items():
                await self._fetch_file(version, name, file, unfinished)
            await asyncio.to_thread(_seal, unfinished, version.files)
            await asyncio.to_thread(_put_in_place, unfinished, place, version.files)
        except OSError as error:
            raise Unavailable(f"{version.name} could not be fetched to {place}: {error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)

    async def _fetch_file(
        self, version: ModelVersion, name: str, file: StoredFile, folder: Path
    ) -> None:
        path = folder / _inside(name)
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        if file.size_bytes > files_on_disk.BLOB_LIMIT_BYTES:
            if version.url is None:
                raise Unavailable(f"{version.name} does not say where its large files are.")
            source = files_on_disk.place_of(version.url) / file.sha256
            await asyncio.to_thread(files_on_disk.copy, source, path, file)
            return
        async with self._database.transaction() as conn:
            content = await models.blob(conn, file.sha256)
        if content is None or hashlib.sha256(content).hexdigest() != file.sha256:
            raise Unavailable(f"The database lacks {name} of {version.name}; register it again.")
        await asyncio.to_thread(path.write_bytes, content)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Unavailable(f"{name} would lie outside the folder of its version.")
    return path


def _seal(folder: Path, files: Mapping[str, StoredFile]) -> None:
    if bad := damaged(folder, files):
        raise OSError(f"{', '.join(bad)} was not written as it was read")
    stored = {name: {"sha256": f.sha256, "size_bytes": f.size_bytes} for name, f in files.items()}
    (folder / MANIFEST).write_text(json.dumps(stored) + "\n", encoding="utf-8")


def _put_in_place(unfinished: Path, place: Path, files: Mapping[str, StoredFile]) -> None:
    """Move a whole folder to its place; what was there is only removed once it is replaced."""
    old = place.with_name(f".{place.name}.{uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        place.rename(old)
    try:
        unfinished.rename(place)
    except OSError:
        if damaged(place, files):  # else another process of this machine was first
            raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed fetches left."""
    for place in folder.glob(".*"):
        with suppress(OSError):
            if time.time() - place.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(place, ignore_errors=True)
