"""From a process's settings to a pipeline that answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from answering import verifier
from answering.engine import Engine
from answering.generators.loading import load_generator
from answering.generators.protocol import Generator
from answering.pairing import NoEncoder, Pair, encoding_part, replying_part
from answering.pipeline import VERIFIER, Pipeline
from answering.promoted import read_encoder
from core.errors import ConfigurationError
from core.settings import Settings
from retrieval.encoders import Encoder, cross, load_encoder
from retrieval.encoders.protocol import PairScorer

log = logging.getLogger(__name__)

SPEAKS_ENGLISH = frozenset({"en"})
SPEAKS_MANY = frozenset(
    {"en", "zh", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ja", "ko", "tr", "ar"}
)
"""What models of other makes are trusted with; the check still holds each reply's language."""


@dataclass(frozen=True)
class Promoted:
    """The folders of promoted models that take the place of those in the settings.

    Attributes:
        encoder: See `answering.promoted.read_encoder`.
        adapter: Of the reply model.
    """

    encoder: Path | None = None
    adapter: Path | None = None


def load_pipeline(
    settings: Settings, on_stall: Callable[[], None], promoted: Promoted | None = None
) -> Pipeline:
    """Load the models that the settings name and return a pipeline on a running engine.

    Args:
        settings: Of the process.
        on_stall: Called when a model does not come back: the process should end.
        promoted: What the registry has instead.

    Raises:
        ConfigurationError: A model is missing or cannot be loaded.
    """
    _prepare_torch(settings)
    instead = promoted or Promoted()
    with ThreadPoolExecutor(1) as beside:  # each of the two takes seconds to load
        # Also under the style `verbatim`, since a base or an entry may ask for another.
        loading = beside.submit(_generator, settings, instead.adapter)
        encoder = _encoder(settings, instead.encoder)
        generator = loading.result()
    engine = Engine(encoder, generator, scorers=_scorers(encoder), on_stall=on_stall)
    return _pipeline(settings, engine.start())


def pipeline_with_encoder(
    settings: Settings, pipeline: Pipeline, folder: Path | None, on_stall: Callable[[], None]
) -> Pipeline:
    """Return an empty pipeline on another encoder and on the reply model of one that runs.

    Args:
        settings: Of the process.
        pipeline: The one that runs; it goes on.
        folder: Of the encoder; None for the one in the settings.
        on_stall: See `load_pipeline`.

    Raises:
        ConfigurationError: The encoder cannot be loaded.
    """
    encoder = _encoder(settings, folder)
    encoding = Engine(encoder, scorers=_scorers(encoder), on_stall=on_stall).start()
    return _pipeline(settings, Pair(encoding, replying_part(pipeline.engine)))


def pipeline_with_adapter(
    settings: Settings, pipeline: Pipeline, folder: Path | None, on_stall: Callable[[], None]
) -> Pipeline:
    """Return a pipeline that shares all but the reply model with one that runs.

    Args:
        settings: Of the process.
        pipeline: The one that runs; it goes on. Its indexes are shared, not copied.
        folder: Of the adapter; None for the one in the settings.
        on_stall: See `load_pipeline`.

    Raises:
        ConfigurationError: The model or the adapter cannot be loaded.
    """
    generator = _generator(settings, folder)
    replying = Engine(NoEncoder(), generator, on_stall=on_stall).start()
    twin = copy(pipeline)
    twin.engine = Pair(encoding_part(pipeline.engine), replying)
    return twin


def _pipeline(settings: Settings, engine: Engine | Pair) -> Pipeline:
    return Pipeline(
        engine,
        style=settings.reply_style,
        speaks=SPEAKS_MANY if _is_chosen(settings) else SPEAKS_ENGLISH,
        heads=settings.models_dir / "heads",
        rewrites=settings.rewrite == "model",
    )


def _scorers(encoder: Encoder) -> dict[str, PairScorer]:
    """Return the verifier that ships, where it was trained on this encoder."""
    folder = verifier.SHIPPED
    if not (folder / cross.CONFIG).is_file():
        return {}
    try:
        return {VERIFIER: cross.CrossEncoder.load(encoder, folder)}
    except ConfigurationError as error:
        log.warning(
            "Replies are checked by rules alone",
            extra={"action": "verifier_refused", "reason": str(error)},
        )
        return {}


def _prepare_torch(settings: Settings) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(_threads(settings))
    transformers_logging.disable_progress_bar()


def _threads(settings: Settings) -> int:
    return settings.threads or len(os.sched_getaffinity(0))


def _encoder(settings: Settings, promoted: Path | None) -> Encoder:
    if promoted is not None:
        return read_encoder(promoted, settings)
    return load_encoder(settings.encoder, settings.models_dir, settings.device)


def _generator(settings: Settings, promoted: Path | None) -> Generator:
    return load_generator(
        settings.reply_model,
        settings.models_dir,
        device=settings.device,
        adapter=promoted or settings.adapter,
        url=settings.reply_model_url,
        key=settings.reply_model_key.get_secret_value() if settings.reply_model_key else None,
        threads=_threads(settings),
    )


def _is_chosen(settings: Settings) -> bool:
    """Tell whether an operator chose another reply model than the small one that ships."""
    return settings.reply_model != Settings.model_fields["reply_model"].default
