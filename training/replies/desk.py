"""Pairs from this installation's conversations, as far as an entry supports the reply."""

from __future__ import annotations

from collections.abc import Sequence

from answering.prompting import plain
from core.desk_pairs import DeskPair
from core.types import Author, Utterance
from training.replies.cleaning import Lesson, Mask, Report, checked
from training.replies.data import (
    QuestionAnswer,
    ReplyExample,
    cut_closing,
    is_polar,
    polarity_first,
    unsupported,
)

NO_ENTRY = "no entry supports it"


def lessons_of(pairs: Sequence[DeskPair], report: Report, mask: Mask) -> list[Lesson]:
    """Return what can be learned from agents' replies; the others are counted with their reason.

    A pair is named by its turn, since there is no file.

    Args:
        pairs: As `core.desk_pairs.gather` returns them.
        report: Is told what is left out and masked.
        mask: Takes personal data out of what was said.
    """
    lessons: list[Lesson] = []
    for pair in pairs:
        where = f"turn {pair.asked.turn_id}"
        report.cleaning.read += 1
        report.cleaning.kept += 1
        found = _lesson(pair, where)
        if isinstance(found, Lesson):
            found = checked(found, report, mask)
        if isinstance(found, str):
            report.leave_out(where, found)
        else:
            lessons.append(found)
    return lessons


def _lesson(pair: DeskPair, where: str) -> Lesson | str:
    """Return the pair with the first entry that supports it, or why none does."""
    asked = pair.asked
    reasons: list[str] = []
    for entry in pair.entries:
        answer = plain(entry.answer)
        reply = cut_closing(pair.reply)
        if is_polar(asked.text):
            reply = polarity_first(reply, answer)
        known = " ".join((entry.question, answer, asked.text))
        reason = unsupported(reply, asked.text, answer, known)
        if reason is None:
            turns = [Utterance(Author(said["author"]), said["text"]) for said in asked.history]
            example = ReplyExample(
                (*turns, Utterance(Author.CUSTOMER, asked.text)),
                (QuestionAnswer(entry.question, entry.answer),),
                reply,
                entry.id,
            )
            return Lesson(example, where=where)
        reasons.append(reason)
    return reasons[0] if len(reasons) == 1 else NO_ENTRY
