"""The table of encoders, and how their names resolve."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from core.errors import ConfigurationError
from retrieval.encoders import adapter, e5
from retrieval.encoders.protocol import Encoder
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

LONGEST_TOKENS = 256
"""Longer texts are cut: attention grows with the square, and an entry says its matter first."""

_KINDS: tuple[tuple[re.Pattern[str], type[SentenceTransformerEncoder]], ...] = (
    (re.compile(r"(?:^|[-_/])e5[-_]", re.IGNORECASE), e5.E5Encoder),
)
"""Models with habits of their own, by name; any other is a plain sentence-transformers model."""


def load_encoder(name_or_path: str, models_dir: Path, device: str = "auto") -> Encoder:
    """Return an encoder, from a path, the model store, or the hub, in this order.

    Args:
        name_or_path: Such as `multilingual-e5-small`, or a sentence-transformers folder.
        models_dir: The model store; `answering.preparing.prepare` fills it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigurationError: No such model is found, or it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a worker's log is no terminal
    place = resolve(name_or_path, models_dir)
    try:
        model: Any = SentenceTransformer(
            place, device=_device(device), model_kwargs={"dtype": "float32"}
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ConfigurationError(
            f"the encoder {name_or_path} cannot be loaded from {place}: {error}; give a folder, or "
            "run `deskhand models prepare` for the default one"
        ) from error
    model.eval()
    model.max_seq_length = min(model.max_seq_length or LONGEST_TOKENS, LONGEST_TOKENS)
    name = Path(name_or_path).name
    kinds = (kind for pattern, kind in _KINDS if pattern.search(name))
    kind = next(kinds, SentenceTransformerEncoder)
    # Vectors are stored under this name: those of a tuned model must not meet those of its base.
    digest = adapter.marked(Path(place))
    return kind(model, f"{name}+{digest[:8]}" if digest else name)


def resolve(name_or_path: str, models_dir: Path) -> str:
    """Return a folder for a name, or the name itself, which the hub may know."""
    for folder in (Path(name_or_path).expanduser(), models_dir / name_or_path):
        if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
            return str(folder)
    return name_or_path


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"
