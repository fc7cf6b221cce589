"""Wording a choice: the model's reply after its check, the approved answer, or a system text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from answering import grounding, premises, prompting, safety
from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from answering.streamed import Stream
from answering.verifier import Judge, Score
from core import texts
from core.deciding import NOTHING_ASKED
from core.dialogue import Option
from core.errors import DeskhandError, LostClaim
from core.ports import Show
from core.types import (
    Author,
    Choice,
    Citation,
    Decision,
    FallbackReason,
    FaqEntry,
    Holder,
    Passage,
    Question,
    ReplyStyle,
    Tier,
    Utterance,
)
from retrieval.lexical import fold

NEW_TOKENS = 96
"""The longest generated reply; three short sentences take about 60."""
SECONDS_TO_SPARE = 2.0
"""Left of the deadline for check, commit and sending."""
BUSY_TURNS = 24
"""With so many turns waiting, the approved answer goes out: it is a hundred times cheaper."""
QUOTE_LONGER_THAN = 700
"""Characters of an answer from which it is quoted: a summary by a small model drops facts."""
SUGGESTIONS = 3

_STRUCTURED = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s|```|!\[", re.MULTILINE)

_FIGURE = re.compile(r"\d+")
"""The small model does not compare: "my first order is 35 euros" got a yes that begins at 40."""

LEGAL = "legal"
"""The tag of entries whose wording binds: they are quoted whole, whatever the style."""

OnText = Callable[[str], None]
"""Told of the whole text so far, on the engine's thread."""
Generate = Callable[[Prompt, float, OnText | None], Awaitable[Generated]]
"""Asks the engine for a reply within so many seconds."""


@dataclass(frozen=True)
class Said:
    """The words of a reply and how they came about.

    Attributes:
        reason: Why these are the approved words, where an entry answers and the model does not.
        checks: What was found wrong with what the model wrote.
    """

    text: str
    tier: Tier = Tier.APPROVED
    is_markdown: bool = False
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()
    reason: FallbackReason | None = None
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """What the wording of an answer depends on.

    Attributes:
        language: The customer's.
        style: The process's setting; the base's and the entry's beat it.
        speaks: Languages in which the model writes; empty without a model.
        seconds_a_reply: How long a generation takes now, as measured.
    """

    language: str
    style: ReplyStyle
    speaks: frozenset[str]
    seconds_a_reply: float


async def answer(
    question: Question,
    query: str,
    choice: Choice,
    words: Words,
    generate: Generate | None,
    *,
    score: Score | None = None,
    show: Show | None = None,
) -> Said:
    """Return the answer from the chosen entries.

    Args:
        question: What the customer said.
        query: The same as a question that stands alone.
        choice: The entries that answer, the first one most.
        words: What the wording depends on.
        generate: None where no model is loaded.
        score: Asks the verifier about sentences; None where none is loaded.
        show: Takes the sentences of a generated reply while it is written.

    Raises:
        LostClaim: `show` found that nobody wants the reply any more.
    """
    entries = [passage.entry for passage in choice.passages]
    if generate is None:
        return quoted(entries, FallbackReason.NO_MODEL)
    if (reason := quote_because(question, query, entries, words)) is not None:
        return quoted(entries, reason)
    said = [u.text for u in question.history if u.author is Author.CUSTOMER]
    message = "\n".join(question.messages)
    history = _latest(question.history)
    if (risk := _risk(message, entries, history)) is not None:
        return quoted(entries, *risk)
    prompt = prompting.build(message, entries, history, words.language)

    judge = Judge(score)

    async def check(text: str, *, finished: bool = True) -> grounding.Checked:
        verdicts = await judge.verdicts(text, entries)
        checked = grounding.check(
            text,
            entries,
            [*said, message],
            language=words.language,
            finished=finished,
            verdicts=verdicts,
        )
        return _filtered(checked, entries, question.knowledge_base.blocked)

    # A second attempt shows nothing more by itself: what it writes may begin otherwise.
    stream = Stream(show, check) if show is not None and not question.shown else None
    seconds = question.seconds_left - SECONDS_TO_SPARE
    try:
        written = await _written(generate, prompt, seconds, stream)
        if written.finish is Finish.ERROR:
            return quoted(entries, FallbackReason.MODEL, (str(written.error),))
        checked = await check(written.text, finished=written.finish is Finish.STOP)
    except LostClaim:
        raise
    except DeskhandError as error:
        return quoted(entries, FallbackReason.ENGINE, (str(error),))
    before = stream.shown if stream is not None else " ".join(question.shown)
    if not checked.text:
        return quoted(entries, FallbackReason.CHECK, checked.failures)
    if not checked.text.startswith(before):
        return quoted(entries, FallbackReason.CHECK, ("begins otherwise than what was shown",))
    return Said(
        checked.text,
        Tier.GENERATED,
        citations=cite(entries),
        checks=tuple(f"dropped a sentence: {f}" for f in checked.failures),
    )


