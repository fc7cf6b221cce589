"""Learned factors on the keys, the values and inside the feed-forward blocks.

Source: Liu et al., Few-shot parameter-efficient fine-tuning (T-Few), NeurIPS 2022, section 3.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.replies.protocol import Method, Shape, resume_peft, save_peft, trainable


class Ia3(Method):
    """IA3: the smallest of all, some 60 kB for the 135M model; wants a large learning rate."""

    name = "ia3"

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model whose only trainable weights are factors that begin at one."""
        from peft import IA3Config, get_peft_model

        config = IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            task_type="CAUSAL_LM",
        )
        return trainable(get_peft_model(model, config))

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training the factors; see `Method`."""
        return resume_peft(model, folder)

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write the factors in bf16, and return their size in bytes."""
        return save_peft(model, folder, base_name)


METHOD = Ia3()
