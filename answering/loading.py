"""From a process's settings to a pipeline that answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from answering.engine import Engine
from answering.generators.loading import load_generator
from answering.generators.protocol import Generator
from answering.pipeline import Pipeline
from core.settings import Settings
from retrieval.encoders import load_encoder

SPEAKS_ENGLISH = frozenset({"en"})
SPEAKS_MANY = frozenset(
    {"en", "zh", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ja", "ko", "tr", "ar"}
)
"""What models of other makes are trusted with; the check still holds each reply's language."""


def load_pipeline(settings: Settings, on_stall: Callable[[], None]) -> Pipeline:
    """Load the models that the settings name and return a pipeline on a running engine.

    Args:
        settings: Of the process.
        on_stall: Called when a model does not come back: the process should end.

    Raises:
        ConfigurationError: A model is missing or cannot be loaded.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    threads = settings.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    with ThreadPoolExecutor(1) as beside:  # each of the two takes seconds to load
        # Also under the style `verbatim`, since a base or an entry may ask for another.
        loading = beside.submit(_generator, settings, threads)
        encoder = load_encoder(settings.encoder, settings.models_dir, settings.device)
        generator = loading.result()
    speaks = SPEAKS_MANY if _is_chosen(settings) else SPEAKS_ENGLISH
    engine = Engine(encoder, generator, on_stall=on_stall).start()
    return Pipeline(
        engine,
        style=settings.reply_style,
        speaks=speaks,
        heads=settings.models_dir / "heads",
    )


def _generator(settings: Settings, threads: int) -> Generator:
    return load_generator(
        settings.reply_model,
        settings.models_dir,
        device=settings.device,
        adapter=settings.adapter,
        url=settings.reply_model_url,
        key=settings.reply_model_key.get_secret_value() if settings.reply_model_key else None,
        threads=threads,
    )


def _is_chosen(settings: Settings) -> bool:
    """Tell whether an operator chose another reply model than the small one that ships."""
    return settings.reply_model != Settings.model_fields["reply_model"].default
