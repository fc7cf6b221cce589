"""`deskhand models` on a real database: registered, gated, shown, taken back."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import psycopg
import pytest

from cli import health
from cli.configuration import completed, load
from core.risk import Certificate, Thresholds
from tests.storage.test_commands import Terminal, terminal

__all__ = ["terminal"]

DATA = hashlib.sha256(b"data").hexdigest()


def calibration(folder: Path, answer_from: float) -> str:
    """Write thresholds as `calibrate` does; return the folder's name."""
    folder.mkdir()
    made = Thresholds(0.05, 0.1, answer_from, Certificate(None, 0))
    (folder / "thresholds.json").write_text(json.dumps(made.to_json()), encoding="utf-8")
    return str(folder)


def label(database_url: str, rows: list[tuple[float, bool]]) -> None:
    with psycopg.connect(database_url) as conn:
        conn.cursor().executemany(
            """insert into label (knowledge_base_id, text, chosen_entry_id, entry_id, confidence,
                                  is_correct, source)
               select id, 'asked', 'returns', case when %(right)s then 'returns' end,
                      %(confidence)s, %(right)s, 'staff' from knowledge_base
                where name = 'default'""",
            [{"confidence": confidence, "right": right} for confidence, right in rows],
        )


def judged(n: int = 200) -> list[tuple[float, bool]]:
    """Return labels of a bot that is right where it is sure."""
    rng = random.Random(5)
    confidences = [rng.random() for _ in range(n)]
    return [(confidence, confidence > 0.3) for confidence in confidences]


def add(terminal: Terminal, folder: str, name: str, kind: str = "calibration") -> None:
    arguments = ("models", "add", folder, "--kind", kind, "--name", name, "--data", "unknown")
    assert terminal(*arguments) == 0, terminal.err


def test_a_version_is_registered_shown_promoted_and_taken_back(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("text,label\n", encoding="utf-8")
    folder = calibration(tmp_path / "made", 0.5)
    added = terminal.json(
        "models", "add", folder, "--kind", "calibration", "--base", "default", "--name", "first",
        "--data", "labels.csv",
    )  # fmt: skip
    assert added["data_sha256"] == hashlib.sha256(b"text,label\n").hexdigest()

    assert terminal("models", "promote", "first") == 0, terminal.err
    assert "nothing to compare on" in terminal.out
    assert "first serves, instead of what ships" in terminal.out
    listed = terminal.json("models", "list")
    assert [(s["kind"], s["base"], s["version"]) for s in listed["serving"]] == [
        ("encoder", "all", "shipped"), ("intents", "all", "shipped"),
        ("calibration", "all", "shipped"), ("reply_adapter", "all", "shipped"),
        ("verifier", "all", "shipped"), ("calibration", "default", "first"),
    ]  # fmt: skip
    assert terminal("models", "list") == 0
    assert "first" in terminal.out
    shown = terminal.json("models", "show", "first")
    assert shown["base"] == "default"
    assert "nothing to compare" in shown["promotions"][0]["why"]
    assert terminal("models", "show", "first") == 0
    assert "thresholds.json" in terminal.out

    assert terminal("models", "rollback", "calibration", "--base", "default") == 0
    assert terminal.out == "What ships serves again, instead of first.\n"
    assert terminal("models", "rollback", "calibration", "--base", "default") != 0
    assert "to take back" in terminal.err


def test_a_version_that_is_worse_beyond_noise_is_refused_with_the_figures_unless_forced(
    terminal: Terminal, tmp_path: Path, database_url: str
) -> None:
    for name, answer_from in (("good", 0.5), ("timid", 0.9), ("alike", 0.52)):
        add(terminal, calibration(tmp_path / name, answer_from), name)
    assert terminal("models", "promote", "good") == 0
    label(database_url, judged())

    assert terminal("models", "promote", "timid") != 0
    assert "timid is not promoted: on 200 labels of staff" in terminal.err
    assert "at 95%, 200 cases" in terminal.err
    assert terminal.json("models", "list")["serving"][2]["version"] == "good"

    alike = terminal.json("models", "promote", "alike")
    assert alike["verdict"]["is_worse"] is False
    kept = terminal.json("models", "show", "alike")
    assert kept["settings"]["evaluation"]["cases"] == 200
    assert kept["metrics"]["frozen"]["n"] == 200

    assert terminal("models", "promote", "timid", "--force") != 0
    assert "--why" in terminal.err
    assert terminal("models", "promote", "timid", "--force", "--why", "a promise to a client") == 0
    assert "timid serves in spite of that" in terminal.out
    why = terminal.json("models", "show", "timid")["promotions"][0]["why"]
    assert why == "forced: a promise to a client"


def test_thresholds_that_surely_break_the_tolerated_rate_are_refused_though_they_answer_more(
    terminal: Terminal, tmp_path: Path, database_url: str
) -> None:
    add(terminal, calibration(tmp_path / "good", 0.5), "good")
    add(terminal, calibration(tmp_path / "rash", 0.0), "rash")
    assert terminal("models", "promote", "good") == 0
    label(database_url, judged())

    assert terminal("models", "promote", "rash") != 0
    assert "surely more than the tolerated 5%" in terminal.err


def test_a_file_of_cases_stands_for_labels_where_these_are_few(
    terminal: Terminal, tmp_path: Path, database_url: str
) -> None:
    add(terminal, calibration(tmp_path / "good", 0.5), "good")
    add(terminal, calibration(tmp_path / "timid", 0.9), "timid")
    assert terminal("models", "promote", "good", "--base", "default") == 0
    label(database_url, judged(49))
    lines = [json.dumps({"confidence": c, "correct": right}) for c, right in judged()]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines), encoding="utf-8")

    status = terminal(
        "models", "promote", "timid", "--base", "default", "--cases", "cases.jsonl"
    )  # fmt: skip
    assert status != 0
    assert "on cases.jsonl it is worse" in terminal.err


