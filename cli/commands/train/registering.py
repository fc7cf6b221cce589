"""From a folder that training wrote to a version in the registry, and to what serves."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.train.common import progress
from core.types import ModelKind

if TYPE_CHECKING:
    from core.db.connect import Database
    from core.db.models import ModelVersion
    from core.settings import Settings

Register = Annotated[bool, typer.Option("--register", help="Keep it as a version in the registry.")]
OneBase = Annotated[
    str | None, typer.Option("--base", help="With --register: only for this knowledge base.")
]
LEFT_BEHIND = ("logs", "held-out.jsonl")
"""What a version does not need: curves, and what customers said."""


def register_folder(
    context: typer.Context,
    folder: Path,
    kind: ModelKind,
    *,
    base: str | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """Register a folder as a version: its files without logs, under the hash of its data.

    Raises:
        InvalidInput: The folder or its card is not in order.
        Unavailable: The database cannot be reached.
    """
    from cli import direct
    from core import model_store

    async def work(database: Database, configured: Settings) -> ModelVersion:
        with tempfile.TemporaryDirectory() as place:
            clean = Path(place) / "version"
            shutil.copytree(folder, clean, ignore=shutil.ignore_patterns(".*", *LEFT_BEHIND))
            return await model_store.register(
                database, clean, kind, base=base, settings=settings, metrics=metrics,
                author=direct.user(), model_url=configured.model_url,
            )  # fmt: skip

    version = direct.run(context, work)
    progress(f"Registered as {version.name}")
    return version


def register_adapter(context: typer.Context, folder: Path) -> ModelVersion:
    """Register a reply adapter: how it was made is its settings, what came out its metrics."""
    record: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    outcome = record.pop("outcome")
    record.pop("data_sha256")
    return register_folder(
        context, folder, ModelKind.REPLY_ADAPTER, settings=record, metrics={"training": outcome}
    )


def promote_adapter(
    context: typer.Context, name: str, base_model: Path, folder: Path, *, is_default: bool
) -> str:
    """Let an adapter serve if it is no worse on the held-out pairs; return what was measured.

    Args:
        context: Of the command.
        name: Of the version.
        base_model: The transformers folder of the reply model.
        folder: What was trained.
        is_default: The base is the default model, for which an adapter ships.

    Raises:
        Conflict: It is worse beyond noise, or there are too few pairs to tell.
    """
    from cli import direct
    from training import registering
    from training.replies import gate

    async def work(database: Database, settings: Settings) -> registering.Outcome:
        old = await _serving(database, settings, is_default)
        with tempfile.TemporaryDirectory() as place:
            results = gate.compared(
                base_model, old, folder, folder / "held-out.jsonl", Path(place), progress
            )
            return await registering.promote(
                database, settings, name, results=results, author=direct.user(), tell=progress
            )

    outcome = direct.run(context, work)
    return f"{outcome.note}\n{name} serves, instead of {outcome.against or 'what ships'}."


async def _serving(database: Database, settings: Settings, is_default: bool) -> Path | None:
    """Return the folder of the adapter that serves, the shipped one where none was promoted."""
    from answering import preparing
    from core import model_store
    from core.model_store import Store

    version = await model_store.serving(database, ModelKind.REPLY_ADAPTER)
    if version is not None:
        return await Store(database, settings.models_dir).folder(version)
    if settings.adapter:
        return Path(settings.adapter)
    return preparing.shipped_adapter() if is_default else None


def serving_adapter(context: typer.Context, *, is_default: bool) -> Path | None:
    """Return the folder of the adapter that serves; None for the untuned model."""
    from cli import direct

    return direct.run(context, lambda database, settings: _serving(database, settings, is_default))
