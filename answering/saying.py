"""Wording a choice: the model's reply after its check, the approved answer, or a system text."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from answering import grounding, prompting
from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from core import texts
from core.deciding import NOTHING_ASKED
from core.dialogue import Option
from core.errors import DeskhandError
from core.types import (
    Author,
    Choice,
    Citation,
    Decision,
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

Generate = Callable[[Prompt, float], Awaitable[Generated]]
"""Asks the engine for a reply within so many seconds."""


@dataclass(frozen=True)
class Said:
    """The words of a reply and how they came about."""

    text: str
    tier: Tier = Tier.APPROVED
    is_markdown: bool = False
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()
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
    question: Question, query: str, choice: Choice, words: Words, generate: Generate | None
) -> Said:
    """Return the answer from the chosen entries."""
    entries = [passage.entry for passage in choice.passages]
    if generate is None:
        return quoted(entries, ("quoted: no model is loaded",))
    if (reason := quote_because(question, query, entries[0], words)) is not None:
        return quoted(entries, (reason,))
    said = [u.text for u in question.history if u.author is Author.CUSTOMER]
    message = "\n".join(question.messages)
    prompt = prompting.build(message, entries, _latest(question.history), words.language)
    try:
        written = await generate(prompt, question.seconds_left - SECONDS_TO_SPARE)
    except DeskhandError as error:
        return quoted(entries, (f"quoted: {error}",))
    if written.finish is Finish.ERROR:
        return quoted(entries, (f"quoted: the model failed ({written.error})",))
    checked = grounding.check(
        written.text,
        entries,
        [*said, message],
        language=words.language,
        finished=written.finish is Finish.STOP,
    )
    if not checked.text:
        return quoted(entries, tuple(f"check: {f}" for f in checked.failures))
    return Said(
        checked.text,
        Tier.GENERATED,
        citations=cite(entries),
        checks=tuple(f"dropped a sentence: {f}" for f in checked.failures),
    )


def quote_because(question: Question, query: str, entry: FaqEntry, words: Words) -> str | None:
    """Return why the approved answer is quoted, None where a reply is to be generated."""
    style = entry.style or question.knowledge_base.style or words.style
    if style is ReplyStyle.VERBATIM:
        return "quoted: the style is verbatim"
    language = entry.locale.split("-")[0].lower()
    if words.language not in words.speaks or language not in words.speaks:
        return "quoted: the model does not speak this language"
    if question.seconds_left - SECONDS_TO_SPARE < words.seconds_a_reply:
        return "quoted: the deadline leaves no time"
    if question.waiting > BUSY_TURNS:
        return "quoted: many turns wait"
    if style is ReplyStyle.GENERATED:
        return None
    if _STRUCTURED.search(entry.answer) or len(entry.answer) > QUOTE_LONGER_THAN:
        return "quoted: the answer is a list or long"
    if _same_words(query, (entry.question, *entry.alternates)):
        return "quoted: the question is the entry's own"
    if set(_FIGURE.findall(query)) - set(_FIGURE.findall(entry.question)):
        return "quoted: the customer's own figures may decide it"
    return None


def quoted(entries: Sequence[FaqEntry], checks: tuple[str, ...] = ()) -> Said:
    """Return the approved answer, as staff wrote it."""
    return Said(entries[0].answer, is_markdown=True, citations=cite(entries[:1]), checks=checks)


def joined(said: Sequence[Said]) -> Said:
    """Return the answers to several questions as one, in their order."""
    approved = [s for s in said if s.tier is Tier.APPROVED]
    return Said(
        "\n\n".join(s.text for s in said),
        Tier.APPROVED if approved else Tier.GENERATED,
        is_markdown=bool(approved),
        citations=tuple(citation for s in said for citation in s.citations),
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
