"""Low-rank adapters of an encoder, in peft's format: read, written, and merged into the weights.

Source: Hu et al., LoRA, ICLR 2022, equation 3: W x + (alpha / r) B A x. Merged, the encoder costs
what it cost before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MARK = "adapter.json"
"""In a model's folder: which adapter its weights hold. The encoder's name ends with it."""
SHIPPED = Path(__file__).parent.parent / "weights"
_PREFIX = "base_model.model."

Weights = Mapping[str, NDArray[np.float16]]


@dataclass(frozen=True)
class Adapter:
    """The two factors of each layer that was tuned.

    Attributes:
        weights: `<layer>.lora_A.weight`, shape (rank, in), and `<layer>.lora_B.weight`, shape
            (out, rank), in half precision, so that what is tried is what is written.
        rank: Of the factors.
        alpha: The product is scaled by alpha / rank.
        base: The public name of the encoder that it belongs to.
    """

    weights: Weights
    rank: int
    alpha: int
    base: str

    @property
    def digest(self) -> str:
        """One hash for all that changes vectors."""
        digest = hashlib.sha256(f"{self.base} {self.rank} {self.alpha}".encode())
        for name, values in sorted(self.weights.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values, "<f2").tobytes())
        return digest.hexdigest()

    @property
    def layers(self) -> list[str]:
        """The names of the layers, as the model's own modules are named."""
        ends = ".lora_A.weight"
        return sorted(name.removesuffix(ends) for name in self.weights if name.endswith(ends))

    def part(self, share: float) -> Adapter:
        """Return the adapter that goes only part of the way; 1 is this one."""
        weights = {
            name: values * np.float16(share) if name.endswith("lora_B.weight") else values
            for name, values in self.weights.items()
        }
        return replace(self, weights=weights)

    def delta(self, layer: str) -> NDArray[np.float32]:
        """Return what is added to a layer's weight, shape (out, in)."""
        down = self.weights[f"{layer}.lora_A.weight"].astype(np.float32)
        up = self.weights[f"{layer}.lora_B.weight"].astype(np.float32)
        return np.float32(self.alpha / self.rank) * (up @ down)


def tuned_name(base: str, adapter: Adapter) -> str:
    """Return the name under which vectors of a tuned encoder are kept."""
    return f"{base}+{adapter.digest[:8]}"


def read(folder: Path) -> Adapter:
    """Return the adapter in a folder.

    Raises:
        ConfigurationError: The folder holds none, or it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = load_file(folder / WEIGHTS)
        return Adapter(
            {name.removeprefix(_PREFIX): values.astype(np.float16)
             for name, values in stored.items()},
            int(config["r"]), int(config["lora_alpha"]), str(config["base_model_name_or_path"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigurationError(
            f"{folder} holds no adapter of an encoder ({error}); give a folder with {WEIGHTS} and "
            f"{CONFIG}, as `deskhand train encoder` writes it"
        ) from error


def write(adapter: Adapter, folder: Path) -> int:
    """Write an adapter in peft's format, and return the size of its weights in bytes.

    Both files are written beside their places and renamed: a full disk leaves what stood.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{_PREFIX}{name}": values for name, values in adapter.weights.items()}
    config = {
        "base_model_name_or_path": adapter.base,
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": adapter.layers,
        "inference_mode": True,
    }
    data = save(weights, metadata={"format": "pt"})
    contents = {WEIGHTS: data, CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
    places = {name: folder / f".{name}.part" for name in contents}
    try:
        for name, place in places.items():
            place.write_bytes(contents[name])
        for name, place in places.items():
            place.replace(folder / name)
    finally:
        for place in places.values():
            place.unlink(missing_ok=True)
    return len(data)


def shipped() -> Adapter | None:
    """Return the adapter that ships with the project, if there is one."""
    return read(SHIPPED) if (SHIPPED / WEIGHTS).is_file() else None


def merge_into_module(module: nn.Module, adapter: Adapter) -> None:
    """Add an adapter to the weights of a transformer in memory, in place.

    Raises:
        ConfigurationError: The transformer lacks a layer of the adapter, or it has another shape.
    """
    import torch

    with torch.no_grad():
        for layer in adapter.layers:
            try:
                weight: Any = module.get_submodule(layer).weight
                weight += torch.from_numpy(adapter.delta(layer)).to(weight)
            except (AttributeError, RuntimeError) as error:
                raise _foreign(adapter, layer) from error


def merge_into_folder(folder: Path, adapter: Adapter) -> None:
    """Add an adapter to the weights of a sentence-transformers folder, and mark it as tuned.

    Raises:
        ConfigurationError: The model lacks a layer of the adapter, or it has another shape.
    """
    from safetensors.numpy import load_file, save_file

    place = folder / "model.safetensors"
    weights = load_file(place)
    for layer in adapter.layers:
        try:
            whole = weights[f"{layer}.weight"].astype(np.float32) + adapter.delta(layer)
        except (KeyError, ValueError) as error:
            raise _foreign(adapter, layer) from error
        weights[f"{layer}.weight"] = whole.astype(np.float16)
    save_file(weights, place, metadata={"format": "pt"})
    mark = {"base": adapter.base, "digest": adapter.digest}
    (folder / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


def marked(folder: Path) -> str:
    """Return the digest of the adapter that a model's folder holds, empty if it holds none.

    Raises:
        ConfigurationError: The mark is there and cannot be read.
    """
    try:
        return str(json.loads((folder / MARK).read_text(encoding="utf-8"))["digest"])
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{folder / MARK} cannot be read ({error}): remove the folder and run "
            "`deskhand models prepare`"
        ) from error


def _foreign(adapter: Adapter, layer: str) -> ConfigurationError:
    return ConfigurationError(
        f"the adapter was made for {adapter.base}: this encoder has no layer {layer} of its shape"
    )
