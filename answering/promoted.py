"""What was promoted in the registry, read from its folder, and how it joins what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from answering.intents import GENERAL, OUT_OF_SCOPE, IntentClassifier, load_head
from core.errors import ConfigurationError, InvalidInput
from core.model_store import ModelVersion
from core.risk import Thresholds, signals_of
from core.settings import Settings
from core.types import Intent, KnowledgeBaseId, Passage
from retrieval.encoders import Encoder, adapter, load_encoder
from retrieval.encoders.loading import resolve
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

Vector = NDArray[np.float32]
T = TypeVar("T")

THRESHOLDS = "thresholds.json"


def suits(version: ModelVersion, encoder: str) -> bool:
    """Return whether a version was made on this encoder's vectors, or on none in particular."""
    return version.settings.get("encoder") in (None, encoder)


def read_head(folder: Path) -> IntentClassifier:
    """Return the intent head of a version.

    Raises:
        ConfigurationError: There is none, or it cannot be read.
    """
    try:
        return load_head(folder)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ConfigurationError(f"{folder} holds no intent head: {error}") from error


def read_thresholds(folder: Path) -> Thresholds:
    """Return the thresholds of a version.

    Raises:
        ConfigurationError: There are none, or they cannot be read.
    """
    try:
        return Thresholds.from_json(json.loads((folder / THRESHOLDS).read_text(encoding="utf-8")))
    except (OSError, ValueError, InvalidInput) as error:
        raise ConfigurationError(f"{folder} holds no thresholds: {error}") from error


def read_encoder(folder: Path, settings: Settings) -> Encoder:
    """Return the encoder of a version: a whole model, or the one in the settings with an adapter.

    Raises:
        ConfigurationError: There is none, or it cannot be loaded.
    """
    if (folder / adapter.CONFIG).is_file():
        return _tuned(folder, settings)
    if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} holds neither an encoder nor an adapter of one")
    return load_encoder(str(folder), settings.models_dir, settings.device)


def _tuned(folder: Path, settings: Settings) -> Encoder:
    """Return the encoder in the settings with an adapter on top, as training put it there.

    What ships may hold an adapter itself: then this one was trained on that.
    """
    wanted = adapter.read(folder)
    encoder = load_encoder(settings.encoder, settings.models_dir, settings.device)
    place = Path(resolve(settings.encoder, settings.models_dir))
    if adapter.marked(place) == wanted.digest:
        return encoder
    if not isinstance(encoder, SentenceTransformerEncoder):
        raise ConfigurationError(f"{settings.encoder} is an encoder that takes no adapter")
    if wanted.base != encoder.name:
        raise ConfigurationError(
            f"the adapter was trained on {wanted.base}, and {encoder.name} is in the settings: "
            "train it anew"
        )
    model: Any = encoder.model
    adapter.merge_into_module(model[0].auto_model, wanted)
    encoder.name = adapter.tuned_name(encoder.name, wanted)
    return encoder


def joined(general: Sequence[Intent], head: Sequence[Intent]) -> list[Intent]:
    """Return intents of a base's own head, where it knows no greetings and wishes for a person.

    What the general classifier says about those stands; the rest of its mass is shared out by the
    head, which knows the business better. A head that was trained on general intents too has the
    last word.

    Args:
        general: Of the classifier that is fitted from examples; sums to 1.
        head: Of the promoted head; sums to 1.
    """
    if {intent.name for intent in head} >= GENERAL or not general:
        return list(head)
    known = {intent.name for intent in head} - {OUT_OF_SCOPE}
    kept = [i for i in general if i.name in GENERAL and i.name not in known]
    rest = max(1.0 - sum(intent.probability for intent in kept), 0.0)
    both = kept + [Intent(i.name, i.probability * rest) for i in head]
    return sorted(both, key=lambda intent: -intent.probability)


