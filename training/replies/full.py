"""All weights of the model: the most that can be learned, and as large as the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from answering.generators import adapted
from core.errors import InvalidInput
from training.replies.bottleneck import frozen, write_config
from training.replies.protocol import Method, Shape, read_weights, save_weights, trainable


class Full(Method):
    """Full fine-tuning: 270 MB for the 135M model; wants a small learning rate, such as 2e-5."""

    name = "full"

    def add(self, model: Any, shape: Shape) -> Any:
        """Return the model with all of its weights trainable."""
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return trainable(model)

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training the weights that a folder has."""
        weights = read_weights(folder)
        frozen(model)
        try:
            adapted.with_weights(model, weights)
        except ValueError as error:
            raise InvalidInput(
                f"{folder} holds no weights of this model: {error}", field="adapter"
            ) from error
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in weights)
        return trainable(model)

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write the weights that were trained in bf16, and return their size in bytes."""
        write_config(folder, adapted.WEIGHTS, base_name)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return save_weights(trained, folder)


METHOD = Full()
