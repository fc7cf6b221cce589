"""`deskhand calibrate`: from a base's labels to thresholds that serve."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import alerts, calibration, model_store
from core.alerts import AlertKind
from core.calibration import Labels
from core.db.connect import Database
from core.db.models import ModelVersion
from core.errors import ConfigurationError, InvalidInput
from core.risk import Judged, Labelled, Thresholds, binomial_tail, interval
from core.settings import Settings
from core.types import ModelKind
from retrieval.fusion import shipped_calibrator
from training import risk
from training.risk import Calibration

FILE = "thresholds.json"
CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Outcome:
    """What a fit found, and what became of it.

    Attributes:
        version: As it was registered; None of a dry run, or where there was nothing to fit on.
        is_promoted: Whether it serves now.
        note: Why, or why not.
    """

    labels: Labels
    calibration: Calibration
    version: str | None
    is_promoted: bool
    note: str


async def calibrate(
    database: Database,
    settings: Settings,
    base: str = "default",
    *,
    dry_run: bool = False,
    author: str = "",
) -> Outcome:
    """Fit a base's thresholds on its labels; let them serve unless what serves is better.

    Args:
        database: Has the labels and the registry.
        settings: Where models are.
        base: The knowledge base.
        dry_run: Fit and tell, and change nothing.
        author: Who wishes it.

    Raises:
        NotFound: There is no such base.
    """
    labels = await calibration.load(database, base)
    tolerated = labels.base.tolerated_error
    fitted = await asyncio.to_thread(
        risk.fit,
        labels.usable,
        tolerated,
        shipped_calibrator().answer_from(tolerated),
        note=f"{len(labels.usable)} labels, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        encoder=labels.encoder,
    )
    if dry_run:
        return Outcome(labels, fitted, None, is_promoted=False, note="a dry run changes nothing")
    if not labels.usable:
        return Outcome(labels, fitted, None, is_promoted=False, note="there is nothing to fit on")
    version = await _registered(database, labels, fitted, author)
    serving = await model_store.serving(database, ModelKind.CALIBRATION, labels.base.id)
    old = await _thresholds(database, settings, serving) if serving else None
    refusal = refused(old, fitted.thresholds, labels.usable)
    if not refusal:
        why = _why(fitted, labels)
        against = serving.name if serving else None
        await model_store.promote(
            database, version.name, base=base, why=why, author=author, instead_of=against
        )
    await _tell_of_lost(database, labels, old, fitted.thresholds)
    note = refusal or "it serves now"
    return Outcome(labels, fitted, version.name, is_promoted=not refusal, note=note)


def refused(old: Thresholds | None, new: Thresholds, labels: Sequence[Labelled]) -> str:
    """Return why new thresholds must not replace those that serve; empty where they may.

    What ships is no certificate, so it gives way to one. What serves stays where the labels of
    today still certify it and it answers more, beyond noise.
    """
    is_certified = new.pooled.threshold is not None or any(
        each.threshold is not None for each in new.languages.values()
    )
    if old is None:
        return "" if is_certified else "nothing is certified yet: the shipped threshold serves on"
    if (old.tolerated, old.encoder) != (new.tolerated, new.encoder):
        return ""
    certain = [label for label in labels if label.certifies]
    were = [answers(old, label) for label in certain]
    failures = sum(was and not label.is_right for was, label in zip(were, certain, strict=True))
    if not certain or binomial_tail(failures, sum(were), old.tolerated) > old.delta:
        return ""
    from training.registering import compare  # brings the models in, which hardly any fit needs

    verdict = compare([float(was) for was in were], [float(answers(new, each)) for each in certain])
    if not verdict.is_worse:
        return ""
    return (
        f"what serves is still certified and answers more: {verdict.old:.1%} of the labels, "
        f"after it {verdict.new:.1%} (difference {verdict.low:+.1%} to {verdict.high:+.1%})"
    )


def answers(thresholds: Thresholds, label: Labelled) -> bool:
    """Return whether a question would be answered."""
    confidence = thresholds.confidence(label.signals, label.language, label.entry)
    return confidence >= thresholds.answer_from(label.language)


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return what a fit found as plain values."""
    thresholds = outcome.calibration.thresholds
    pool = [judged for some in outcome.calibration.judged.values() for judged in some]
    certificates = {"all": thresholds.pooled, **thresholds.languages}
    return {
        "base": outcome.labels.base.name,
        "tolerated": thresholds.tolerated,
        "confidence": 1 - thresholds.delta,
        "labels": len(pool),
        "weak_labels": len(outcome.labels.usable) - len(pool),
        "unusable_labels": outcome.labels.unusable,
        "calibrator": outcome.calibration.chosen,
        "log_loss": dict(outcome.calibration.log_loss),
        "prior": thresholds.prior,
        "languages": {
            name: {
                "labels": each.labels,
                "certified": each.threshold is not None,
                "threshold": each.threshold,
                "answer_from": each.threshold if name == "all" else thresholds.answer_from(name),
                "basis": "pooled" if name == "all" else thresholds.basis(name),
                "answered": each.answered,
                "failures": each.failures,
                "upper": each.upper,
                "more_labels": each.missing,
            }
            for name, each in certificates.items()
        },
        "curve": curve(pool, thresholds.delta),
        "version": outcome.version,
        "promoted": outcome.is_promoted,
        "note": outcome.note,
    }


