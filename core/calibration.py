"""Keeping a base's error rate as labels come: what thresholds are fitted on, and when."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core import risk
from core.db import calibration as rows
from core.db import inboxes
from core.db.calibration import LabelRow
from core.db.connect import Database
from core.risk import Labelled
from core.types import KnowledgeBase

MANY_LABELS = 25
"""So many new labels are worth a new fit at once."""
EVERY_SECONDS = 86_400.0
CERTIFYING = frozenset({"staff", "file"})
"""Thumbs and what agents wrote make labels that are wrong more often than the tolerated rate."""


@dataclass(frozen=True)
class Labels:
    """What a base's thresholds are fitted on.

    Attributes:
        usable: Labels that say whether the bot's best entry was right.
        encoder: Whose confidences they hold; empty where no trace tells.
        unusable: How many others there are: without the bot's choice, or of another encoder.
        sha256: Of the usable ones.
    """

    base: KnowledgeBase
    usable: Sequence[Labelled]
    encoder: str
    unusable: int
    sha256: str


async def load(database: Database, base: str = "default") -> Labels:
    """Return what a base's thresholds are fitted on.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        stored = await rows.labels(conn, found.id)
    encoder = _encoder(stored)
    usable = [
        label
        for row in stored
        if _encoder_of(row) in ("", encoder) and (label := labelled(row)) is not None
    ]
    return Labels(found, usable, encoder, len(stored) - len(usable), _hash(usable))


async def due(database: Database) -> list[str]:
    """Return the names of bases whose thresholds should be fitted anew."""
    async with database.transaction() as conn:
        return await rows.due(conn, many=MANY_LABELS, every_seconds=EVERY_SECONDS)


def labelled(row: LabelRow) -> Labelled | None:
    """Return a label as thresholds see it; None where it does not tell whether the bot was right.

    The bot's best entry counts, also where the bot was not sure enough to answer with it: only so
    can labels show that a lower threshold would do.
    """
    chosen, signals = row.chosen_entry_id, None
    if row.trace is not None and row.trace.get("passages"):
        signals = risk.stored_signals(row.trace)
        chosen = str(row.trace["passages"][0]["entry_id"])
    elif row.confidence is not None:
        signals = {"confidence": row.confidence}
    if signals is None or chosen is None:
        return None
    is_right = _is_right(row, chosen)
    if is_right is None:
        return None
    return Labelled(
        signals,
        is_right,
        risk.language_of(row.locale),
        " ".join(row.text.lower().split()),
        row.weight,
        certifies=row.source in CERTIFYING and row.weight >= 1.0,
        entry=chosen,
    )


def _is_right(row: LabelRow, chosen: str) -> bool | None:
    if row.entry_id is not None:
        return row.entry_id == chosen
    if row.is_correct is not None:
        same = row.chosen_entry_id in (None, chosen)
        return row.is_correct if same else None
    return False if row.intent is None else None  # no entry answers; of an intent nothing follows


def _encoder(stored: Sequence[LabelRow]) -> str:
    """Return the encoder of most traces: confidences of different ones cannot be mixed."""
    counts = Counter(name for row in stored if (name := _encoder_of(row)))
    return counts.most_common(1)[0][0] if counts else ""


def _encoder_of(row: LabelRow) -> str:
    models = (row.trace or {}).get("models", {})
    return str(models.get("encoder", ""))


def _hash(usable: Sequence[Labelled]) -> str:
    lines = sorted(
        json.dumps([dict(sorted(each.signals.items())), each.is_right, each.language, each.weight])
        for each in usable
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
