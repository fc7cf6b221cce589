"""Keeping an error rate on real tables: from labels to thresholds, and drift that is noticed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from cli.processes import rates
from cli.processes.parts import Setup
from cli.serving import metrics
from core import alerts, calibration, model_store
from core.alerts import AlertKind
from core.db import calibration as calibration_rows
from core.db import labels as label_rows
from core.db.connect import Database
from core.db.labels import Label
from core.risk import Thresholds
from core.settings import Settings
from core.types import (
    Choice,
    Decision,
    FaqEntry,
    ModelKind,
    Passage,
    Question,
    Reply,
    Tier,
    Trace,
    TurnId,
)
from tests.storage.spine import Spine
from training import certifying


def reply(confidence: float, decision: Decision = Decision.ANSWER, encoder: str = "e5") -> Reply:
    """Return a reply whose best entry is `returns`."""
    passages = (
        Passage(FaqEntry("returns", "?", "!"), 1.0, confidence, dense=0.9, lexical=0.5),
        Passage(FaqEntry("hours", "?", "!"), 0.5, (1 - confidence) / 2, dense=0.8, lexical=0.1),
    )
    trace = Trace(passages=passages, models={"encoder": encoder, "reply": "none"})
    return Reply(
        Choice(decision, "a test said so", passages[:1]), "Thirty days.", Tier.APPROVED, "en",
        confidence=confidence, trace=trace,
    )  # fmt: skip


async def ask(spine: Spine, made: Reply, chat: str) -> TurnId:
    """Have a question answered like that; return its turn."""

    async def answer(_: Question) -> Reply:
        return made

    spine.scripted.does = answer
    conversation = await spine.hear("How long may I send it back?", chat=chat)
    await spine.answer(conversation)
    turn: Any = await spine.value(
        "select id from turn where conversation_id = %(id)s order by opened_at desc limit 1",
        id=conversation,
    )
    return TurnId(turn)


async def label(spine: Spine, *labels: Label) -> None:
    async with spine.database.transaction() as conn:
        await label_rows.put(conn, spine.inbox.knowledge_base_id, labels)


def judged(count: int, *, wrong_below: float, locale: str = "en", seed: int = 1) -> list[Label]:
    """Return staff's labels without a turn: the bot was wrong where it was less sure than that."""
    chance = random.Random(seed)
    drawn = [chance.random() for _ in range(count)]
    return [
        Label(
            f"question {locale} {number}", entry_id="returns", locale=locale, confidence=confidence,
            chosen_entry_id="returns" if confidence >= wrong_below else "hours",
        )
        for number, confidence in enumerate(drawn)
    ]  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


async def calibrate(spine: Spine, settings: Settings, **options: Any) -> certifying.Outcome:
    return await certifying.calibrate(spine.database, settings, **options)


async def serving(spine: Spine, settings: Settings) -> Thresholds:
    base = spine.inbox.knowledge_base_id
    version = await model_store.serving(spine.database, ModelKind.CALIBRATION, base)
    assert version is not None
    folder = await model_store.Store(spine.database, settings.models_dir).folder(version)
    text = await asyncio.to_thread((folder / "thresholds.json").read_text)
    return Thresholds.from_json(json.loads(text))


async def test_a_label_of_a_turn_counts_with_the_signals_of_its_trace(spine: Spine):
    answered = await ask(spine, reply(0.9), "C1")
    abstained = await ask(spine, reply(0.3, Decision.HAND_OFF), "C2")
    await label(spine, Label("a", entry_id="returns", turn_id=answered))
    await label(spine, Label("b", entry_id="hours", turn_id=abstained))

    loaded = await calibration.load(spine.database)

    told = {each.group: (each.signals["confidence"], each.is_right) for each in loaded.usable}
    assert told == {"a": (0.9, True), "b": (0.3, False)}
    (answered_label,) = (each for each in loaded.usable if each.group == "a")
    assert answered_label.signals["margin"] == pytest.approx(0.85, abs=0.01)
    assert loaded.encoder == "e5"


async def test_a_label_that_says_no_entry_answers_counts_as_a_mistake(spine: Spine):
    turn = await ask(spine, reply(0.9), "C1")
    await label(spine, Label("a", entry_id=None, turn_id=turn))

    assert [each.is_right for each in (await calibration.load(spine.database)).usable] == [False]


async def test_a_label_of_an_intent_alone_is_not_used(spine: Spine):
    turn = await ask(spine, reply(0.9), "C1")
    await label(spine, Label("a", intent="greeting", turn_id=turn))

    loaded = await calibration.load(spine.database)

    assert (len(loaded.usable), loaded.unusable) == (0, 1)


async def test_staff_have_the_last_word_on_a_turn_and_weak_labels_certify_nothing(spine: Spine):
    both = await ask(spine, reply(0.9), "C1")
    weak = await ask(spine, reply(0.8), "C2")
    common: dict[str, Any] = {"chosen_entry_id": "returns", "source": "feedback", "weight": 0.5}
    await label(spine, Label("a", is_correct=False, turn_id=both, **common))
    await label(spine, Label("a", entry_id="returns", turn_id=both))
    await label(spine, Label("b", is_correct=True, turn_id=weak, **common))

    usable = (await calibration.load(spine.database)).usable

    told = {each.group: (each.is_right, each.weight, each.certifies) for each in usable}
    assert told == {"a": (True, 1.0, True), "b": (True, 0.5, False)}


