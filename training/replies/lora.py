"""Low-rank adapters on all linear layers of the reply model.

Source: Hu et al., LoRA, ICLR 2022, equation 3: W x + (alpha / r) B A x, with B starting at zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from answering.generators.adapted import CONFIG_FILE
from answering.generators.adapted import WEIGHTS_FILE as ADAPTER_FILE
from training.replies.protocol import Method, Shape, resume_peft, save_peft, trainable

LIMIT_BYTES = 8 * 1024 * 1024
"""What an adapter that ships with the project may weigh."""
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Lora(Method):
    """LoRA; rank 8 on all layers of the 135M model is 4.9 MB in bf16."""

    name = "lora"
    served_anywhere = True

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model whose only trainable weights are a fresh adapter."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=shape.rank,
            lora_alpha=2 * shape.rank,
            lora_dropout=shape.dropout,  # on a CPU drawing the masks costs as much as the layers
            target_modules=list(LAYERS),
            task_type="CAUSAL_LM",
        )
        return trainable(get_peft_model(model, config))

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training an adapter; see `Method`."""
        return resume_peft(model, folder)

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write the adapter in bf16, and return its size in bytes."""
        return save_peft(model, folder, base_name)


METHOD = Lora()
__all__ = ["ADAPTER_FILE", "CONFIG_FILE", "LAYERS", "LIMIT_BYTES", "METHOD", "Lora"]
