"""Workers follow promotions: between two turns, with the last good model where one is broken."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering.engine import Engine
from answering.loading import Promoted
from answering.pairing import NoEncoder, Pair, encoding_part, replying_part
from core import model_store
from core.db import faq, inboxes
from core.db.connect import Database
from core.errors import ConfigurationError
from core.model_store import ModelKind, Store
from core.risk import Certificate, Thresholds
from core.types import (
    Choice,
    Decision,
    FaqEntry,
    KnowledgeBase,
    KnowledgeBaseId,
    Question,
    Reply,
    Tier,
    Trace,
)
from workers import models as following
from workers.models import ModelFollower
from workers.serving import Lane, Serving

DATA = hashlib.sha256(b"data").hexdigest()
PATIENCE_SECONDS = 20.0


class FakeEncoder:
    """Vectors that tell whose they are."""

    dimensions = 2

    def __init__(self, name: str) -> None:
        self.name = name

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return np.ones((len(texts), 2), np.float32)

    encode_passages = encode_queries


class FakeGenerator:
    """Notes that it was closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_closed = False

    def generate(self, prompts: Sequence[Any], max_new_tokens: int) -> list[Any]:
        return []

    def close(self) -> None:
        self.is_closed = True

    def ready_adapter(self, folder: Path) -> Path:
        if (folder / "weights").read_bytes() == b"unreadable":
            raise ConfigurationError(f"the adapter {folder.name} does not fit this reply model")
        return folder

    def add_adapter(self, name: str, place: Path) -> None: ...

    def drop_adapter(self, name: str) -> None: ...


@dataclass
class FakePipeline:
    """Says which models it has; indexes and answers as it is told."""

    engine: Any
    entries: dict[str, FaqEntry] = field(default_factory=dict)
    thresholds: dict[KnowledgeBaseId | None, tuple[str, Any]] = field(default_factory=dict)
    heads: dict[KnowledgeBaseId | None, tuple[str, Any]] = field(default_factory=dict)
    adapters: dict[KnowledgeBaseId, str] = field(default_factory=dict)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    may_fill: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()
        self.may_fill.set()

    @property
    def encoder_name(self) -> str:
        return self.engine.encoder.name

    @property
    def models(self) -> dict[str, str]:
        return {"encoder": self.encoder_name, "reply": self.engine.generator.name}

    async def answer(self, question: Question, show: object = None) -> Reply:
        used = dict(self.models)
        assert question.knowledge_base.id in {1, *self.entries} or self.entries, "no index"
        await self.may_answer.wait()
        await self.engine.encode(["a question"])  # fails on models that were freed
        return Reply(
            Choice(Decision.ANSWER, "as told"), "", Tier.APPROVED, "en", trace=Trace(models=used)
        )

    async def refresh(self, base: KnowledgeBase, changes: Any, **_: Any) -> None:
        await self.may_fill.wait()
        await self.engine.encode_passages([entry.question for entry in changes])
        self.entries |= {entry.id: entry for entry in changes}

    def use_intents(self, base_id: KnowledgeBaseId | None, head: Any, name: str) -> None:
        self.heads[base_id] = (name, head)

    def use_adapter(self, base_id: KnowledgeBaseId, name: str) -> None:
        self.adapters[base_id] = name

    def use_calibration(self, base_id: KnowledgeBaseId | None, thresholds: Any, name: str) -> None:
        self.thresholds[base_id] = (name, thresholds)


@dataclass
class FakeLoading:
    """Makes pipelines of fake models; notes what was loaded."""

    loaded: list[str] = field(default_factory=list)
    made: list[FakePipeline] = field(default_factory=list)
    before: Any = None

    def _named(self, folder: Path | None, shipped: str) -> str:
        name = folder.name if folder else shipped
        if folder and (folder / "weights").read_bytes() == b"unreadable":
            raise ConfigurationError(f"{folder} holds no model")
        self.loaded.append(name)
        return name

    def first(self, promoted: Promoted) -> Any:
        encoder = FakeEncoder(self._named(promoted.encoder, "e5"))
        generator = FakeGenerator(self._named(promoted.adapter, "smollm"))
        return self._made(Engine(encoder, generator).start())

    def with_encoder(self, pipeline: Any, folder: Path | None) -> Any:
        if self.before is not None:
            self.before()
        encoding = Engine(FakeEncoder(self._named(folder, "e5"))).start()
        return self._made(Pair(encoding, replying_part(pipeline.engine)))

    def with_adapter(self, pipeline: Any, folder: Path | None) -> Any:
        generator = FakeGenerator(self._named(folder, "smollm"))
        replying = Engine(NoEncoder(), generator).start()
        made = self._made(Pair(encoding_part(pipeline.engine), replying))
        made.entries, made.thresholds = pipeline.entries, pipeline.thresholds
        made.adapters = pipeline.adapters
        return made

    def _made(self, engine: Any) -> FakePipeline:
        self.made.append(FakePipeline(engine))
        return self.made[-1]