async def test_confidences_of_another_encoder_are_left_out(spine: Spine):
    for number in range(3):
        turn = await ask(spine, reply(0.9), f"C{number}")
        await label(spine, Label("a", entry_id="returns", turn_id=turn))
    turn = await ask(spine, reply(0.9, encoder="another"), "C9")
    await label(spine, Label("b", entry_id="returns", turn_id=turn))

    loaded = await calibration.load(spine.database)

    assert (len(loaded.usable), loaded.unusable, loaded.encoder) == (3, 1, "e5")


async def test_labels_become_a_certified_threshold_that_serves(spine: Spine, settings: Settings):
    await label(spine, *judged(400, wrong_below=0.4))

    outcome = await calibrate(spine, settings)

    assert outcome.is_promoted
    thresholds = await serving(spine, settings)
    assert thresholds.is_certified("en-GB")
    certificate = thresholds.languages["en"]
    assert certificate.upper <= 0.05
    assert certificate.coverage > 0.55
    assert not thresholds.is_certified("de")
    assert thresholds.basis("de") == "pooled"


async def test_too_few_labels_certify_nothing_and_what_ships_serves_on(
    spine: Spine, settings: Settings
):
    await label(spine, *judged(30, wrong_below=0.0))

    outcome = await calibrate(spine, settings)

    assert not outcome.is_promoted
    assert "nothing is certified" in outcome.note
    assert outcome.calibration.thresholds.pooled.missing == 15  # 45 without a failure would do
    base = spine.inbox.knowledge_base_id
    assert await model_store.serving(spine.database, ModelKind.CALIBRATION, base) is None


async def test_a_dry_run_changes_nothing(spine: Spine, settings: Settings):
    await label(spine, *judged(400, wrong_below=0.4))

    outcome = await calibrate(spine, settings, dry_run=True)

    assert outcome.calibration.thresholds.is_certified("en")
    assert await model_store.versions(spine.database, ModelKind.CALIBRATION) == []


async def test_thresholds_that_answer_less_do_not_replace_those_that_labels_still_certify(
    spine: Spine, settings: Settings
):
    await label(spine, *judged(400, wrong_below=0.4))
    await calibrate(spine, settings)
    before = await serving(spine, settings)
    loaded = await calibration.load(spine.database)
    stricter = Thresholds.from_json(
        {
            **before.to_json(),
            "languages": {
                "en": {**before.to_json()["languages"]["en"], "threshold": 0.999}
            },
        }
    )  # fmt: skip

    assert "still certified" in certifying.refused(before, stricter, loaded.usable)
    assert certifying.refused(stricter, before, loaded.usable) == ""


async def test_a_rate_that_labels_no_longer_support_is_replaced_and_told(
    spine: Spine, settings: Settings
):
    await label(spine, *judged(200, wrong_below=0.4))
    await calibrate(spine, settings)
    await label(spine, *[
        Label(f"new {n}", entry_id="hours", chosen_entry_id="returns", confidence=0.5 + n / 400)
        for n in range(199)
    ])  # fmt: skip

    outcome = await calibrate(spine, settings)

    assert outcome.is_promoted
    thresholds = outcome.calibration.thresholds
    assert not thresholds.is_certified("en")
    (alert,) = await alerts.listed(spine.database)
    assert alert.kind == AlertKind.NOT_CERTIFIED
    assert "en" in alert.message


async def test_a_base_is_due_after_many_labels_or_a_day_and_not_again_after_its_fit(
    spine: Spine, settings: Settings
):
    assert await calibration.due(spine.database) == []

    await label(spine, *judged(calibration.MANY_LABELS, wrong_below=0.0))
    assert await calibration.due(spine.database) == ["default"]

    await calibrate(spine, settings)
    assert await calibration.due(spine.database) == []

    await label(spine, *judged(1, wrong_below=0.0, seed=2))
    assert await calibration.due(spine.database) == []
    async with spine.database.transaction() as conn:
        await conn.execute("update model_version set created_at = now() - interval '25 hours'")
    assert await calibration.due(spine.database) == ["default"]


