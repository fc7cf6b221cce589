"""Low-rank adapters on all linear layers of the reply model.

Source: Hu et al., LoRA, ICLR 2022, equation 3: W x + (alpha / r) B A x, with B starting at zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from core.errors import InvalidInput

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
LIMIT_BYTES = 8 * 1024 * 1024
"""What an adapter that ships with the project may weigh."""
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add(model: PreTrainedModel, rank: int, base_name: str) -> PeftModel:
    """Return a model whose only trainable weights are a fresh adapter.

    Args:
        model: Its weights are frozen in place.
        rank: Of the two factors; 8 on all layers of the 135M model is 4.9 MB in bf16.
        base_name: Is written into the adapter's configuration, instead of a local path.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,  # on a CPU drawing the masks costs as much as the layers
        target_modules=list(LAYERS),
        task_type="CAUSAL_LM",
    )
    return _trainable(get_peft_model(model, config), base_name)


def resume(model: PreTrainedModel, folder: Path, base_name: str) -> PeftModel:
    """Return a model that goes on training an adapter.

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
    return _trainable(tuned, base_name)


def save(model: PeftModel, folder: Path) -> int:
    """Write the adapter in bf16, and return its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template; ours is MODEL_CARD.md
    weights = load_file(folder / ADAPTER_FILE)
    halved = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(halved, folder / ADAPTER_FILE, metadata={"format": "pt"})
    (folder / ADAPTER_FILE).chmod(0o644)  # safetensors makes files for their owner alone
    return (folder / ADAPTER_FILE).stat().st_size


def _trainable(model: PeftModel, base_name: str) -> PeftModel:
    """Keep the adapter in fp32, since small updates vanish in bf16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # a path on the machine that trained would help nobody
    model.peft_config["default"].base_model_name_or_path = base_name
    return model
