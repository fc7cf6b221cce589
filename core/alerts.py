"""What staff should look at: raised and cleared as the watch over thresholds finds it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from core import drift
from core.db import alerts as rows
from core.db import calibration
from core.db.alerts import Alert
from core.db.calibration import Watched
from core.db.connect import Connection, Database
from core.errors import InvalidInput, NotFound
from core.risk import Spread, Thresholds
from core.types import KnowledgeBaseId

log = logging.getLogger(__name__)

DAY = 86_400.0
LATELY_SECONDS = 7 * DAY
BEFORE_SECONDS = 35 * DAY
"""The share of questions without an answer is compared with the four weeks before the last one."""
REPLIES = 20_000
"""More of a week's replies tell no more."""


class AlertKind(StrEnum):
    """What an alert is about."""

    SCORE_DRIFT = "score_drift"
    ABSTENTION = "abstention"
    NOT_CERTIFIED = "not_certified"


async def watch(database: Database) -> None:
    """Compare what customers ask with what thresholds were fitted on; raise and clear alerts."""
    async with database.transaction() as conn:
        watched = await calibration.watched(conn)
    for base in watched:
        try:
            thresholds = Thresholds.from_json(json.loads(base.thresholds))
        except (InvalidInput, ValueError):
            log.warning(
                "Thresholds cannot be read",
                extra={"action": "thresholds_broken", "model": base.version, "base": base.base},
            )
            continue
        async with database.transaction() as conn:
            await _watch_scores(conn, base, thresholds.spread)
            await _watch_abstention(conn, base.base_id, base.base)


async def _watch_scores(conn: Connection, base: Watched, spread: Spread) -> None:
    seen = await calibration.confidences(
        conn, base.base_id, window_seconds=LATELY_SECONDS, limit=REPLIES
    )
    found = drift.drift(spread, seen)
    if found is None:
        return
    if found.is_drifted:
        message = (
            f"What customers of {base.base} ask has changed: the confidences of the last 7 days "
            f"are spread otherwise than those of the labels (stability index {found.index:.2f}; "
            f"from {drift.DRIFTED} on it counts). The certified error rate holds for questions "
            "like the labelled ones: label some of the latest (`deskhand labels next`)."
        )
        detail = {"index": round(found.index, 4), "replies": found.seen, "model": base.version}
        await raised(conn, base.base_id, base.base, AlertKind.SCORE_DRIFT, message, detail)
    elif found.is_calm:
        await cleared(conn, base.base_id, base.base, AlertKind.SCORE_DRIFT)


async def _watch_abstention(conn: Connection, base_id: KnowledgeBaseId, name: str) -> None:
    now = await calibration.abstained(conn, base_id, from_seconds=LATELY_SECONDS, to_seconds=0)
    before = await calibration.abstained(
        conn, base_id, from_seconds=BEFORE_SECONDS, to_seconds=LATELY_SECONDS
    )
    found = drift.change((before.abstained, before.replies), (now.abstained, now.replies))
    if found is None:
        return
    if found.is_large:
        message = (
            f"{found.now:.0%} of the questions to {name} got no answer in the last 7 days, after "
            f"{found.before:.0%} in the four weeks before."
        )
        detail = {"before": round(found.before, 4), "now": round(found.now, 4)}
        await raised(conn, base_id, name, AlertKind.ABSTENTION, message, detail)
    else:
        await cleared(conn, base_id, name, AlertKind.ABSTENTION)


async def raised(
    conn: Connection,
    base_id: KnowledgeBaseId,
    base: str,
    kind: AlertKind,
    message: str,
    detail: Mapping[str, Any],
) -> None:
    """Raise an alert, or bring the open one up to date; a new one is logged."""
    if await rows.put(conn, base_id, kind, message, detail):
        log.warning(
            "Alert raised",
            extra={"action": "alert_raised", "alert": str(kind), "base": base, "reason": message},
        )


async def cleared(conn: Connection, base_id: KnowledgeBaseId, base: str, kind: AlertKind) -> None:
    """Clear the open alert of a kind, if there is one."""
    if await rows.clear(conn, base_id, kind):
        log.info(
            "Alert cleared", extra={"action": "alert_cleared", "alert": str(kind), "base": base}
        )


async def listed(database: Database, *, every: bool = False, limit: int = 100) -> Sequence[Alert]:
    """Return open alerts, or all of them, the latest first."""
    async with database.transaction() as conn:
        return await rows.listed(conn, every=every, limit=limit)


async def clear(database: Database, alert_id: int) -> None:
    """Clear an alert by hand; what is still so will raise it again.

    Raises:
        NotFound: No open alert has this number.
    """
    async with database.transaction() as conn:
        if not await rows.clear_by_id(conn, alert_id):
            raise NotFound(f"There is no open alert {alert_id}.", field="alert")
