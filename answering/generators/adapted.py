"""What training adds to a reply model, put on it where it serves, whatever method made it.

All are folders with `adapter_config.json` and `adapter_model.safetensors`: those of peft, and two
kinds of ours, which peft has not: bottlenecks behind the layers, and changed weights themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

LORA = "LORA"
PREFIX = "PREFIX_TUNING"
BOTTLENECK = "DESKHAND_BOTTLENECK"
WEIGHTS = "DESKHAND_WEIGHTS"


def kind_of(folder: Path) -> str:
    """Return what an adapter is: `LORA`, `IA3`, `PREFIX_TUNING`, or one of ours.

    Raises:
        OSError: There is no configuration.
        ValueError: It cannot be read.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE} is no JSON object")
    return str(config.get("peft_type", LORA))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def served_anywhere(folder: Path) -> bool:
    """Return whether an adapter can be merged into a GGUF, or be given to a server by its name.

    Where it cannot, transformers alone serves it. A folder that cannot be read is left to whoever
    loads it: the message there says what is wrong.
    """
    try:
        return kind_of(folder) == LORA
    except (OSError, ValueError):
        return True


def put_on(model: Any, folder: Path) -> Any:
    """Return a model that answers with an adapter; merged where merging is possible.

    Args:
        model: The untuned one, of transformers; is changed.
        folder: The adapter.

    Raises:
        OSError: A file is missing.
        ValueError: The adapter was made for another model.
        KeyError: The same, of bottlenecks for other layers.
        RuntimeError: The same, of bottlenecks for another size.
    """
    kind = kind_of(folder)
    if kind == WEIGHTS:
        return with_weights(model, load_file(folder / WEIGHTS_FILE))
    if kind == BOTTLENECK:
        return with_bottlenecks(model, load_file(folder / WEIGHTS_FILE))
    from peft import PeftModel

    try:
        tuned: Any = PeftModel.from_pretrained(model, str(folder))
    except RuntimeError as error:  # names every weight, over many lines
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise ValueError(f"the adapter was made for another model: {first}") from error
    return tuned if kind == PREFIX else tuned.merge_and_unload()


def with_weights(model: Any, changed: dict[str, torch.Tensor]) -> Any:
    """Return a model with some of its weights exchanged.

    Raises:
        ValueError: The model has no such weights.
    """
    own = dict(model.named_parameters())
    for name, tensor in changed.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ValueError(f"the model has no weight {name} of the shape {tuple(tensor.shape)}")
        own[name].data = tensor.to(own[name].device, own[name].dtype)
    return model


class Bottleneck(nn.Module):
    """A layer's block with a small network behind it: `y + up(relu(down(y)))`.

    Source: Houlsby et al. 2019, section 2; one a layer, behind the feed-forward block, as Pfeiffer
    et al. 2021 found enough. `up` begins at zero, so that a fresh one changes nothing.
    """

    def __init__(self, inner: nn.Module, hidden: int, size: int, dropout: float = 0.0) -> None:
        """Wrap a block whose output is (…, hidden)."""
        super().__init__()
        self.inner = inner
        self.down = nn.Linear(hidden, size)
        self.up = nn.Linear(size, hidden)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, adapted; the shape stays."""
        y = self.inner(x)
        small = torch.relu(self.down(self.dropout(y.to(self.down.weight.dtype))))
        return y + self.up(small).to(y.dtype)


def add_bottlenecks(model: Any, size: int, dropout: float = 0.0) -> Any:
    """Return a model with a fresh bottleneck of a size behind each layer's feed-forward block."""
    for layer in model.model.layers:
        weight = next(layer.mlp.parameters())
        fresh = Bottleneck(layer.mlp, int(model.config.hidden_size), size, dropout)
        layer.mlp = fresh.to(weight.device)
    return model


def bottleneck_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the bottlenecks' weights by `<layer>.<down or up>.<weight or bias>`."""
    return {
        f"{number}.{name}": tensor
        for number, layer in enumerate(model.model.layers)
        for name, tensor in layer.mlp.state_dict().items()
        if name.startswith(("down.", "up."))
    }


def with_bottlenecks(model: Any, state: dict[str, torch.Tensor], dropout: float = 0.0) -> Any:
    """Return a model with bottlenecks as they were saved.

    Raises:
        KeyError: They were made for a model with other layers.
        RuntimeError: They were made for a model of another size.
    """
    add_bottlenecks(model, int(state["0.down.weight"].shape[0]), dropout)
    if len(state) != 4 * len(model.model.layers):
        raise KeyError(f"{len(state) // 4} bottlenecks for {len(model.model.layers)} layers")
    for number, layer in enumerate(model.model.layers):
        own = {
            name: state[f"{number}.{name}"]
            for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        layer.mlp.load_state_dict(own, strict=False)
        weight = next(layer.mlp.inner.parameters())
        for part in (layer.mlp.down, layer.mlp.up):
            part.to(weight.device, weight.dtype)
    return model
