"""Which backend serves a reply model, and how its name resolves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from answering import preparing
from answering.generators.protocol import Generator
from core.errors import ConfigurationError

SERVER_PREFIX = "openai:"


def load_generator(
    name_or_path: str,
    models_dir: Path,
    *,
    device: str = "auto",
    adapter: str | Path | None = None,
    url: str | None = None,
    key: str | None = None,
    threads: int = 0,
) -> Generator:
    """Return a generator for a reply model.

    A name resolves as: `openai:<model>` on a server; the default model by its name; a path; the
    model store; the hub. The default model runs on OpenVINO where the device is a CPU.

    Args:
        name_or_path: Such as `smollm2-135m-instruct`, a folder, a `.gguf` file.
        models_dir: The model store; the default model is made in it if need be.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        adapter: Folder of a LoRA adapter; the shipped one for the default model when not given.
        url: Base address of an OpenAI-compatible server.
        key: Its API key.
        threads: CPU threads; 0 takes the cores there are.

    Raises:
        ConfigurationError: The model or the adapter cannot be found or loaded.
    """
    if name_or_path.startswith(SERVER_PREFIX):
        return _server(name_or_path.removeprefix(SERVER_PREFIX), url, key)
    folder = Path(adapter).expanduser() if adapter else None
    if name_or_path == preparing.REPLY_MODEL:
        return _default(models_dir, device, folder or preparing.shipped_adapter(), threads)
    path = next(
        (place for place in (Path(name_or_path).expanduser(), models_dir / name_or_path)
         if place.exists()), None,
    )  # fmt: skip
    if path is not None and (gguf := _gguf_in(path)) is not None:
        return _openvino(gguf, Path(name_or_path).name, threads)
    return _transformers(
        str(path or name_or_path), Path(name_or_path).name, device, folder, threads
    )


def _server(model: str, url: str | None, key: str | None) -> Generator:
    from answering.generators.openai_compatible import OpenAiGenerator

    if not url:
        raise ConfigurationError(
            f"the reply model {SERVER_PREFIX}{model} needs DESKHAND_REPLY_MODEL_URL, "
            "such as http://host:8000/v1"
        )
    return OpenAiGenerator(url, model, key)


def _default(models_dir: Path, device: str, adapter: Path | None, threads: int) -> Generator:
    name = f"{preparing.REPLY_MODEL}+{adapter.name if adapter else 'untuned'}"
    from answering.generators import adapted  # imports torch, which the CPU runtime's child spares

    mergeable = adapter is None or adapted.served_anywhere(adapter)
    if mergeable and _on_cpu(device) and preparing.openvino_is_there():
        folder = preparing.prepare_merged(models_dir, _quiet, adapter)

        def merged(another: Path) -> Path:
            return preparing.prepare_merged(models_dir, _quiet, another)

        return _openvino(folder, f"{name} {preparing.QUANTISATION}", threads, merged)
    folder = preparing.prepare_reply_base(models_dir, _quiet)
    return _transformers(str(folder), name, device, adapter, threads)


def _openvino(
    model: Path, name: str, threads: int, merged: Callable[[Path], Path] | None = None
) -> Generator:
    if not preparing.openvino_is_there():
        raise ConfigurationError(
            f"{model} is a GGUF file, which needs the package openvino-genai; install it, or name "
            "a transformers folder"
        )
    from answering.generators.apart import ApartGenerator

    return ApartGenerator(model, name, threads, merged=merged)


def _transformers(
    place: str, name: str, device: str, adapter: Path | None, threads: int
) -> Generator:
    from answering.generators.transformers_local import TransformersGenerator

    return TransformersGenerator(place, name, device=device, adapter=adapter, threads=threads)


def _gguf_in(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    return next(iter(sorted(path.glob("*.gguf"))), None)


def _on_cpu(device: str) -> bool:
    if device != "auto":
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def _quiet(_line: str) -> None:
    """The worker's start is not the place for a person's progress lines."""