async def test_the_command_prints_certificates_and_serves_them(
    spine: Spine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    await label(spine, *judged(400, wrong_below=0.4), *judged(20, wrong_below=0.0, locale="de"))
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path))

    assert await asyncio.to_thread(run, ["calibrate"]) == 0
    told = capsys.readouterr().out
    assert await asyncio.to_thread(run, ["calibrate", "--dry-run", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)

    assert "it serves now" in told
    assert figures["languages"]["en"]["certified"]
    assert not figures["languages"]["de"]["certified"]
    assert figures["languages"]["de"]["more_labels"] > 0
    assert figures["curve"][0]["low"] <= figures["curve"][0]["error"] <= figures["curve"][0]["high"]


async def test_the_schedule_fits_what_is_due_in_a_process_of_its_own(
    spine: Spine, database_url: str, settings: Settings
):
    await label(spine, *judged(60, wrong_below=0.0))
    setup = Setup(settings, None, database_url, "redis://nowhere")  # type: ignore[arg-type]

    await rates.look(spine.database, rates.child(setup), {})

    assert (await serving(spine, settings)).pooled.threshold is not None


async def test_a_base_that_stays_due_is_not_fitted_at_every_look(spine: Spine):
    await label(spine, *judged(60, wrong_below=0.0))
    fitted: list[str] = []

    async def note(base: str) -> None:
        fitted.append(base)

    tried: dict[str, float] = {}
    await rates.look(spine.database, note, tried)
    await rates.look(spine.database, note, tried)

    assert fitted == ["default"]


async def replies(
    spine: Spine, count: int, confidence: Callable[[int], float], *, days_ago: float = 0.0,
    decision: Callable[[int], Decision] = lambda _: Decision.ANSWER,
) -> None:  # fmt: skip
    """Store replies as if they had been given so many days ago."""
    for number in range(count):
        made = reply(confidence(number), decision(number))
        turn = await ask(spine, made, f"{days_ago}-{number}-{count}")
        async with spine.database.transaction() as conn:
            await conn.execute(
                "update reply set created_at = now() - %(ago)s where turn_id = %(turn)s",
                {"ago": timedelta(days=days_ago), "turn": turn},
            )


async def test_drift_raises_an_alert_with_its_metric_and_clears_it_when_it_is_over(
    spine: Spine, settings: Settings
):
    await label(spine, *judged(400, wrong_below=0.3))
    await calibrate(spine, settings)

    await replies(spine, 60, lambda n: 0.02 + n / 3000)  # the bot is unsure of everything
    await alerts.watch(spine.database)
    (alert,) = await alerts.listed(spine.database)
    assert alert.kind == AlertKind.SCORE_DRIFT
    assert alert.detail["index"] > 1
    assert 'deskhand_alerts_open{kind="score_drift"} 1.0' in await shown(spine.database)

    async with spine.database.transaction() as conn:
        await conn.execute("update reply set created_at = now() - interval '8 days'")
    await replies(spine, 120, lambda n: n / 120)
    await alerts.watch(spine.database)
    assert await alerts.listed(spine.database) == []
    (past,) = await alerts.listed(spine.database, every=True)
    assert past.cleared_at is not None
    assert 'deskhand_alerts_open{kind="score_drift"} 0.0' in await shown(spine.database)


async def shown(database: Database) -> str:
    response = await metrics.route(database).endpoint(None)  # type: ignore[arg-type]
    return bytes(response.body).decode()


async def test_questions_like_the_labelled_ones_raise_no_alert(spine: Spine, settings: Settings):
    await label(spine, *judged(400, wrong_below=0.3))
    await calibrate(spine, settings)
    await replies(spine, 80, lambda n: n / 80)

    await alerts.watch(spine.database)

    assert await alerts.listed(spine.database) == []


async def test_an_abstention_rate_that_jumps_raises_an_alert(spine: Spine, settings: Settings):
    await label(spine, *judged(400, wrong_below=0.3))
    await calibrate(spine, settings)
    await replies(spine, 60, lambda n: n / 60, days_ago=10)
    await replies(
        spine, 60, lambda n: n / 60,
        decision=lambda n: Decision.HAND_OFF if n % 2 else Decision.ANSWER,
    )  # fmt: skip

    await alerts.watch(spine.database)

    (alert,) = await alerts.listed(spine.database)
    assert alert.kind == AlertKind.ABSTENTION
    assert alert.detail == {"before": 0.0, "now": 0.5}


async def test_an_alert_is_raised_once_and_can_be_cleared_by_hand(
    spine: Spine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    base = spine.inbox.knowledge_base_id
    for figure in (1, 2):
        async with spine.database.transaction() as conn:
            await alerts.raised(
                conn, base, "default", AlertKind.ABSTENTION, f"It is {figure}.", {"n": figure}
            )
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path))

    assert await asyncio.to_thread(run, ["alerts", "list", "--json"]) == 0
    (alert,) = json.loads(capsys.readouterr().out)
    assert alert["message"] == "It is 2."
    assert await asyncio.to_thread(run, ["alerts", "clear", str(alert["id"])]) == 0
    assert await alerts.listed(spine.database) == []
    assert await asyncio.to_thread(run, ["alerts", "clear", str(alert["id"])]) == 1
    assert "no open alert" in capsys.readouterr().err


async def test_thresholds_that_cannot_be_read_stop_no_watch(
    spine: Spine, settings: Settings, caplog: pytest.LogCaptureFixture
):
    await label(spine, *judged(400, wrong_below=0.3))
    await calibrate(spine, settings)
    async with spine.database.transaction() as conn:
        await conn.execute("update model_blob set content = 'nothing'")
        (watched,) = await calibration_rows.watched(conn)
    assert bytes(watched.thresholds) == b"nothing"

    await alerts.watch(spine.database)

    assert "Thresholds cannot be read" in caplog.text
