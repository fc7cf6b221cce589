"""What a method of fine-tuning is: how it changes a model, and how that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from answering.generators.adapted import WEIGHTS_FILE
from core.errors import InvalidInput


@dataclass(frozen=True)
class Shape:
    """How large an adapter is.

    Attributes:
        rank: Of LoRA's and AdaLoRA's factors; the virtual tokens of a prefix; a fourth of a
            bottleneck's width.
        dropout: Of what goes into the adapter, where the method has such a place, in [0, 1).
        last_layers: How many layers the method of that name trains.
        steps: That training will take; AdaLoRA shares out its ranks by them.
        opening: Token ids that a prefix begins as.
    """

    rank: int = 8
    dropout: float = 0.0
    last_layers: int = 2
    steps: int = 1
    opening: tuple[int, ...] = ()


class Method:
    """One way to fine-tune; each file of a method has one, `methods.py` has the table."""

    name: ClassVar[str]
    served_anywhere: ClassVar[bool] = False
    """It can be merged into a GGUF, or be an adapter of a server; else transformers serves it."""

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model of which only what is to be trained is trainable, in fp32."""
        raise NotImplementedError

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on training what a folder holds.

        Raises:
            InvalidInput: The folder holds none of this method for this model.
        """
        raise NotImplementedError

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write what was trained in bf16, and return its size in bytes.

        Args:
            model: As `add` or `resume` returned it.
            folder: Is made.
            base_name: The model's public name, since a path on this machine would help nobody.
        """
        raise NotImplementedError

    def adjust(self, model: Any, step: int) -> None:
        """Change what is trained, after a step (from 1 on) and before its gradients go."""

    def penalty(self, model: Any) -> torch.Tensor | None:
        """Return what the method adds to the loss, a scalar."""
        return None

    def memory(self, model: Any) -> dict[str, Any]:
        """Return what goes on in a method besides weights, for a checkpoint."""
        return {}

    def restore(self, model: Any, extra: dict[str, Any]) -> None:
        """Take up what `memory` returned."""


def trainable(model: Any) -> Any:
    """Return a model whose trainable weights are fp32, since small updates vanish in bf16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def resume_peft(model: Any, folder: Path) -> Any:
    """Return a model that goes on training an adapter in peft's format.

    Raises:
        InvalidInput: The folder holds no adapter for this model.
    """
    from peft import PeftModel

    try:
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(
            f"{folder} holds no adapter for this model: {error}", field="adapter"
        ) from error
    return trainable(tuned)


def save_peft(model: Any, folder: Path, base_name: str) -> int:
    """Write an adapter in peft's format, its weights in bf16, and return its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template; ours is MODEL_CARD.md
    return save_weights(load_file(folder / WEIGHTS_FILE), folder)


def save_weights(weights: dict[str, torch.Tensor], folder: Path) -> int:
    """Write weights in bf16 beside an adapter's configuration, and return their size in bytes."""
    halved = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in weights.items()
    }
    save_file(halved, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes files for their owner alone
    return (folder / WEIGHTS_FILE).stat().st_size


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of an adapter.

    Raises:
        InvalidInput: There are none.
    """
    from safetensors import SafetensorError

    try:
        return load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"{folder} holds no adapter: {error}", field="adapter") from error
