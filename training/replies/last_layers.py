"""The weights of the last layers alone: cheap steps, since nothing goes back through the others."""

from __future__ import annotations

from typing import Any

from training.replies.bottleneck import frozen
from training.replies.full import Full
from training.replies.protocol import Shape, trainable


class LastLayers(Full):
    """The last layers and the norm behind them; kept as changed weights, like `full`."""

    name = "last_layers"

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model of which only the last layers are trainable."""
        frozen(model)
        layers = model.model.layers
        for module in (*layers[len(layers) - min(shape.last_layers, len(layers)) :],
                       model.model.norm):  # fmt: skip
            for parameter in module.parameters():
                parameter.requires_grad_(True)
        return trainable(model)


METHOD = LastLayers()
