"""The model registry: whole or not at all, promoted by one row, fetched by hash."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from pathlib import Path

import pytest

from core import model_store
from core.db import models as rows
from core.db.connect import Database
from core.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Unavailable
from core.model_store import ModelKind, ModelVersion, Store, fetching, files
from core.types import KnowledgeBaseId

DATA = hashlib.sha256(b"what it was trained on").hexdigest()


def made(folder: Path, content: bytes = b"weights", **card: object) -> Path:
    """Write an artefact as training does."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "head.bin").write_bytes(content)
    (folder / "parts" / "more.bin").write_bytes(content[::-1])
    values = {"data_sha256": DATA, "settings": {"seed": 7}, "metrics": {"accuracy": 0.9}, **card}
    (folder / "training.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


async def kept(
    database: Database, folder: Path, name: str, kind: ModelKind = ModelKind.INTENTS
) -> ModelVersion:
    """Register an artefact whose bytes are its name's."""
    return await model_store.register(database, made(folder / name, name.encode()), kind, name=name)


async def count(database: Database, table: str) -> int:
    async with database.transaction() as conn:
        cursor = await conn.execute(f"select count(*) from {table}".encode())
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def base_id(database: Database, name: str = "default") -> KnowledgeBaseId:
    async with database.transaction() as conn:
        await conn.execute(
            "insert into knowledge_base (name) values (%(name)s) on conflict do nothing",
            {"name": name},
        )
        cursor = await conn.execute(
            "select id from knowledge_base where name = %(name)s", {"name": name}
        )
        row = await cursor.fetchone()
    assert row is not None
    return KnowledgeBaseId(row[0])


async def test_a_registered_folder_comes_back_byte_for_byte_on_another_machine(
    database: Database, tmp_path: Path
):
    version = await model_store.register(
        database, made(tmp_path / "trained"), ModelKind.INTENTS, name="head-1", author="ann"
    )

    copy = await Store(database, tmp_path / "elsewhere").folder(version)

    assert (copy / "head.bin").read_bytes() == b"weights"
    assert (copy / "parts" / "more.bin").read_bytes() == b"sthgiew"
    assert (version.data_sha256, version.settings, version.metrics, version.author) == (
        DATA, {"seed": 7}, {"accuracy": 0.9}, "ann",
    )  # fmt: skip


async def test_the_same_folder_twice_is_one_version_and_its_name_is_for_ever(
    database: Database, tmp_path: Path
):
    folder = made(tmp_path / "trained")
    first = await model_store.register(database, folder, ModelKind.INTENTS)
    again = await model_store.register(database, folder, ModelKind.INTENTS)
    other = made(tmp_path / "other", b"other weights")

    assert first == again
    with pytest.raises(Conflict, match=first.name):
        await model_store.register(database, other, ModelKind.INTENTS, name=first.name)
    assert await count(database, "model_version") == 1


async def test_what_served_when_a_version_was_made_is_its_parent(
    database: Database, tmp_path: Path
):
    await kept(database, tmp_path, "one")
    await model_store.promote(database, "one", why="the first")

    second = await kept(database, tmp_path, "two")

    assert second.parent == "one"


@pytest.mark.parametrize(
    ("card", "says"), [({"data_sha256": ""}, "--data"), ({"data_sha256": "abc"}, "SHA-256")]
)
async def test_an_artefact_without_the_hash_of_its_data_is_refused(
    database: Database, tmp_path: Path, card: dict[str, str], says: str
):
    with pytest.raises(InvalidInput, match=says):
        await model_store.register(database, made(tmp_path / "a", **card), ModelKind.INTENTS)


async def test_folders_that_are_no_artefact_are_refused(database: Database, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    linked = made(tmp_path / "linked")
    (linked / "link").symlink_to(linked / "head.bin")
    broken = made(tmp_path / "broken")
    (broken / "training.json").write_text("{", encoding="utf-8")

    for folder, says in [
        (tmp_path / "none", "no folder"),
        (tmp_path / "empty", "no files"),
        (linked, "no plain file"),
        (broken, "no JSON"),
    ]:
        with pytest.raises(InvalidInput, match=says):
            await model_store.register(database, folder, ModelKind.INTENTS)
    with pytest.raises(InvalidInput, match="no name"):
        await model_store.register(
            database, made(tmp_path / "a"), ModelKind.INTENTS, name="../../etc"
        )
    assert await count(database, "model_version") == 0


async def test_an_interrupted_registration_leaves_neither_version_nor_bytes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put = rows.put_blob
    seen = 0

    async def interrupted(*args: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt
        await put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "put_blob", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await model_store.register(database, made(tmp_path / "a"), ModelKind.INTENTS)

    assert await count(database, "model_version") == 0
    assert await count(database, "model_blob") == 0


async def test_large_files_go_to_the_shared_folder_and_come_back_from_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "BLOB_LIMIT_BYTES", 6)
    folder = made(tmp_path / "trained")
    with pytest.raises(ConfigurationError, match="DESKHAND_MODEL_URL"):
        await model_store.register(database, folder, ModelKind.ENCODER)
    with pytest.raises(ConfigurationError, match="mount the bucket"):
        await model_store.register(
            database, folder, ModelKind.ENCODER, model_url="s3://bucket/models"
        )

    url = (tmp_path / "shared").as_uri()
    version = await model_store.register(database, folder, ModelKind.ENCODER, model_url=url)
    copy = await Store(database, tmp_path / "elsewhere").folder(version)

    assert (copy / "head.bin").read_bytes() == b"weights"
    assert len(list((tmp_path / "shared").iterdir())) == 3


async def test_a_damaged_copy_is_named_and_fetched_anew(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    version = await kept(database, tmp_path, "one")
    store = Store(database, tmp_path / "models")
    copy = await store.folder(version)
    (copy / "head.bin").write_bytes(b"rotten!")
    assert model_store.damaged_versions(tmp_path / "models") == {"one": ["head.bin"]}

    with caplog.at_level(logging.WARNING):
        again = await store.folder(version)

    assert (again / "head.bin").read_bytes() == b"one"
    assert model_store.damaged_versions(tmp_path / "models") == {}
    assert [(r.action, r.model, r.files) for r in caplog.records] == [  # type: ignore[attr-defined]
        ("model_damaged", "one", ["head.bin"])
    ]


async def test_a_full_disk_leaves_the_copy_that_stands_and_nothing_unfinished(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(database, tmp_path / "models")
    old = await store.folder(await kept(database, tmp_path, "old"))
    new = await kept(database, tmp_path, "new")
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "more.bin":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Unavailable, match="No space left"):
        await store.folder(new)

    assert [place.name for place in old.parent.iterdir()] == ["old"]
    assert files.damaged(old, (await model_store.find(database, "old")).files) == []


async def test_processes_of_one_machine_may_fetch_a_version_at_once(
    database: Database, tmp_path: Path
):
    version = await kept(database, tmp_path, "one")
    stores = [Store(database, tmp_path / "models") for _ in range(4)]

    places = await asyncio.gather(*(store.folder(version) for store in stores))

    assert len(set(places)) == 1
    assert [place.name for place in places[0].parent.iterdir()] == ["one"]


async def test_what_a_killed_fetch_left_is_removed_by_a_later_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left = tmp_path / "models" / "versions" / ".gone.123"
    left.mkdir(parents=True)
    monkeypatch.setattr(fetching, "ABANDONED_SECONDS", -1.0)

    await Store(database, tmp_path / "models").folder(await kept(database, tmp_path, "one"))

    assert not left.exists()


async def test_the_latest_promotion_serves_and_rollbacks_go_back_one_by_one(
    database: Database, tmp_path: Path
):
    for name in ("a", "b", "c"):
        await kept(database, tmp_path, name)
        await model_store.promote(database, name, why="better")

    steps = [
        await model_store.rollback(database, ModelKind.INTENTS, why="complaints") for _ in range(3)
    ]

    assert steps == [("c", "b"), ("b", "a"), ("a", None)]
    assert await model_store.serving(database, ModelKind.INTENTS) is None
    with pytest.raises(InvalidInput, match="no promotion"):
        await model_store.rollback(database, ModelKind.INTENTS, why="complaints")
    await model_store.promote(database, "c", why="after all")
    found = await model_store.serving(database, ModelKind.INTENTS)
    assert found is not None
    assert found.name == "c"


async def test_a_promotion_is_taken_back_to_what_served_even_after_an_earlier_rollback(
    database: Database, tmp_path: Path
):
    for name in ("a", "b"):
        await kept(database, tmp_path, name)
        await model_store.promote(database, name, why="better")
    await model_store.rollback(database, ModelKind.INTENTS, why="worse")
    await model_store.promote(database, "b", why="mended")

    assert await model_store.rollback(database, ModelKind.INTENTS, why="no") == ("b", "a")


async def test_a_base_with_a_version_of_its_own_does_not_follow_the_one_for_all(
    database: Database, tmp_path: Path
):
    own, other = await base_id(database, "own"), await base_id(database, "other")
    for name in ("for-all", "for-one"):
        await kept(database, tmp_path, name)
    await model_store.promote(database, "for-all", why="good")
    await model_store.promote(database, "for-one", base="own", why="better here")

    serving = [await model_store.serving(database, ModelKind.INTENTS, i) for i in (own, other)]
    assert [version and version.name for version in serving] == ["for-one", "for-all"]

    await model_store.rollback(database, ModelKind.INTENTS, base="own", why="worse here")
    found = await model_store.serving(database, ModelKind.INTENTS, own)
    assert found is not None
    assert found.name == "for-all"


async def test_promotions_that_make_no_sense_are_refused(database: Database, tmp_path: Path):
    await base_id(database, "own")
    await base_id(database, "other")
    folder = made(tmp_path / "x")
    mine = await model_store.register(database, folder, ModelKind.INTENTS, base="own")
    await kept(database, tmp_path, "encoder", ModelKind.ENCODER)
    await kept(database, tmp_path, "late")
    await model_store.promote(database, "late", why="first")

    with pytest.raises(NotFound, match="nothing-such"):
        await model_store.promote(database, "nothing-such", why="?")
    with pytest.raises(InvalidInput, match="another base"):
        await model_store.promote(database, mine.name, base="other", why="?")
    with pytest.raises(InvalidInput, match="all bases"):
        await model_store.promote(database, "encoder", base="own", why="?")
    with pytest.raises(Conflict, match="late was promoted meanwhile"):
        await model_store.promote(database, mine.name, why="?", instead_of=None)


async def test_workers_hear_of_a_promotion_once_it_is_stored(database: Database, tmp_path: Path):
    await kept(database, tmp_path, "one")
    heard: asyncio.Queue[str] = asyncio.Queue()
    ready = asyncio.Event()
    listening = asyncio.create_task(
        database.listen([rows.CHANNEL], lambda _, payload: heard.put_nowait(payload), ready=ready)
    )
    try:
        await ready.wait()
        assert await heard.get() == ""  # at each connection: read again
        await model_store.promote(database, "one", why="good")
        assert await asyncio.wait_for(heard.get(), 10) == "intents"
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
