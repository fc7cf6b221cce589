"""Learning from agents: pairs out of conversations, their way into the registry, the schedule."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from cli.main import run
from cli.processes import continual
from cli.processes.parts import Setup
from core import desk_pairs, labels, model_store
from core.settings import Settings
from core.types import Decision, ModelKind
from tests import tiny_model
from tests.storage.spine import Spine
from tests.storage.test_labels import Talk, talk
from training.replies import desk
from training.replies.cleaning import Lesson, Report

__all__ = ["talk"]
BY_THE_ENTRY = "You can send everything back within thirty days, and we pay the label."


def learned(pairs: list[desk_pairs.DeskPair], report: Report | None = None) -> list[Lesson]:
    def mask(text: str) -> str:
        return text.replace("ann@example.com", "[email]")

    return desk.lessons_of(pairs, report or Report(), mask)


async def test_an_agents_reply_is_paired_with_the_entry_that_its_words_name(talk: Talk) -> None:
    turn = await talk.ask("I am ann@example.com, can it go back?", Decision.HAND_OFF)
    await talk.agent_says(turn, f"{BY_THE_ENTRY} Anything else?")

    (lesson,) = learned(await desk_pairs.gather(talk.database))

    assert lesson.example.entry_id == "returns"
    assert lesson.example.message == "I am [email], can it go back?"
    assert lesson.example.reply.endswith("and we pay the label.")
    assert lesson.where == f"turn {turn}"


async def test_staffs_word_decides_which_entry_is_behind_a_reply(talk: Talk) -> None:
    turn = await talk.ask("when can I come", Decision.HAND_OFF)
    await talk.agent_says(turn, "Our shop is open from nine to six, except on Sundays.")
    await labels.add(talk.database, turn, entry_id="hours", author="eve")

    (lesson,) = learned(await desk_pairs.gather(talk.database))
    await labels.add(talk.database, turn, none=True, author="eve")

    assert lesson.example.entry_id == "hours"
    assert await desk_pairs.gather(talk.database) == []


async def test_a_reply_that_no_entry_supports_is_left_out_and_counted(talk: Talk) -> None:
    turn = await talk.ask("can it go back", Decision.HAND_OFF)
    await talk.agent_says(turn, "Velvet cushions for all dogs come with a golden bone today.")
    await labels.add(talk.database, turn, entry_id="returns", author="eve")
    report = Report()

    assert learned(await desk_pairs.gather(talk.database), report) == []
    assert dict(report.cleaning.left_out) == {"words that the entry lacks": 1}


def pairs_file(folder: Path, count: int) -> Path:
    rows = [
        {
            "turns": [{"speaker": "U", "text": f"is it number {n} that you have?"}],
            "passages": [{"id": f"e{n}", "question": f"Q{n}?", "answer": f"The answer is {n}."}],
            "reply": f"Yes, the answer is {n}.",
        }
        for n in range(count)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def command(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`deskhand train replies` on a tiny model."""
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path / "data"))
    base = tiny_model.save(tmp_path / "tiny")
    return ["train", "replies", "--reply-model", str(base), "--out", str(tmp_path / "out"),
            "--rank", "2", "--lr", "0.01"]  # fmt: skip


async def test_a_trained_adapter_is_registered_with_its_data_and_figures(
    spine: Spine, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command += ["--data", str(pairs_file(tmp_path, 40)), "--register", "--json"]

    assert await asyncio.to_thread(run, command) == 0

    told = json.loads(capsys.readouterr().out)
    version = await model_store.find(spine.database, told["version"])
    assert version.kind is ModelKind.REPLY_ADAPTER
    assert set(version.files) == {
        "adapter_model.safetensors", "adapter_config.json", "training.json",
    }  # fmt: skip
    card = json.loads((tmp_path / "out" / "training.json").read_text())
    assert version.data_sha256 == card["data_sha256"]
    assert version.metrics["training"]["loss_best"] == told["loss_best"]
    assert version.settings["recipe"]["rank"] == 2
    assert await model_store.serving(spine.database, ModelKind.REPLY_ADAPTER) is None


async def test_an_adapter_is_promoted_only_by_enough_held_out_pairs(
    spine: Spine, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [*command, "--data", str(pairs_file(tmp_path, 40)), "--promote", "--max-steps", "1"]
    assert await asyncio.to_thread(run, few) != 0
    assert "8 pairs are held out and 20 are needed" in capsys.readouterr().err
    assert await model_store.serving(spine.database, ModelKind.REPLY_ADAPTER) is None

    many = [*command, "--data", str(pairs_file(tmp_path, 120)), "--promote", "--max-steps", "12"]
    assert await asyncio.to_thread(run, many) == 0
    said = capsys.readouterr().out
    serving = await model_store.serving(spine.database, ModelKind.REPLY_ADAPTER)
    assert serving is not None
    assert f"{serving.name} serves, instead of what ships" in said
    assert serving.metrics["frozen"]["n"] == 24


async def test_too_few_agents_replies_are_no_training(
    talk: Talk, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await talk.ask("can it go back", Decision.HAND_OFF)
    await talk.agent_says(turn, BY_THE_ENTRY)

    assert await asyncio.to_thread(run, [*command, "--from-desk"]) != 0

    assert "agents' replies give 1 pairs" in capsys.readouterr().err


async def test_the_schedule_is_due_where_no_adapter_was_made_for_so_long(
    spine: Spine, command: list[str], tmp_path: Path
) -> None:
    assert await continual.is_due(spine.database, 24)
    command += ["--data", str(pairs_file(tmp_path, 40)), "--register", "--max-steps", "1"]
    assert await asyncio.to_thread(run, command) == 0
    assert not await continual.is_due(spine.database, 24)
    async with spine.database.transaction() as conn:
        await conn.execute("update model_version set created_at = now() - interval '25 hours'")
    assert await continual.is_due(spine.database, 24)


async def test_the_schedule_trains_once_in_a_while_and_not_at_all_by_default(
    spine: Spine,
) -> None:
    trained = asyncio.Event()
    count = 0

    async def train() -> None:
        nonlocal count
        count += 1
        trained.set()

    off = asyncio.create_task(continual.run(spine.database, train, 0.0, 0.01))
    on = asyncio.create_task(continual.run(spine.database, train, 24.0, 0.01))
    await asyncio.wait_for(trained.wait(), 20)
    assert not off.done()
    for task in (off, on):
        task.cancel()
    await asyncio.gather(off, on, return_exceptions=True)
    assert count == 1


async def test_a_training_in_a_process_of_its_own_says_why_there_was_none(
    spine: Spine, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path)
    setup = Setup(settings, None, database_url, "redis://nowhere")  # type: ignore[arg-type]

    with caplog.at_level(logging.WARNING):
        await continual.child(setup)()

    (record,) = [r for r in caplog.records if r.name == continual.log.name]
    assert "nothing to train yet" in vars(record)["reason"]