def curve(judged: Sequence[Judged], delta: float) -> list[dict[str, float]]:
    """Return coverage against error at tenths of coverage, with the interval of the error."""
    order = sorted(judged, key=lambda each: -each.confidence)
    points: list[dict[str, float]] = []
    for share in CURVE if order else ():
        threshold = order[max(round(share * len(order)), 1) - 1].confidence
        answered = [each for each in order if each.confidence >= threshold]
        wrong = sum(not each.is_right for each in answered)
        low, high = interval(wrong, len(answered), delta)
        points.append(
            {
                "threshold": threshold,
                "coverage": len(answered) / len(order),
                "error": wrong / len(answered),
                "low": low,
                "high": high,
            }
        )
    return points


async def _registered(
    database: Database, labels: Labels, fitted: Calibration, author: str
) -> ModelVersion:
    thresholds = fitted.thresholds
    made: Mapping[str, Any] = {"calibrator": fitted.chosen, "labels": len(labels.usable)}
    if thresholds.encoder:
        made = {**made, "encoder": thresholds.encoder}
    with tempfile.TemporaryDirectory(prefix="deskhand-thresholds-") as name:
        folder = Path(name)
        text = json.dumps(thresholds.to_json(), indent=1)
        await asyncio.to_thread((folder / FILE).write_text, text, encoding="utf-8")
        return await model_store.register(
            database,
            folder,
            ModelKind.CALIBRATION,
            base=labels.base.name,
            data_sha256=labels.sha256,
            settings={**made, "tolerated": thresholds.tolerated},
            metrics={
                "coverage": thresholds.pooled.coverage,
                "upper": thresholds.pooled.upper,
                "certified": [n for n, c in thresholds.languages.items() if c.threshold],
            },
            author=author,
        )


async def _thresholds(
    database: Database, settings: Settings, version: ModelVersion
) -> Thresholds | None:
    """Return what serves; None where it cannot be read, so that it is replaced."""
    try:
        folder = await model_store.Store(database, settings.models_dir).folder(version)
        text = await asyncio.to_thread((folder / FILE).read_text, encoding="utf-8")
        return Thresholds.from_json(json.loads(text))
    except (OSError, ValueError, InvalidInput, ConfigurationError):
        return None


def _why(fitted: Calibration, labels: Labels) -> str:
    pooled = fitted.thresholds.pooled
    return (
        f"fitted on {len(labels.usable)} labels: {pooled.coverage:.1%} of them answered, "
        f"at most {pooled.upper:.1%} of the answers wrong"
        if pooled.threshold is not None
        else f"fitted on {len(labels.usable)} labels"
    )


async def _tell_of_lost(
    database: Database, labels: Labels, old: Thresholds | None, new: Thresholds
) -> None:
    """Raise an alert about languages whose rate was certified and is so no more."""
    base = labels.base
    had = [] if old is None else [name for name in old.languages if old.is_certified(name)]
    lost = sorted(name for name in had if not new.is_certified(name))
    async with database.transaction() as conn:
        if lost:
            message = (
                f"At most {new.tolerated:.0%} wrong answers are no longer certified for "
                f"{', '.join(lost)} in {base.name}: see `deskhand calibrate --dry-run`."
            )
            kind = AlertKind.NOT_CERTIFIED
            await alerts.raised(conn, base.id, base.name, kind, message, {"languages": lost})
        elif any(new.is_certified(name) for name in new.languages):
            await alerts.cleared(conn, base.id, base.name, AlertKind.NOT_CERTIFIED)
