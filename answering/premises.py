"""What a message takes for granted: "since shipping is free, …" where the entry says otherwise.

A small model tends to agree with its customer. Where what is taken for granted is not what the
entry says, the approved answer is quoted, which puts it right. Pure.

Source: the idea of checking a question's presupposition against the evidence before answering is
that of Kim et al., (QA)^2, ACL 2023; here words, numbers and negation decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from answering.grounding import facts, split_sentences
from answering.prompting import plain
from core.types import FaqEntry
from retrieval.lexical import tokens

_END = (
    r"(?=[,;?!]|[.](?!\d)|\s+(?:so|then|but)\b"
    r"|\s+(?:and )?(?:can|could|will|would|may|do|does|should) (?:i|you|we|my|it)\b"
    r"|\s+(?:how|where|when|what|which) (?:do|can|is|are|does|long|much|will)\b|$)"
)
_STATED = re.compile(
    r"(?:^|[,;.!?]\s*|\b(?:and|but|so|hi|hello|hey),? )"
    r"(?:since|because|as|given(?: that)?|seeing (?:that|as)|now that|considering(?: that)?|"
    r"knowing that|assuming(?: that)?|"
    r"(?:i|we) (?:(?:have |'ve )?(?:know|read|heard|hear|see|saw|seen|understand|understood|"
    r"learned|noticed|assume|believe)|was told|were told)(?: that)?|"
    r"(?:you|your (?:site|website|faq|page|colleague|shop|bot)|the (?:site|website|faq|page)) "
    r"(?:said|say|says|told me|wrote|write|writes|promised?)(?: that)?)\s+"
    rf"(?P<premise>(?:[^,;.?!]|[.,]\d)+?){_END}",
    re.IGNORECASE,
)
_OF_THEMSELVES = re.compile(
    r"^(?:i'm|i am|i was|i've|i have (?:been|a|an|my|already|no)|i (?!can\b|may\b|get\b|have\b|"
    r"need\b|must\b|pay\b|don't\b|cannot\b|can't\b)|we're|we are|we (?!can\b|may\b|get\b|have\b)|"
    r"my\b|our\b|he\b|she\b|his\b|her\b|it broke|it is broken|the \w+ (?:broke|is broken)|"
    r"of\b|soon\b|well\b|far\b|usual\b|always\b|long\b|much\b|you (?:can see|know)\b)",
    re.IGNORECASE,
)
"""What customers say of themselves, which no entry knows; and "as soon as", "because of"."""
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nothing|nobody|neither|nor|without|cannot|closed|excluded|unable|"
    r"impossible|only|unless|except)\b|n't\b",
    re.IGNORECASE,
)
_OF_THE_SHOP = re.compile(r"^(?:you|your)\b", re.IGNORECASE)
_YES_NO = re.compile(r"^\W*(?:yes|no|only)\b", re.IGNORECASE)
_MEASURED = re.compile(r"(?<![\d:.,])(\d+(?:[.,]\d+)*)[\s-]*([a-z]{3,}?)s?\b", re.IGNORECASE)
_LITTLE = (
    "have get take offer send ship deliver go fine ok okay possible allowed also still always now "
    "already use available safe give need want make come cost"
)
_SAYS_LITTLE = frozenset(tokens(_LITTLE))
"""Words by which a premise is not told from its entry: "students get" is "discounts for"."""


@dataclass(frozen=True)
class Premise:
    """What a message takes for granted and its entries do not say.

    Attributes:
        text: In the customer's words.
        why: What is wrong with it, in the words of the trace.
    """

    text: str
    why: str


def stated(message: str) -> list[str]:
    """Return what a message takes for granted about the shop, not about the customer."""
    said = (match["premise"].strip() for match in _STATED.finditer(message.replace("’", "'")))
    return [text for text in said if len(text.split()) > 1 and not _OF_THEMSELVES.match(text)]


def contradicted(message: str, entries: Sequence[FaqEntry]) -> Premise | None:
    """Return the first premise of a message that its entries do not bear out.

    One that shares no word with the entries is about something else and left alone.

    Args:
        message: What the customer said.
        entries: What the reply would rest on.
    """
    for text in stated(message):
        if entries and (why := _objection(text, entries)) is not None:
            return Premise(text, why)
    return None


def _objection(premise: str, entries: Sequence[FaqEntry]) -> str | None:
    """Return what speaks against a premise, None where an entry bears it out."""
    answers = "\n".join(plain(entry.answer) for entry in entries)
    topic = {t for e in entries for t in tokens(f"{e.question} {e.entity or ''}")}
    known = topic | set(tokens(answers))
    words = set(tokens(_NEGATION.sub(" ", premise)))
    if not words & known and not _OF_THE_SHOP.match(premise):
        return None
    wrong = facts(premise) - facts(answers)
    wrong |= {m.group() for m in _MEASURED.finditer(premise) if not _measures(m, answers)}
    if wrong:
        return f"the entry does not say {', '.join(sorted(wrong))}"
    telling = words - _SAYS_LITTLE or words
    if missing := telling - known:
        return f"the entry does not speak of {', '.join(sorted(missing))}"
    best = _nearest(telling, topic, split_sentences(answers))
    if bool(_NEGATION.search(best)) is not bool(_NEGATION.search(premise)):
        return "the entry says the opposite"
    if telling - topic - set(tokens(best)):
        return "the entry does not say it in one sentence"
    return None


def _measures(measure: re.Match[str], text: str) -> bool:
    """Return whether a text gives a number the same unit: 3 weeks are no 3 days."""
    number, unit = re.escape(measure[1]), re.escape(measure[2])
    given = rf"\b{number}\b(?:\s*(?:-|to|or|and)\s*\d+)?[\s-]*(?:\w+\s+)?{unit}"
    return bool(re.search(given, text, re.IGNORECASE)) or not re.search(
        rf"\b{number}[\s-]*[a-z]{{3,}}", text, re.IGNORECASE
    )


def _nearest(words: set[str], topic: set[str], sentences: Sequence[str]) -> str:
    """Return the sentence that speaks most of these words, of those that the question lacks most.

    Where all are the question's own, a yes or no at the answer's beginning speaks of them.
    """
    if words <= topic and sentences and _YES_NO.search(sentences[0]):
        return sentences[0]

    def shared(number: int) -> float:
        both = words & set(tokens(sentences[number]))
        first = 0.5 if number == 0 else 0.0  # it is the one that answers the question
        return len(both & topic) + 3 * len(both - topic) + first

    return sentences[max(range(len(sentences)), key=shared)] if sentences else ""
