"""Files of training pairs: each line that cannot be learned from is named, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from answering.languages import language_of, same_language
from answering.prompting import plain
from core.errors import InvalidInput
from core.types import Author, Decision, Utterance
from training.replies.data import Cleaning, QuestionAnswer, ReplyExample, without_inventions

Mask = Callable[[str], str]
"""Returns a text without personal data."""

NAMED = 20
"""Lines that are named for each reason; of the others only the number is told."""
AUTHORS = {
    "U": Author.CUSTOMER, "user": Author.CUSTOMER, "customer": Author.CUSTOMER,
    "S": Author.BOT, "assistant": Author.BOT, "bot": Author.BOT, "agent": Author.BOT,
}  # fmt: skip

WRONG_FORM = 'not of the form {"turns": [{"speaker", "text"}], "passages": [{"question", "answer"}], "reply"}'  # noqa: E501
WRONG_ROLES = "the last turn is not the customer's (speaker U), or a speaker is neither U nor S"
NO_REPLY = "no reply"
NO_DECISION = "an unknown decision"
MIXED = "the reply is in another language than the message"
SECRET = "a password or key"  # noqa: S105  a reason to print
INVENTED = "a number that no source has"
TOO_LONG = "too long for training"

# What never belongs into training data, whoever wrote it; the forms are those of their makers.
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[0-9A-Za-z_-]{35}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|\b[a-z][a-z0-9+.-]{2,12}://[^\s/:@]+:[^\s/@]+@"
    r"|\b(?:pass(?:word|wort|code)?|pwd|api[ _-]?key|secret|token)\s*(?:is|ist|[:=])\s*"
    r"(?=\S*\d)\S{6,}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Lesson:
    """What is learned from one message.

    Attributes:
        example: Its reply may be empty where the decision is another than to answer.
        where: File and line, for messages.
    """

    example: ReplyExample
    decision: Decision = Decision.ANSWER
    where: str = ""


@dataclass
class Report:
    """What was left out and masked, by line."""

    cleaning: Cleaning = field(default_factory=Cleaning)
    masked: list[str] = field(default_factory=list[str])
    named: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def leave_out(self, where: str, reason: str) -> None:
        """Note that a line that was kept so far is not."""
        self.cleaning.kept -= 1
        self.cleaning.left_out[reason] += 1
        self.named.setdefault(reason, []).append(where)

    def lines(self) -> list[str]:
        """Return counts and lines to print."""
        said = self.cleaning.lines()
        for reason, places in self.named.items():
            more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
            said.append(f"{reason}: {', '.join(places[:NAMED])}{more}")
        if self.masked:
            more = f" and {len(self.masked) - NAMED} more" if len(self.masked) > NAMED else ""
            said.append(f"personal data masked in {len(self.masked)} pairs: "
                        f"{', '.join(self.masked[:NAMED])}{more}")  # fmt: skip
        return said


def unmasked(text: str) -> str:
    """Return a text as it is."""
    return text


def read_lessons(path: Path, report: Report, mask: Mask = unmasked) -> list[Lesson]:
    """Return what can be learned from a JSONL file; see `docs/how-to/train-the-adapter.md`.

    Args:
        path: `{"turns", "passages", "reply", "decision"?}` a line.
        report: Is told what is left out and masked.
        mask: Takes personal data out of what was said.

    Raises:
        InvalidInput: The file cannot be read, or nothing in it can be learned from.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="data") from error
    before = Counter(report.cleaning.left_out)
    lessons: list[Lesson] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        report.cleaning.read += 1
        report.cleaning.kept += 1
        lesson = _parsed(line, where)
        if isinstance(lesson, Lesson):
            lesson = checked(lesson, report, mask)
        if isinstance(lesson, str):
            report.leave_out(where, lesson)
        else:
            lessons.append(lesson)
    if not lessons:
        reasons = "; ".join(
            f"{count} x {reason}" for reason, count in (report.cleaning.left_out - before).items()
        )
        first = next((places[0] for places in report.named.values()), str(path))
        raise InvalidInput(
            f"{path} has nothing to learn from: {reasons or 'it is empty'}"
            + (f" (such as {first})" if reasons else ""),
            field="data",
        )
    return lessons


