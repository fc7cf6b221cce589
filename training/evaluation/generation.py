"""How well replies are worded and grounded: figures for a generator on entries it never saw."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from answering.generators.protocol import Generator
from answering.prompting import build, plain
from core.types import Author, Utterance
from training.evaluation import scores
from training.replies.data import (
    QuestionAnswer,
    ReplyExample,
    content_words,
    cut_closing,
    negates,
    numbers,
    read_rows,
    token_precision,
)

BATCH = 16
NEW_TOKENS = 60


@dataclass(frozen=True)
class Figures:
    """Means over the replies, in percent but for the last four.

    Attributes:
        rouge_l: F1 of the longest common subsequence with a person's reply.
        bleu: BLEU-4 with it, the mean of single replies, as DSTC9 scores.
        token_f1: F1 of the words shared with it.
        precision: The share of a reply's content words that stand in its sources or question.
        flips: Replies that say yes where the person says no, or the reverse.
        invented: Replies with a number that no source has.
        words: Mean length.
        seconds: Of the whole run.
    """

    name: str
    replies: int
    rouge_l: float
    bleu: float
    token_f1: float
    precision: float
    flips: int
    invented: int
    words: float
    seconds: float


def dstc9_cases(folder: Path, count: int, seed: int = 0) -> list[ReplyExample]:
    """Return one example an entry of `val_unseen`; the person's reply without its closing question.

    Raises:
        InvalidInput: The folder does not hold it.
    """
    rows = read_rows(folder / "val_unseen.jsonl")
    random.Random(seed).shuffle(rows)
    by_entry = {row["id"]: row for row in rows}
    return [
        ReplyExample(
            (Utterance(Author.CUSTOMER, row["faq_question"]),),
            (QuestionAnswer(row["faq_question"], row["faq_answer"]),),
            cut_closing(row["response"]),
            entry,
        )
        for entry, row in sorted(by_entry.items())[:count]
    ]


def generated(generator: Generator, cases: Sequence[ReplyExample]) -> list[str]:
    """Return a generator's reply to each case."""
    prompts = [build(case.message, case.sources, case.history) for case in cases]
    return [
        result.text
        for start in range(0, len(prompts), BATCH)
        for result in generator.generate(prompts[start : start + BATCH], NEW_TOKENS)
    ]


def copied(cases: Sequence[ReplyExample]) -> list[str]:
    """Return each case's best source as it stands: the floor that generation must beat."""
    return [plain(case.sources[0].answer) for case in cases]


def measure(
    name: str, cases: Sequence[ReplyExample], write: Callable[[Sequence[ReplyExample]], list[str]]
) -> tuple[Figures, list[str]]:
    """Return the figures of a way to write replies, and the replies."""
    began = time.monotonic()
    replies = write(cases)
    seconds = time.monotonic() - began
    pairs = list(zip(cases, replies, strict=True))
    count = max(1, len(pairs))
    figures = Figures(
        name=name,
        replies=len(pairs),
        rouge_l=100 * sum(rouge_l(reply, case.reply) for case, reply in pairs) / count,
        bleu=100 * sum(scores.bleu(reply, case.reply) for case, reply in pairs) / count,
        token_f1=100 * sum(token_f1(reply, case.reply) for case, reply in pairs) / count,
        precision=100 * sum(_precision(case, reply) for case, reply in pairs) / count,
        flips=sum(flips(reply, case.reply) for case, reply in pairs),
        invented=sum(bool(numbers(reply) - numbers(_known(case))) for case, reply in pairs),
        words=sum(len(reply.split()) for reply in replies) / count,
        seconds=seconds,
    )
    return figures, replies


def rouge_l(reply: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, in [0, 1].

    Source: Lin, ROUGE, 2004, section 3, with beta = 1.
    """
    ours, theirs = _words(reply), _words(reference)
    return _f1(_common_subsequence(ours, theirs), len(ours), len(theirs))


def token_f1(reply: str, reference: str) -> float:
    """Return the F1 of the words in common, each counted as often as it stands, in [0, 1]."""
    ours, theirs = _words(reply), _words(reference)
    left = list(theirs)
    shared = 0
    for word in ours:
        if word in left:
            left.remove(word)
            shared += 1
    return _f1(shared, len(ours), len(theirs))


def flips(reply: str, reference: str) -> bool:
    """Return whether a reply says the reverse of a person's; rough, so read what it marks."""
    return bool(content_words(reply)) and negates(_first_sentence(reply)) != negates(
        _first_sentence(reference)
    )


def table(rows: Sequence[Figures]) -> str:
    """Return figures as a Markdown table."""
    head = (
        "| replies by | ROUGE-L | BLEU-4 | token F1 | precision % | polarity differs "
        "| numbers invented | words | s |\n|---|---|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {row.name} | {row.rouge_l:.1f} | {row.bleu:.1f} | {row.token_f1:.1f} "
        f"| {row.precision:.1f} | {row.flips} of {row.replies} | {row.invented} "
        f"| {row.words:.1f} | {row.seconds:.0f} |"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _precision(case: ReplyExample, reply: str) -> float:
    return token_precision(reply, _known(case))


def _known(case: ReplyExample) -> str:
    sources = (f"{source.question} {plain(source.answer)}" for source in case.sources)
    return " ".join([*sources, *(turn.text for turn in case.turns)])


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for at, other in enumerate(right, start=1):
            above = row[at]
            row[at] = before + 1 if word == other else max(above, row[at - 1])
            before = above
    return row[-1]
