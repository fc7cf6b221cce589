"""Following the model registry: what is promoted answers within seconds, and no turn is lost.

An intents head or thresholds are read and put into the pipeline; a reply adapter gets a reply model
beside the old one; an encoder gets a pipeline of its own, whose indexes are filled while the old
one answers. What cannot be loaded is named, and the last good one serves on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answering.loading import Promoted, load_pipeline, pipeline_with_adapter, pipeline_with_encoder
from answering.pairing import replying_part
from answering.pipeline import Pipeline
from answering.promoted import read_head, read_thresholds, suits
from core import model_store
from core.db import models as rows
from core.db.connect import Database
from core.db.models import ModelVersion
from core.errors import ConfigurationError, DeskhandError
from core.model_store import Store
from core.settings import Settings
from core.types import KnowledgeBaseId, ModelKind
from core.vectors import Told, tell_nobody
from workers.indexing import Indexer
from workers.serving import ENCODER_VERSION, REPLY_VERSION, Lane, Serving

log = logging.getLogger(__name__)

TELL_SECONDS = 2.0
"""How often what the models say of themselves is taken into the heartbeats."""
RETRY_SECONDS = 15.0
"""After a model could not be loaded; a new promotion is tried at once."""
REENCODING_LOCK = "deskhand_reencoding"
"""Of several workers one encodes, the others find the vectors."""
ENCODED = "is_encoded"
"""In a version's settings: its vectors of all entries are stored, so a start takes no time."""
KEPT_READ = 16
"""Heads and thresholds that stay in memory, for instant rollbacks."""

Wanted = Mapping[tuple[ModelKind, KnowledgeBaseId | None], str | None]


@dataclass(frozen=True)
class Loading:
    """How pipelines are made in this process; tests make them of other parts.

    Attributes:
        settings: Of the process.
        on_stall: Called when a model does not come back.
    """

    settings: Settings
    on_stall: Callable[[], None]

    def first(self, promoted: Promoted) -> Pipeline:
        """Return the pipeline of a start."""
        return load_pipeline(self.settings, self.on_stall, promoted)

    def with_encoder(self, pipeline: Pipeline, folder: Path | None) -> Pipeline:
        """Return an empty pipeline on another encoder."""
        return pipeline_with_encoder(self.settings, pipeline, folder, self.on_stall)

    def with_adapter(self, pipeline: Pipeline, folder: Path | None) -> Pipeline:
        """Return a pipeline with another reply model that shares the rest."""
        return pipeline_with_adapter(self.settings, pipeline, folder, self.on_stall)


