"""Whether a new adapter may serve: what it and the one that serves say on the held-out pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from answering.generators.transformers_local import TransformersGenerator
from core.errors import Conflict
from training.evaluation.generation import generated, rouge_l
from training.registering import FEWEST_CASES
from training.replies.cleaning import Lesson, Report, read_lessons

MOST_CASES = 48
"""Two models write a reply each: about a second of a core, each."""

Progress = Callable[[str], None]


def compared(
    base: Path, old: Path | None, new: Path, held_out: Path, folder: Path, progress: Progress
) -> tuple[Path, Path]:
    """Write what two adapters reply to held-out messages, scored, for `registering.promote`.

    Both write through transformers, so that what differs is the adapter.

    Args:
        base: The transformers folder of the reply model.
        old: The adapter that serves, None for the untuned model.
        new: The one that wants to.
        held_out: The pairs that the new one has not been trained on.
        folder: Where the two files are written.
        progress: Takes one line at a time.

    Returns:
        The files of the old one and of the new one, JSON lines of `{"id", "reply", "score"}`; a
        score is the ROUGE-L F1 with what a person wrote, in [0, 1].

    Raises:
        Conflict: There are too few pairs to tell anything: the new one must not serve unseen.
    """
    cases = _spread(read_lessons(held_out, Report()) if held_out.stat().st_size else [])
    if len(cases) < FEWEST_CASES:
        raise Conflict(
            f"it is not promoted: {len(cases)} pairs are held out and {FEWEST_CASES} are needed to "
            "tell which adapter is better; give more pairs, or promote it by hand with "
            "`deskhand models promote --old --new`"
        )
    files: list[Path] = []
    for name, adapter in (("old", old), ("new", new)):
        progress(f"{len(cases)} held-out messages are answered with the {name} adapter")
        place = folder / f"{name}.jsonl"
        place.write_text(_answers(base, adapter, cases), encoding="utf-8")
        files.append(place)
    return files[0], files[1]


def _answers(base: Path, adapter: Path | None, cases: Sequence[Lesson]) -> str:
    writer = TransformersGenerator(str(base), "reply model", adapter=adapter)
    try:
        replies = generated(writer, [case.example for case in cases])
    finally:
        writer.close()
    rows = (
        {"id": str(number), "reply": reply, "score": rouge_l(reply, case.example.reply)}
        for number, (case, reply) in enumerate(zip(cases, replies, strict=True))
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _spread(cases: Sequence[Lesson]) -> list[Lesson]:
    """Return at most so many cases, always the same ones of a file."""
    return sorted(cases, key=_place)[:MOST_CASES]


def _place(case: Lesson) -> str:
    text = f"{case.example.message}\n{case.example.reply}"
    return hashlib.sha256(text.encode()).hexdigest()