def _risk(
    message: str, entries: Sequence[FaqEntry], history: Sequence[Utterance]
) -> tuple[FallbackReason, tuple[str, ...]] | None:
    """Return what speaks against giving this turn to the model at all."""
    said = [u.text for u in history if u.author is Author.CUSTOMER]
    if (why := safety.inspect([*said, message], entries).quote_because) is not None:
        return FallbackReason.INSTRUCTION, (why,)
    if (premise := premises.contradicted(message, entries)) is not None:
        return FallbackReason.PREMISE, (premise.why,)
    return None


def _filtered(
    checked: grounding.Checked, entries: Sequence[FaqEntry], phrases: Sequence[str]
) -> grounding.Checked:
    """Return what is left without sentences that hold a blocked phrase or echo the customer."""
    kept: list[str] = []
    failures = list(checked.failures)
    for number, sentence in enumerate(grounding.split_sentences(checked.text)):
        if (phrase := safety.blocked(sentence, phrases)) is not None:
            failures.append(f"holds the blocked phrase {phrase!r}")
        elif safety.strays(sentence, entries):
            failures.append("says what stands in no entry")
        else:
            kept.append(sentence)
        if number == 0 and not kept:
            return grounding.Checked("", tuple(failures))  # the rest would hang in the air
    if len(failures) == len(checked.failures):
        return checked
    return grounding.Checked(" ".join(kept), tuple(failures))


async def _written(
    generate: Generate, prompt: Prompt, seconds: float, stream: Stream | None
) -> Generated:
    """Return what the model wrote; its sentences go to the stream meanwhile.

    Raises:
        LostClaim: The stream found that nobody wants it; the model is told to stop.
    """
    if stream is None:
        return await generate(prompt, seconds, None)
    writing = asyncio.ensure_future(generate(prompt, seconds, stream.heard))
    showing = asyncio.ensure_future(stream.run())
    try:
        await asyncio.wait([writing, showing], return_when=asyncio.FIRST_COMPLETED)
        if not writing.done() and showing.exception() is not None:
            writing.cancel()
        stream.end()
        await showing
        return await writing
    finally:
        for task in (writing, showing):
            task.cancel()
        await asyncio.gather(writing, showing, return_exceptions=True)


def quote_because(
    question: Question, query: str, entries: Sequence[FaqEntry], words: Words
) -> FallbackReason | None:
    """Return why the approved answer is quoted, None where a reply is to be generated."""
    entry = entries[0]
    style = entry.style or question.knowledge_base.style or words.style
    if any(is_legal(e) for e in entries):
        return FallbackReason.LEGAL
    if style is ReplyStyle.VERBATIM:
        return FallbackReason.VERBATIM
    language = entry.locale.split("-")[0].lower()
    if words.language not in words.speaks or language not in words.speaks:
        return FallbackReason.LANGUAGE
    if question.seconds_left - SECONDS_TO_SPARE < words.seconds_a_reply:
        return FallbackReason.DEADLINE
    if question.waiting > BUSY_TURNS:
        return FallbackReason.QUEUE
    if style is ReplyStyle.GENERATED:
        return None
    if _STRUCTURED.search(entry.answer) or len(entry.answer) > QUOTE_LONGER_THAN:
        return FallbackReason.LONG
    if _same_words(query, (entry.question, *entry.alternates)):
        return FallbackReason.SAME_QUESTION
    if set(_FIGURE.findall(query)) - set(_FIGURE.findall(entry.question)):
        return FallbackReason.FIGURES
    return None