class ModelFollower:
    """Brings what is promoted into this process.

    Args:
        database: Has the registry.
        store: This machine's copies.
        loading: Makes pipelines.
        detail: What the process says of itself in its heartbeats; kept current.
    """

    def __init__(
        self, database: Database, store: Store, loading: Loading, detail: dict[str, Any]
    ) -> None:
        self._database = database
        self._store = store
        self._loading = loading
        self._detail = detail
        self._changed = asyncio.Event()
        self._read: dict[str, object] = {}
        self._troubles: dict[str, str] = {}
        self._own_adapters: set[str] = set()
        self._reencoding: asyncio.Task[None] | None = None
        self._reencoding_to: str | None = None
        self._serving: Serving | None = None

    # --- at the start -----------------------------------------------------------------------------

    async def start(self) -> Serving:
        """Load what serves, and return it with complete indexes.

        An encoder whose vectors are not stored yet is not waited for: what ships, or what served
        before it, answers until `follow` has filled its indexes.

        Raises:
            ConfigurationError: What the settings name cannot be loaded.
        """
        wanted = await self._wanted()
        encoder = await self._first_encoder(wanted.get((ModelKind.ENCODER, None)))
        adapter = await self._usable(wanted.get((ModelKind.REPLY_ADAPTER, None)))
        try:
            lane = await self._first_lane(encoder, adapter)
        except Exception as error:
            if encoder is None and adapter is None:
                raise
            self._trouble(" and ".join(v.name for v in (encoder, adapter) if v), error)
            lane = await self._first_lane(None, None)
        await lane.indexer.refresh()
        await self._apply(lane, wanted)
        self._serving = Serving(lane)
        self._tell()
        return self._serving

    async def _first_lane(self, encoder: ModelVersion | None, adapter: ModelVersion | None) -> Lane:
        promoted = Promoted(await self._folder(encoder), await self._folder(adapter))
        pipeline = await asyncio.to_thread(self._loading.first, promoted)
        return self._lane(pipeline, encoder, adapter)

    async def _first_encoder(self, name: str | None) -> ModelVersion | None:
        version = await self._usable(name)
        if version is None or version.settings.get(ENCODED):
            return version
        past = await model_store.history(self._database, ModelKind.ENCODER)
        others = [p.version for p in past if p.version not in (None, name)]
        before = await self._usable(others[-1] if others else None)
        return before if before is not None and before.settings.get(ENCODED) else None

    async def _usable(self, name: str | None) -> ModelVersion | None:
        """Return a version whose files are here, None if there is none or they cannot be had."""
        if name is None:
            return None
        try:
            version = await model_store.find(self._database, name)
            await self._store.folder(version)
        except DeskhandError as error:
            self._trouble(name, error)
            return None
        return version

    async def _folder(self, version: ModelVersion | None) -> Path | None:
        return None if version is None else await self._store.folder(version)

    def _lane(
        self,
        pipeline: Pipeline,
        encoder: ModelVersion | None,
        adapter: ModelVersion | None,
        told: Told = tell_nobody,
    ) -> Lane:
        indexer = Indexer(self._database, pipeline, pipeline.encoder_name, told)
        named = {ENCODER_VERSION: encoder, REPLY_VERSION: adapter}
        return Lane(pipeline, indexer, {k: v.name for k, v in named.items() if v is not None})

    # --- afterwards -------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Take in each promotion, for ever."""
        listening = asyncio.create_task(
            self._database.listen([rows.CHANNEL], self._heard, ready=asyncio.Event())
        )
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), TELL_SECONDS)
                if not self._changed.is_set():
                    self._tell()  # how a reply model on a server is
                    continue
                self._changed.clear()
                await self._refresh_or_retry()
        finally:
            tasks = [task for task in (listening, self._reencoding) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_filling(self) -> bool:
        """Whether the indexes of another encoder are being filled."""
        return self._reencoding is not None and not self._reencoding.done()

    def _heard(self, channel: str, payload: str) -> None:
        self._changed.set()

    async def _refresh_or_retry(self) -> None:
        self._troubles.clear()
        try:
            await self.refresh()
        except Exception as error:
            self._trouble("the registry", error)
        self._tell()

    async def refresh(self) -> None:
        """Bring in what is promoted now; an encoder goes on loading in the background."""
        serving = self._require_serving()
        wanted = await self._wanted()
        for lane in serving.lanes:  # kept ones as well: they may serve again at once
            await self._apply(lane, wanted)
        adapter = wanted.get((ModelKind.REPLY_ADAPTER, None))
        if adapter != serving.lane.versions.get(REPLY_VERSION):
            await self._attempt(adapter or model_store.SHIPPED, self._switch_adapter(adapter))
        self._switch_encoder(wanted.get((ModelKind.ENCODER, None)))

    def _require_serving(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("start comes first")
        return self._serving

    async def _wanted(self) -> Wanted:
        async with self._database.transaction() as conn:
            wanted = {(row.kind, row.base_id): row.version for row in await rows.serving(conn)}
        self._own_adapters = {
            name
            for (kind, base_id), name in wanted.items()
            if kind is ModelKind.REPLY_ADAPTER and base_id is not None and name is not None
        }
        return wanted

    async def _attempt(self, name: str, work: Awaitable[None]) -> None:
        """Do something that may fail: what serves goes on serving."""
        try:
            await work
        except Exception as error:
            self._trouble(name, error)

    def _trouble(self, name: str, error: Exception) -> None:
        expected = isinstance(error, DeskhandError)
        self._troubles[name] = str(error) if expected else f"{type(error).__name__}: {error}"
        log.warning(
            "Model could not be taken in; the last good one serves on",
            extra={"action": "model_refused", "model": name, "reason": self._troubles[name]},
            exc_info=None if expected else error,
        )
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)

    def _tell(self) -> None:
        lane = self._require_serving().lane
        self._detail["models"] = {**lane.pipeline.models, **lane.versions}
        engine = replying_part(lane.pipeline.engine)
        trouble = engine.trouble if engine else None
        more = {"the reply model": f"{trouble}; approved answers are given"} if trouble else {}
        self._detail["model_troubles"] = {**self._troubles, **more}

    # --- heads and thresholds ---------------------------------------------------------------------

    async def _apply(self, lane: Lane, wanted: Wanted) -> None:
        """Put heads and thresholds into a pipeline, also the absence of those taken back."""
        for (kind, base_id), name in wanted.items():
            if kind is ModelKind.INTENTS:
                await self._attempt(name or "", self._use_intents(lane, base_id, name))
            elif kind is ModelKind.CALIBRATION:
                await self._attempt(name or "", self._use_calibration(lane, base_id, name))

            elif kind is ModelKind.REPLY_ADAPTER and base_id is not None:
                await self._attempt(name or "", self._use_adapter(lane, base_id, name))

    async def _use_adapter(self, lane: Lane, base_id: KnowledgeBaseId, name: str | None) -> None:
        """Let a base's own adapter write its replies, beside the reply model of all bases."""
        if name is not None:
            await self._add_adapter(lane.pipeline, name)
        lane.pipeline.use_adapter(base_id, name or "")

    async def _add_adapter(self, pipeline: Pipeline, name: str) -> None:
        engine = replying_part(pipeline.engine)
        if engine is None:
            raise ConfigurationError("no reply model is loaded that could take an adapter")
        if name in engine.adapters:
            return
        folder = await self._store.folder(await model_store.find(self._database, name))
        await engine.keep_adapters(self._own_adapters)  # what was replaced; a rollback loads it
        await engine.add_adapter(name, folder)

    async def _use_intents(
        self, lane: Lane, base_id: KnowledgeBaseId | None, name: str | None
    ) -> None:
        head = await self._suitable(lane, name, read_head)
        lane.pipeline.use_intents(base_id, head, name or "")

    async def _use_calibration(
        self, lane: Lane, base_id: KnowledgeBaseId | None, name: str | None
    ) -> None:
        thresholds = await self._suitable(lane, name, read_thresholds)
        lane.pipeline.use_calibration(base_id, thresholds, name or "")

    async def _suitable(self, lane: Lane, name: str | None, read: Callable[[Path], Any]) -> Any:
        """Return what a version holds; None for one that was made on another encoder."""
        if name is None:
            return None
        version = await model_store.find(self._database, name)
        if not suits(version, lane.pipeline.encoder_name):
            self._misfit(lane, version)
            return None
        if name not in self._read:
            folder = await self._store.folder(version)
            self._read[name] = await asyncio.to_thread(read, folder)
            while len(self._read) > KEPT_READ:
                self._read.pop(next(iter(self._read)))
        return self._read[name]

    def _misfit(self, lane: Lane, version: ModelVersion) -> None:
        if (
            self._serving is not None
            and lane in self._serving.lanes
            and lane is not self._serving.lane
        ):
            return  # kept for a rollback, with what suited it
        made_on = version.settings.get("encoder")
        self._troubles[version.name] = (
            f"made on the encoder {made_on}, not on {lane.pipeline.encoder_name}: train it anew"
        )
        log.warning(
            "Model does not fit the encoder and is not used",
            extra={"action": "model_misfit", "model": version.name, "encoder": made_on},
        )

    # --- reply adapters ---------------------------------------------------------------------------

    async def _switch_adapter(self, name: str | None) -> None:
        serving = self._require_serving()
        if (kept := self._kept(serving, {REPLY_VERSION: name})) is not None:
            serving.switch(kept)
            return
        version = None if name is None else await model_store.find(self._database, name)
        folder = await self._folder(version)
        lane = serving.lane
        twin = await asyncio.to_thread(self._loading.with_adapter, lane.pipeline, folder)
        for own in self._own_adapters:  # the bases that name them are shared with the old one
            await self._attempt(own, self._add_adapter(twin, own))
        versions = _without(lane.versions, REPLY_VERSION)
        if name is not None:
            versions[REPLY_VERSION] = name
        serving.switch(Lane(twin, lane.indexer, versions))

    def _kept(self, serving: Serving, versions: Mapping[str, str | None]) -> Lane | None:
        """Return a loaded lane that differs from what serves in these versions alone."""
        wanted = {**serving.lane.versions, **versions}
        wanted = {k: v for k, v in wanted.items() if v is not None}
        return next((lane for lane in serving.lanes if dict(lane.versions) == wanted), None)

    # --- encoders ---------------------------------------------------------------------------------

    def _switch_encoder(self, name: str | None) -> None:
        """Switch to a kept encoder at once, or begin to fill the indexes of another one."""
        serving = self._require_serving()
        if self._reencoding is not None and self.is_filling:
            if self._reencoding_to == name:
                return
            self._reencoding.cancel()
        if name == serving.lane.versions.get(ENCODER_VERSION):
            return
        if (kept := self._kept(serving, {ENCODER_VERSION: name})) is not None:
            serving.switch(kept)
            return
        self._reencoding_to = name
        self._reencoding = asyncio.create_task(self._reencode(name))

    async def _reencode(self, name: str | None) -> None:
        """Fill the indexes of another encoder beside those that serve, then let them serve."""
        try:
            await self._attempt(name or model_store.SHIPPED, self._encoder_lane(name))
        finally:
            self._detail.pop("encoding", None)
        self._tell()

    async def _encoder_lane(self, name: str | None) -> None:
        serving = self._require_serving()
        version = None if name is None else await model_store.find(self._database, name)
        folder = await self._folder(version)
        await serving.drop_kept()
        old = serving.lane
        pipeline = await self._loaded(old.pipeline, folder)
        lane = self._lane(pipeline, version, None, self._progress(name or model_store.SHIPPED))
        lane.versions = {**_without(old.versions, ENCODER_VERSION), **lane.versions}
        try:
            async with self._database.exclusively(REENCODING_LOCK):
                await lane.indexer.refresh()
            await lane.indexer.refresh()  # what was edited meanwhile
            if version is not None:
                await model_store.note(
                    self._database, version.name, settings={ENCODED: True}, metrics={}
                )
            await self._apply(lane, await self._wanted())
        except BaseException:
            await serving.discard(pipeline)
            raise
        serving.adopt_reply_model(lane)  # which may have changed meanwhile
        serving.switch(lane)

    async def _loaded(self, old: Pipeline, folder: Path | None) -> Pipeline:
        """Return a pipeline on another encoder; a load that is called off is still ended."""
        loading = asyncio.create_task(asyncio.to_thread(self._loading.with_encoder, old, folder))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            await self._require_serving().discard(await loading)
            raise

    def _progress(self, name: str) -> Told:
        def told(there: int, wanted: int) -> None:
            self._detail["encoding"] = {"encoder": name, "done": there, "of": wanted}

        return told


def _without(versions: Mapping[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in versions.items() if name != key}
