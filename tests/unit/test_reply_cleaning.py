"""Lines that cannot be learned from are named, with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidInput
from core.types import Decision
from tests import tiny_model
from training.replies import cleaning
from training.replies.cleaning import Report, read_lessons
from training.replies.fitting import encoded

GOOD: dict[str, Any] = {
    "turns": [{"speaker": "U", "text": "Where can I park my car near the shop?"}],
    "passages": [{"id": "parking", "question": "Is there parking?",
                  "answer": "Yes, 5 pounds a day. Call +44 20 7946 0958."}],
    "reply": "You can park at the shop for 5 pounds a day.",
}  # fmt: skip


def lessons(folder: Path, report: Report, *rows: object, mask: Any = cleaning.unmasked) -> Any:
    path = folder / "pairs.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_lessons(path, report, mask)


def said(text: str, speaker: str = "U") -> dict[str, Any]:
    return {**GOOD, "turns": [{"speaker": speaker, "text": text}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{no json", cleaning.WRONG_FORM),
        ({"turns": [{"speaker": "U", "text": "x"}]}, cleaning.WRONG_FORM),
        ({**GOOD, "reply": "  "}, cleaning.NO_REPLY),
        (said("Where can I park?", "S"), cleaning.WRONG_ROLES),
        (said("Where can I park?", "system"), cleaning.WRONG_ROLES),
        (said(" "), cleaning.WRONG_ROLES),
        ({**GOOD, "turns": []}, cleaning.WRONG_ROLES),
        ({**GOOD, "decision": "shrug"}, cleaning.NO_DECISION),
        ({**GOOD, "reply": "Sie können am Laden für den ganzen Tag parken."}, cleaning.MIXED),
        (said("my password is hunter2000, where can I park?"), cleaning.SECRET),
        ({**GOOD, "reply": "Use AKIAABCDEFGHIJKLMNOP to park here."}, cleaning.SECRET),
        ({**GOOD, "reply": "You can park for 7 pounds."}, cleaning.INVENTED),
    ],
)
def test_a_bad_line_is_left_out_and_named(tmp_path: Path, row: object, reason: str) -> None:
    report = Report()

    kept = lessons(tmp_path, report, GOOD, row)

    assert len(kept) == 1
    assert report.named == {reason: ["pairs.jsonl line 2"]}
    assert report.cleaning.lines()[0].startswith("2 replies read, 1 kept")
    assert f"{reason}: pairs.jsonl line 2" in report.lines()


def test_a_file_with_nothing_left_is_refused_with_its_reasons(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing to learn from: 2 x no reply .*line 1"):
        lessons(tmp_path, Report(), {**GOOD, "reply": ""}, {**GOOD, "reply": ""})
    with pytest.raises(InvalidInput, match="it is empty"):
        lessons(tmp_path, Report())


def test_the_sample_s_own_pairs_are_all_learned_from() -> None:
    report = Report()
    sample = Path(__file__).parents[2] / "cli" / "commands" / "sample_shop" / "replies.jsonl"

    kept = read_lessons(sample, report)

    assert len(kept) >= 0.97 * report.cleaning.read
    assert cleaning.SECRET not in report.named


def test_another_decision_needs_no_reply(tmp_path: Path) -> None:
    (lesson,) = lessons(tmp_path, Report(), {**GOOD, "reply": "", "decision": "hand_off"})
    assert (lesson.decision, lesson.example.reply) == (Decision.HAND_OFF, "")


def test_personal_data_is_masked_and_named_but_not_what_an_entry_tells_everybody(
    tmp_path: Path,
) -> None:
    def mask(text: str) -> str:
        return text.replace("ann@example.com", "[email]").replace("+44 20 7946 0958", "[phone]")

    report = Report()
    asked = said("I am ann@example.com, where can I park my car near the shop?")
    public = {**GOOD, "reply": "You can call +44 20 7946 0958 about parking."}

    masked, told = lessons(tmp_path, report, asked, public, mask=mask)

    assert masked.example.message.startswith("I am [email],")
    assert "+44 20 7946 0958" in told.example.reply
    assert report.masked == ["pairs.jsonl line 1"]
    assert "personal data masked in 1 pairs: pairs.jsonl line 1" in report.lines()


def test_a_pair_that_is_too_long_is_named(tmp_path: Path) -> None:
    report = Report()
    long = said("Where can I park my car near the shop? " * 40)
    kept = lessons(tmp_path, report, GOOD, long)

    ids = encoded(kept, tiny_model.tokenizer(), report, 800)

    assert len(ids) == 1
    assert report.named == {cleaning.TOO_LONG: ["pairs.jsonl line 2"]}


def test_what_was_learned_from_can_be_written_and_read_again(tmp_path: Path) -> None:
    first = lessons(tmp_path, Report(), GOOD, {**GOOD, "reply": "", "decision": "refuse"})
    cleaning.write_lessons(first, tmp_path / "again.jsonl")
    second = read_lessons(tmp_path / "again.jsonl", Report())
    assert [(e.example, e.decision) for e in second] == [(e.example, e.decision) for e in first]