def is_legal(entry: FaqEntry) -> bool:
    """Return whether staff tagged an entry as a text whose wording binds; never guessed."""
    return any(tag.strip().lower() == LEGAL for tag in entry.tags)


def quoted(
    entries: Sequence[FaqEntry],
    reason: FallbackReason | None = None,
    checks: tuple[str, ...] = (),
) -> Said:
    """Return the approved answer, as staff wrote it."""
    return Said(
        entries[0].answer,
        is_markdown=True,
        citations=cite(entries[:1]),
        reason=reason,
        checks=checks,
    )


def joined(said: Sequence[Said]) -> Said:
    """Return the answers to several questions as one, in their order."""
    approved = [s for s in said if s.tier is Tier.APPROVED]
    return Said(
        "\n\n".join(s.text for s in said),
        Tier.APPROVED if approved else Tier.GENERATED,
        is_markdown=bool(approved),
        citations=tuple(citation for s in said for citation in s.citations),
        reason=next((s.reason for s in said if s.reason is not None), None),
        checks=tuple(check for s in said for check in s.checks),
    )


def cite(entries: Sequence[FaqEntry]) -> tuple[Citation, ...]:
    """Return the citations of entries; the first one answers."""
    return tuple(Citation(e.id, e.question, e.source_url) for e in entries)


def clarify(question: Question, options: Sequence[Option], language: str) -> Said:
    """Return one question back: its options numbered, for those who type, and as buttons."""
    text = texts.text(question.knowledge_base, "clarify", language)
    shown = [f"{number}. {option.label}" for number, option in enumerate(options, start=1)]
    return Said("\n".join([text, *shown]), suggestions=tuple(o.label for o in options))


def system_text(question: Question, choice: Choice, intent: str, language: str) -> Said:
    """Return what is said where no entry answers: small talk, refusal, hand-over."""
    if question.holder is Holder.WAITING:
        return Said("")  # that a person comes was said already
    key = _key(choice, intent)
    return Said(texts.text(question.knowledge_base, key, language))


def _key(choice: Choice, intent: str) -> str:
    if choice.decision is Decision.REFUSE:
        return "refuse"
    if choice.decision is Decision.HAND_OFF:
        return "complaint_reply" if "complaint" in choice.why else "hand_off"
    if choice.why == "the message holds no text":
        return "unreadable"
    if choice.why == NOTHING_ASKED:
        return "noted"
    return {
        "thanks": "thanks_reply",
        "goodbye": "goodbye_reply",
        "feedback": "feedback_reply",
    }.get(intent, "greeting")


def related(
    passages: Sequence[Passage],
    chosen: Sequence[FaqEntry],
    entries: Sequence[FaqEntry],
    asked: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return questions that a customer may ask next: other good passages, then the same topic."""
    best = chosen[0]
    taken = {entry.id for entry in chosen}
    closest = [p.entry for p in passages if p.entry.id not in taken and _is_near(p.entry, best)]
    kin = [e for e in entries if e.id not in taken and _is_near(e, best)]
    questions = (e.question for e in [*closest, *kin] if e.locale == best.locale)
    before = {fold(a).strip(" ?？.") for a in asked}
    fresh = [q for q in dict.fromkeys(questions) if fold(q).strip(" ?？.") not in before]
    return tuple(fresh[:SUGGESTIONS])


def _is_near(entry: FaqEntry, other: FaqEntry) -> bool:
    same_entity = entry.entity is not None and entry.entity == other.entity
    return same_entity or bool(set(entry.tags) & set(other.tags))


def _same_words(query: str, known: Sequence[str]) -> bool:
    def bare(text: str) -> str:
        return re.sub(r"\W+", " ", fold(text)).strip()

    return bare(query) in {bare(text) for text in known}


def _latest(history: Sequence[Utterance]) -> Sequence[Utterance]:
    return history[-4:]