def calibrated(
    thresholds: Thresholds,
    passages: Sequence[Passage],
    intents: Sequence[Intent],
    further: Mapping[str, float],
    language: str,
) -> list[Passage]:
    """Return passages whose chances are on the scale of the thresholds; their order stays.

    The calibrator judges the best one; the others keep their proportion to it.

    Args:
        thresholds: Of the base.
        passages: Best first.
        intents: Likeliest first.
        further: What else the decision sees, by name.
        language: Of the question, ISO 639-1.
    """
    if not passages:
        return []
    best = passages[0]
    signals = signals_of(passages, intents, further)
    chance = thresholds.confidence(signals, language, best.entry.id)
    scale = chance / best.confidence if best.confidence > 0 else 0.0
    return [replace(p, confidence=min(p.confidence * scale, chance)) for p in passages]


@dataclass(frozen=True)
class BaseModels:
    """What was promoted for a base, as a turn found it when it began.

    Attributes:
        head: None where the base's classifier is the one fitted from examples.
        thresholds: None where the shipped ones hold.
        names: The versions by kind, for the trace.
        adapter: The base's own adapter of the reply model; empty for the one of all bases.
    """

    head: IntentClassifier | None = None
    thresholds: Thresholds | None = None
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    adapter: str = ""

    def intents(self, general: Sequence[Intent], vector: Vector, text: str) -> Sequence[Intent]:
        """Return the intents of a message, given what the general classifier says."""
        if self.head is None:
            return general
        return joined(general, self.head.predict(vector[None], [text] if text else None)[0])

    def calibrated(
        self,
        passages: Sequence[Passage],
        intents: Sequence[Intent],
        further: Mapping[str, float],
        language: str,
    ) -> Sequence[Passage]:
        """Return passages with the chances that the decision goes by."""
        if self.thresholds is None:
            return passages
        return calibrated(self.thresholds, passages, intents, further, language)

    def answer_from(self, shipped: float, tolerated: float, language: str) -> float:
        """Return from which chance on to answer.

        Args:
            shipped: What holds where nothing was promoted.
            tolerated: The rate that staff tolerate now; thresholds for a laxer one do not suffice.
            language: Of the question.
        """
        if self.thresholds is None:
            return shipped
        own = self.thresholds.answer_from(language)
        return own if self.thresholds.tolerated <= tolerated + 1e-9 else max(own, shipped)


class Promotions:
    """The promoted heads and thresholds of all bases; None stands for bases without their own."""

    def __init__(self) -> None:
        self._heads: dict[KnowledgeBaseId | None, tuple[str, IntentClassifier | None]] = {}
        self._thresholds: dict[KnowledgeBaseId | None, tuple[str, Thresholds | None]] = {}
        self._adapters: dict[KnowledgeBaseId, str] = {}

    def use_head(
        self, base_id: KnowledgeBaseId | None, head: IntentClassifier | None, name: str
    ) -> None:
        """Let a head tell intents; None takes it back."""
        self._heads[base_id] = (name, head)

    def use_thresholds(
        self, base_id: KnowledgeBaseId | None, thresholds: Thresholds | None, name: str
    ) -> None:
        """Let thresholds hold; None takes them back."""
        self._thresholds[base_id] = (name, thresholds)

    def use_adapter(self, base_id: KnowledgeBaseId, name: str) -> None:
        """Let a live adapter write a base's replies; an empty name takes it back."""
        self._adapters[base_id] = name

    def of(self, base_id: KnowledgeBaseId) -> BaseModels:
        """Return what holds for a base now."""
        head_name, head = _own_or_common(self._heads, base_id)
        name, thresholds = _own_or_common(self._thresholds, base_id)
        adapter = self._adapters.get(base_id, "")
        names = {"intents": head_name, "calibration": name, "reply_adapter": adapter}
        return BaseModels(head, thresholds, {kind: n for kind, n in names.items() if n}, adapter)


def _own_or_common(
    known: Mapping[KnowledgeBaseId | None, tuple[str, T | None]], base_id: KnowledgeBaseId
) -> tuple[str, T | None]:
    for key in (base_id, None):
        name, value = known.get(key, ("", None))
        if value is not None:
            return name, value
    return "", None
