"""A small network behind each layer's feed-forward block.

Source: Houlsby et al., Parameter-efficient transfer learning for NLP, ICML 2019; one a layer after
Pfeiffer et al., AdapterFusion, EACL 2021.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from answering.generators import adapted
from answering.generators.adapted import CONFIG_FILE
from core.errors import InvalidInput
from training.replies.protocol import (
    Method,
    Shape,
    read_weights,
    save_weights,
    trainable,
)

WIDTH = 4
"""Units a rank: at rank 8 about as many weights as half a LoRA on all layers."""


class BottleneckMethod(Method):
    """Bottleneck adapters; they stand beside the weights, so that nothing can merge them away."""

    name = "bottleneck"

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model whose only trainable weights are fresh bottlenecks."""
        frozen(model)
        return trainable(adapted.add_bottlenecks(model, WIDTH * shape.rank, shape.dropout))

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training bottlenecks; see `Method`."""
        frozen(model)
        try:
            return trainable(adapted.with_bottlenecks(model, read_weights(folder)))
        except (KeyError, RuntimeError) as error:
            raise InvalidInput(
                f"{folder} holds no bottlenecks for this model: {error}", field="adapter"
            ) from error

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write the bottlenecks in bf16, and return their size in bytes."""
        write_config(folder, adapted.BOTTLENECK, base_name)
        return save_weights(adapted.bottleneck_state(model), folder)


def frozen(model: Any) -> None:
    """Leave a model's own weights as they are."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def write_config(folder: Path, kind: str, base_name: str) -> None:
    """Write the configuration of an adapter that peft does not know; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": kind, "base_model_name_or_path": base_name, "task_type": "CAUSAL_LM"}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


METHOD = BottleneckMethod()
