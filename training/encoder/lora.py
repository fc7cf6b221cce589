"""A low-rank adapter on the transformer of an encoder while it is trained.

Only the linear layers are tuned. The word embeddings stay: their gradient is as large as the
vocabulary (250,000 rows) and would be most of a step's work; and frozen, words of languages that
training never sees keep their place.

Source: Hu et al., LoRA, ICLR 2022.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.errors import InvalidInput
from retrieval.encoders.adapter import Adapter, merge_into_module, tuned_name
from retrieval.encoders.protocol import Encoder
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

if TYPE_CHECKING:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

LIMIT_BYTES = 4 * 1024 * 1024
"""What an adapter that ships may weigh."""


def trainable(encoder: Encoder) -> SentenceTransformerEncoder:
    """Return an encoder as one that can be tuned.

    Raises:
        InvalidInput: It is none of sentence-transformers.
    """
    if not isinstance(encoder, SentenceTransformerEncoder):
        raise InvalidInput(
            f"the encoder {encoder.name} cannot be tuned: give a sentence-transformers model",
            field="encoder",
        )
    return encoder


def twin(model: SentenceTransformer) -> SentenceTransformer:
    """Return a copy that may be changed; the word embeddings are shared, since none changes them.

    They are four fifths of the weights.
    """
    embeddings: Any = _transformer(model).get_input_embeddings()
    return copy.deepcopy(model, {id(embeddings.weight): embeddings.weight})


def add(model: SentenceTransformer, rank: int, layers: int = 0) -> PeftModel:
    """Put a fresh adapter into a model; its weights alone are trainable.

    Args:
        model: Is changed in place.
        rank: Of the two factors; 16 on all layers of the small e5 is 2.7 MB in half precision.
        layers: Only so many of the last layers; 0 takes all.
    """
    return add_to(_transformer(model), rank, layers)


def add_to(transformer: Any, rank: int, layers: int = 0) -> PeftModel:
    """Put a fresh adapter into a transformer alone, as `add` does."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,  # on a CPU drawing the masks costs as much as the layers
        target_modules=_linear(transformer, layers),
        task_type="FEATURE_EXTRACTION",
    )
    return get_peft_model(transformer, config)


def taken(tuned: PeftModel, base: str) -> Adapter:
    """Return the adapter as it stands, in half precision."""
    from peft import get_peft_model_state_dict

    config: Any = tuned.peft_config["default"]
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(tuned)
    weights = {
        name.removeprefix("base_model.model."): tensor.detach().cpu().to(torch.float16).numpy()
        for name, tensor in state.items()
    }
    if not all(np.isfinite(values).all() for values in weights.values()):
        raise InvalidInput("the training went astray: give a smaller --lr", field="lr")
    return Adapter(weights, int(config.r), int(config.lora_alpha), base)


def apply(encoder: Encoder, adapter: Adapter) -> Encoder:
    """Return a new encoder with an adapter merged; the given one stays as it is.

    Raises:
        InvalidInput: It is none of sentence-transformers.
        ConfigurationError: The adapter belongs to another model.
    """
    source = trainable(encoder)
    model = twin(source.model)
    merge_into_module(_transformer(model), adapter)
    return type(source)(model, tuned_name(source.name, adapter))


def _transformer(model: SentenceTransformer) -> Any:
    first: Any = model[0]
    return first.auto_model


def _linear(transformer: Any, layers: int) -> list[str]:
    """Return the names of the linear layers of the last so many blocks, poolers left out."""
    blocks: Any = transformer.encoder.layer
    wanted = range(len(blocks) - layers if layers else 0, len(blocks))
    starts = tuple(f"encoder.layer.{number}." for number in wanted)
    return [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(starts)
    ]