def checked(lesson: Lesson, report: Report, mask: Mask) -> Lesson | str:
    """Return a lesson as it may be learned, or why it may not."""
    example = lesson.example
    said = [turn.text for turn in example.turns]
    if any(_SECRET.search(text) for text in (*said, example.reply)):
        return SECRET
    if example.reply and _is_mixed(example):
        return MIXED
    if lesson.decision is Decision.ANSWER and not without_inventions([example], Cleaning()):
        return INVENTED
    masked = _masked(example, mask)
    if masked != example:
        report.masked.append(lesson.where)
    return replace(lesson, example=masked)


def _is_mixed(example: ReplyExample) -> bool:
    """Tell whether the languages differ beyond doubt; a short message says too little."""
    spoken = language_of(example.message, fallback="")
    if not spoken or same_language(example.reply, spoken):
        return False
    # names and loan words mislead where the message is short: its history must agree
    earlier = [turn.text for turn in example.turns if turn.author is Author.CUSTOMER]
    told = language_of(" ".join(earlier), fallback="")
    return bool(told) and not same_language(example.reply, told)


def _masked(example: ReplyExample, mask: Mask) -> ReplyExample:
    """Return an example without personal data; what an entry tells everybody is none."""
    public = " ".join(f"{s.question} {plain(s.answer)} {s.answer}" for s in example.sources)

    def clean(text: str) -> str:
        hidden = mask(text)
        return text if hidden == text or _only_public(text, public, mask) else hidden

    turns = tuple(replace(turn, text=clean(turn.text)) for turn in example.turns)
    return replace(example, turns=turns, reply=clean(example.reply))


def _only_public(text: str, public: str, mask: Mask) -> bool:
    """Tell whether nothing is left to mask once the words that entries have are out."""
    rest = " ".join(word for word in text.split() if word.strip(".,;:!?()") not in public)
    return mask(rest) == rest


def _parsed(line: str, where: str) -> Lesson | str:
    try:
        row: dict[str, Any] = json.loads(line)
        said = [(str(turn["speaker"]), str(turn["text"])) for turn in row["turns"]]
        sources = tuple(
            QuestionAnswer(str(passage["question"]), str(passage["answer"]))
            for passage in row["passages"]
        )
        ids = [str(passage.get("id", "")) for passage in row["passages"]]
        reply = str(row.get("reply") or "").strip()
        wanted = str(row.get("decision", Decision.ANSWER))
    except (ValueError, KeyError, TypeError, AttributeError):
        return WRONG_FORM
    if not said or any(speaker not in AUTHORS for speaker, _ in said):
        return WRONG_ROLES
    turns = tuple(Utterance(AUTHORS[speaker], text) for speaker, text in said)
    if turns[-1].author is not Author.CUSTOMER or not turns[-1].text.strip():
        return WRONG_ROLES
    try:
        decision = Decision(wanted)
    except ValueError:
        return NO_DECISION
    if decision is Decision.ANSWER and not reply:
        return NO_REPLY
    # without an entry, the message itself stands for it: parts must not share it
    entry = next(filter(None, ids), "") or (sources[0].question if sources else turns[-1].text)
    return Lesson(ReplyExample(turns, sources, reply, entry), decision, where)


def as_row(lesson: Lesson) -> Mapping[str, Any]:
    """Return a lesson as a line of a file that `read_lessons` reads."""
    example = lesson.example
    return {
        "turns": [
            {"speaker": "U" if turn.author is Author.CUSTOMER else "S", "text": turn.text}
            for turn in example.turns
        ],
        "passages": [
            {"id": example.entry_id if at == 0 else "", "question": s.question, "answer": s.answer}
            for at, s in enumerate(example.sources)
        ],
        "reply": example.reply,
        "decision": str(lesson.decision),
    }


def write_lessons(lessons: Sequence[Lesson], path: Path) -> None:
    """Write lessons to a JSONL file."""
    rows = (json.dumps(as_row(lesson), ensure_ascii=False) for lesson in lessons)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