def test_a_reply_adapter_is_compared_by_the_results_of_both(
    terminal: Terminal, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    add(terminal, str(folder), "adapter", "reply_adapter")
    rows = [(f"c{i}", f"You can send order {i} back within 30 days.") for i in range(40)]

    def written(name: str, texts: list[str]) -> str:
        lines = [json.dumps({"id": r[0], "text": t}) for r, t in zip(rows, texts, strict=True)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return name

    (tmp_path / "cases.jsonl").write_text(
        "\n".join(json.dumps({"id": i, "reference": text}) for i, text in rows), encoding="utf-8"
    )
    good = written("good.jsonl", [text for _, text in rows])
    bad = written("bad.jsonl", ["No idea." for _ in rows])
    promote = ("models", "promote", "adapter", "--cases", "cases.jsonl")

    assert terminal(*promote, "--old", good, "--new", bad) != 0
    assert "1.0000 -> 0.0000" in terminal.err
    assert terminal(*promote, "--old", good) != 0
    assert "both --old and --new" in terminal.err
    assert terminal(*promote, "--old", bad, "--new", good) == 0, terminal.err


def test_a_version_that_is_not_what_its_kind_needs_is_refused_even_by_force(
    terminal: Terminal, tmp_path: Path
) -> None:
    folder = calibration(tmp_path / "made", 0.5)
    add(terminal, folder, "no-head", "intents")

    assert terminal("models", "promote", "no-head", "--force", "--why", "I want it") != 0
    assert "holds no intent head" in terminal.err


def test_a_damaged_copy_is_named_by_the_doctor(terminal: Terminal, tmp_path: Path) -> None:
    add(terminal, calibration(tmp_path / "made", 0.5), "first")
    assert terminal("models", "promote", "first") == 0
    copy = tmp_path / "data" / "models" / "versions" / "first" / "thresholds.json"
    copy.write_text("{}", encoding="utf-8")
    given = load(None)

    found = list(health.models(health.Installation(given, completed(given), None)))

    assert [f.text for f in found if "damaged" in f.text] == [
        "versions/first is damaged: thresholds.json"
    ]


def test_without_a_database_the_store_is_shown_alone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DESKHAND_DATABASE_URL")

    shown = terminal.json("models", "list")

    assert list(shown) == ["models"]
    assert "The registry is not shown" in terminal.err


def test_a_verifier_is_not_promoted_since_no_worker_would_follow_it(
    terminal: Terminal, tmp_path: Path
) -> None:
    add(terminal, calibration(tmp_path / "made", 0.5), "checker", "verifier")

    assert terminal("models", "promote", "checker") == 1
    assert "follow no other" in terminal.err