@dataclass
class Worker:
    """A worker as far as models go."""

    follower: ModelFollower
    serving: Serving
    loading: FakeLoading
    detail: dict[str, Any]
    base: KnowledgeBase

    async def used(self) -> dict[str, str]:
        """Return the models that answer a question now."""
        return dict((await self.serving.answer(Question(self.base, ("hello?",)))).trace.models)

    @property
    def pipeline(self) -> FakePipeline:
        return self.serving.lane.pipeline  # type: ignore[return-value]

    async def until(self, holds: Any, what: str) -> None:
        """Wait for what a notification will bring about."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110  it comes through the database
                await asyncio.sleep(0.01)
        assert holds(), what


@pytest.fixture
async def base(database: Database) -> KnowledgeBase:
    async with database.transaction() as conn:
        await inboxes.ensure_inbox(conn, "web", "web")
        found = await inboxes.base_named(conn, "default")
        await conn.execute(
            """insert into faq_entry (knowledge_base_id, id, question, normalised_question, answer,
                                      status, changed_at_version)
               values (%(base)s, 'returns', 'Can I send it back?', 'can i send it back', 'Yes.',
                       'published', 1)""",
            {"base": found.id},
        )
        await faq.raise_version(conn, found.id)
    return found


@asynccontextmanager
async def working(
    database: Database, base: KnowledgeBase, models_dir: Path, loading: FakeLoading | None = None
) -> AsyncGenerator[Worker]:
    """Lend a worker that follows promotions."""
    made = loading or FakeLoading()
    detail: dict[str, Any] = {}
    follower = ModelFollower(database, Store(database, models_dir), made, detail)  # type: ignore[arg-type]
    serving = await follower.start()
    task = asyncio.create_task(follower.follow())
    try:
        yield Worker(follower, serving, made, detail, base)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await serving.close()


async def registered(
    database: Database,
    folder: Path,
    name: str,
    kind: ModelKind,
    files: dict[str, bytes] | None = None,
    **settings: object,
) -> None:
    place = folder / "trained" / name
    place.mkdir(parents=True)
    for file, content in (files or {"weights": name.encode()}).items():
        (place / file).write_bytes(content)
    await model_store.register(
        database, place, kind, name=name, data_sha256=DATA, settings=settings, metrics={}
    )


def thresholds(prior: float) -> dict[str, bytes]:
    made = Thresholds(0.05, 0.1, prior, Certificate(None, 0))
    return {"thresholds.json": json.dumps(made.to_json()).encode()}


async def test_promoted_thresholds_are_used_and_taken_back_without_a_restart(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "strict", ModelKind.CALIBRATION, thresholds(0.9))
    async with working(database, base, tmp_path / "models") as worker:
        await model_store.promote(database, "strict", base="default", why="fitted")
        await worker.until(lambda: base.id in worker.pipeline.thresholds, "thresholds used")
        name, used = worker.pipeline.thresholds[base.id]
        assert (name, used.prior) == ("strict", 0.9)

        await model_store.rollback(database, ModelKind.CALIBRATION, base="default", why="no")
        await worker.until(
            lambda: worker.pipeline.thresholds[base.id] == ("", None), "what ships serves again"
        )


async def test_a_turn_ends_on_the_encoder_on_which_it_began_and_none_is_lost(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    async with working(database, base, tmp_path / "models") as worker:
        old = worker.pipeline
        old.may_answer.clear()
        under_way = [asyncio.create_task(worker.used()) for _ in range(5)]
        await worker.until(lambda: worker.serving.lane.turns == 5, "turns under way")

        await model_store.promote(database, "tuned", why="better")
        await worker.until(lambda: worker.pipeline is not old, "switched")
        after = await worker.used()
        old.may_answer.set()
        before = await asyncio.gather(*under_way)

        assert {models["encoder"] for models in before} == {"e5"}
        assert (after["encoder"], after["encoder_version"]) == ("tuned", "tuned")
        assert after["reply"] == "smollm"


async def test_the_old_encoder_answers_until_the_indexes_of_the_new_one_are_complete(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    loading = FakeLoading()
    held = threading.Event()
    loading.before = lambda: held.wait(PATIENCE_SECONDS)
    async with working(database, base, tmp_path / "models", loading) as worker:
        await model_store.promote(database, "tuned", why="better")
        assert (await worker.used())["encoder"] == "e5"
        held.set()
        await worker.until(lambda: len(loading.made) == 2, "loaded")
        await worker.until(lambda: worker.pipeline is loading.made[1], "switched")

        assert loading.made[1].entries.keys() == {"returns"}
        assert (await worker.used())["encoder"] == "tuned"
        stored = await model_store.find(database, "tuned")
        assert stored.settings["is_encoded"] is True


async def test_a_rollback_soon_after_loads_nothing(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    await registered(database, tmp_path, "adapter", ModelKind.REPLY_ADAPTER)
    async with working(database, base, tmp_path / "models") as worker:
        first = worker.pipeline
        for name, kind in (
            ("tuned", ModelKind.ENCODER), ("adapter", ModelKind.REPLY_ADAPTER),
        ):  # fmt: skip
            before = worker.pipeline
            await model_store.promote(database, name, why="better")
            await worker.until(lambda old=before: worker.pipeline is not old, "switched")
            loaded = list(worker.loading.loaded)
            await model_store.rollback(database, kind, why="worse")
            await worker.until(lambda old=before: worker.pipeline is old, "back")
            assert worker.loading.loaded == loaded
        assert worker.pipeline is first
        assert await worker.used() == {"encoder": "e5", "reply": "smollm"}


async def test_a_new_reply_adapter_keeps_the_indexes_and_is_named_in_the_trace(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "adapter", ModelKind.REPLY_ADAPTER)
    async with working(database, base, tmp_path / "models") as worker:
        indexed = worker.pipeline.entries
        await model_store.promote(database, "adapter", why="better")
        await worker.until(lambda: "reply_version" in worker.serving.lane.versions, "switched")

        assert worker.pipeline.entries is indexed
        assert (await worker.used())["reply_version"] == "adapter"


async def test_a_bases_own_adapter_is_live_beside_the_reply_model_of_all_bases(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "voice", ModelKind.REPLY_ADAPTER)
    await registered(database, tmp_path, "common", ModelKind.REPLY_ADAPTER)
    async with working(database, base, tmp_path / "models") as worker:
        first = worker.pipeline
        await model_store.promote(database, "voice", base="default", why="its own tone")
        await worker.until(lambda: worker.pipeline.adapters.get(base.id) == "voice", "live")
        assert worker.pipeline is first  # no other base is touched
        assert first.engine.adapters == {"voice"}

        await model_store.promote(database, "common", why="better for all")
        await worker.until(lambda: worker.pipeline is not first, "switched")
        replying = replying_part(worker.pipeline.engine)
        assert replying is not None
        assert replying.adapters == {"voice"}

        await model_store.rollback(database, ModelKind.REPLY_ADAPTER, base="default", why="no")
        await worker.until(lambda: worker.pipeline.adapters[base.id] == "", "taken back")


async def test_an_adapter_that_does_not_fit_leaves_the_base_what_it_had(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "voice", ModelKind.REPLY_ADAPTER)
    await registered(
        database, tmp_path, "wrong", ModelKind.REPLY_ADAPTER, {"weights": b"unreadable"}
    )
    async with working(database, base, tmp_path / "models") as worker:
        await model_store.promote(database, "voice", base="default", why="its own tone")
        await worker.until(lambda: worker.pipeline.adapters.get(base.id) == "voice", "live")
        await model_store.promote(database, "wrong", base="default", why="a mistake")
        await worker.until(lambda: "wrong" in worker.detail["model_troubles"], "named")
        assert "does not fit" in worker.detail["model_troubles"]["wrong"]
        assert worker.pipeline.adapters[base.id] == "voice"


async def test_a_broken_model_is_named_and_the_last_good_one_serves_on(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "good", ModelKind.CALIBRATION, thresholds(0.8))
    await registered(
        database, tmp_path, "broken", ModelKind.CALIBRATION, {"thresholds.json": b"{}"}
    )
    await registered(
        database, tmp_path, "broken-encoder", ModelKind.ENCODER, {"weights": b"unreadable"}
    )
    async with working(database, base, tmp_path / "models") as worker:
        for name in ("good", "broken", "broken-encoder"):
            await model_store.promote(database, name, why="?")
        await worker.until(
            lambda: {"broken", "broken-encoder"} <= worker.detail["model_troubles"].keys(), "named"
        )

        assert worker.pipeline.thresholds[None][0] == "good"
        assert (await worker.used())["encoder"] == "e5"


async def test_a_full_disk_while_a_promoted_model_is_fetched_leaves_what_serves(
    database: Database, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    async with working(database, base, tmp_path / "models") as worker:

        def full(path: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            await model_store.promote(database, "tuned", why="better")
            await worker.until(lambda: worker.detail.get("model_troubles"), "named")
            assert "No space left" in worker.detail["model_troubles"]["tuned"]
            assert (await worker.used())["encoder"] == "e5"


async def test_what_was_made_on_another_encoder_is_not_used(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(
        database, tmp_path, "foreign", ModelKind.CALIBRATION, thresholds(0.8), encoder="other"
    )
    async with working(database, base, tmp_path / "models") as worker:
        await model_store.promote(database, "foreign", why="?")
        await worker.until(lambda: worker.detail.get("model_troubles"), "named")

        assert worker.pipeline.thresholds[None] == ("foreign", None)
        assert "made on the encoder other, not on e5" in worker.detail["model_troubles"]["foreign"]


async def test_thresholds_of_the_new_encoder_come_with_it_and_those_of_the_old_one_go(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    await registered(
        database, tmp_path, "for-tuned", ModelKind.CALIBRATION, thresholds(0.7), encoder="tuned"
    )
    await model_store.promote(database, "for-tuned", why="comes with the encoder")
    async with working(database, base, tmp_path / "models") as worker:
        old = worker.pipeline
        assert old.thresholds[None][1] is None
        await model_store.promote(database, "tuned", why="better")
        await worker.until(lambda: worker.pipeline is not old, "switched")

        assert worker.pipeline.thresholds[None][1].prior == 0.7


async def test_a_start_does_not_wait_for_an_encoder_whose_vectors_are_missing(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    await model_store.promote(database, "tuned", why="better")
    async with working(database, base, tmp_path / "models") as worker:
        assert worker.loading.loaded[:2] == ["e5", "smollm"]
        await worker.until(lambda: worker.pipeline.encoder_name == "tuned", "switched")

    async with working(database, base, tmp_path / "models") as again:
        assert again.loading.loaded == ["tuned", "smollm"]
        assert (await again.used())["encoder_version"] == "tuned"


async def test_a_start_with_a_broken_model_falls_back_to_what_ships(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(
        database, tmp_path, "broken", ModelKind.REPLY_ADAPTER, {"weights": b"unreadable"}
    )
    await model_store.promote(database, "broken", why="?")
    async with working(database, base, tmp_path / "models") as worker:
        assert await worker.used() == {"encoder": "e5", "reply": "smollm"}
        assert "broken" in worker.detail["model_troubles"]


async def test_a_promotion_taken_back_while_indexes_fill_is_called_off(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    await registered(database, tmp_path, "tuned", ModelKind.ENCODER)
    loading = FakeLoading()
    held = threading.Event()
    loading.before = lambda: held.wait(PATIENCE_SECONDS)
    async with working(database, base, tmp_path / "models", loading) as worker:
        first = worker.pipeline
        await model_store.promote(database, "tuned", why="better")
        await worker.until(lambda: worker.follower.is_filling, "begun")
        await model_store.rollback(database, ModelKind.ENCODER, why="no, wait")
        held.set()
        await worker.until(lambda: not worker.follower.is_filling, "called off")

        assert worker.pipeline is first
        assert isinstance(loading.made[-1].engine.encoding.encoder, NoEncoder)  # freed
        assert not first.engine.generator.is_closed
        assert (await worker.used())["encoder"] == "e5"


async def test_what_was_replaced_is_freed_in_time_but_never_under_a_turn(
    database: Database, base: KnowledgeBase, tmp_path: Path
):
    loading = FakeLoading()
    first: Any = loading.first(Promoted())
    second: Any = loading.with_adapter(first, None)
    indexer: Any = FakeIndexer()
    serving = Serving(Lane(first, indexer), kept_seconds=0.0)
    first.may_answer.clear()
    under_way = asyncio.create_task(serving.answer(Question(base, ("hello?",))))
    await asyncio.sleep(0)  # let it begin
    old = first.engine.generator

    serving.switch(Lane(second, indexer))
    assert not old.is_closed
    first.may_answer.set()
    await under_way
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(serving.lanes) > 1 or not old.is_closed:  # noqa: ASYNC110  freed on a thread
            await asyncio.sleep(0.01)

    assert not second.engine.generator.is_closed
    assert (await serving.answer(Question(base, ("hello?",)))).trace.models["encoder"] == "e5"
    await serving.close()
    assert second.engine.generator.is_closed


class FakeIndexer:
    """Follows nothing."""

    def serve(self, indexes: Any) -> None: ...

    async def follow(self) -> None:
        await asyncio.Event().wait()


def test_a_failed_load_is_tried_again_within_a_minute():
    assert 1.0 <= following.RETRY_SECONDS <= 60.0
