"""Learned keys and values that stand before each prompt, in every layer.

Source: Li and Liang, Prefix-tuning, ACL 2021, equation 3. It begins as the keys and values of real
words, which section 7.4 there found far better than chance; without the paper's reparametrisation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.errors import InvalidInput
from training.replies.protocol import Method, Shape, read_weights, save_peft, trainable


class Prefix(Method):
    """Prefix tuning; it costs its tokens in every prompt, and nothing can merge it away."""

    name = "prefix"

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model whose only trainable weights are `rank` virtual tokens a layer."""
        from peft import PrefixTuningConfig, get_peft_model

        config = PrefixTuningConfig(num_virtual_tokens=shape.rank, task_type="CAUSAL_LM")
        began = _keys_and_values(model, shape)
        tuned: Any = get_peft_model(model, config)
        embedding = tuned.prompt_encoder["default"].embedding
        if embedding.weight.shape != began.shape:
            raise InvalidInput(
                "prefix tuning does not fit this model: its layers keep keys and values of "
                "different shapes; use --method lora",
                field="method",
            )
        embedding.weight.data.copy_(began)
        return trainable(tuned)

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training a prefix; see `Method`."""
        saved = read_weights(folder).get("prompt_embeddings")
        if saved is None:
            raise InvalidInput(f"{folder} holds no prefix", field="adapter")
        tuned = self.add(model, Shape(rank=len(saved)))
        embedding = tuned.prompt_encoder["default"].embedding
        if embedding.weight.shape != saved.shape:
            raise InvalidInput(f"{folder} holds a prefix of another model", field="adapter")
        embedding.weight.data.copy_(saved)
        return tuned

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write the prefix in bf16, and return its size in bytes."""
        return save_peft(model, folder, base_name)


def _keys_and_values(model: Any, shape: Shape) -> torch.Tensor:
    """Return what real tokens leave in the cache: (tokens, layers x 2 x heads x head size)."""
    opening = list(shape.opening) or [0]
    ids = (opening * shape.rank)[: shape.rank]
    device = next(model.parameters()).device
    with torch.no_grad():
        cache = model.model(input_ids=torch.tensor([ids], device=device), use_cache=True)
    pairs = [(layer.keys, layer.values) for layer in cache.past_key_values.layers]
    stacked = torch.stack([part[0].transpose(0, 1) for pair in pairs for part in pair], dim=1)
    return stacked.reshape(shape.rank, -1).float()


METHOD = Prefix()
