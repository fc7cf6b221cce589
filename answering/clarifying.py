"""Asking back: what tells competing entries apart, and which of them a customer then means; pure.

Nothing is searched for a second time: the options are few, and what the customer says next is a
button's label, a number, or words of which some belong to one option alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from answering.politeness import question_part
from core.dialogue import Clarification, Option
from core.types import FaqEntry, Passage
from retrieval.lexical import fold, tokens

MOST_OPTIONS = 3
SAME_QUESTION_FROM = 0.5
"""From this share of common words on, two questions ask the same about different things."""
FREE_WORDS = 6
"""A longer message is a new question rather than the name of an option."""
COVERED_FROM = 0.6
"""So much of a free answer must be found in the option that it names."""
LEANING_FROM = 0.25
LEAD = 4.0
"""So much likelier than all others the option is that an answer leans to, with this chance."""
LIKE_FROM = 0.8
"""A word spelt so alike is the same word with a slip in it."""

BEGINNING = 5
"""Words that begin with so many same letters are kin: "German" and "Germany"."""

_SAYS_NOTHING = frozenset(
    [
        "one",
        "ones",
        "mean",
        "meant",
        "option",
        "yes",
        "no",
        "want",
        "like",
        "question",
        "second",
        "first",
        "other",
        "rather",
        "ok",
    ]
)
_EDGE = re.compile(r"^[\s\W_]+|[\s\W_]+$")
_CUT_OFF = "…"
"""Channels shorten long labels; some send the shortened one back."""
_DIGIT = (
    r"(?:(?:option|number|no\.?|nr\.?|nummer|num[ée]ro|n[úu]mero|选项?|第)\s*)?[#(（]?"
    r"(?P<digit>[1-9])[.)）]?\s*(?:号|个|番目?|つ目|st|nd|rd|th|er|re|e|º|ª)?(?:\s+one)?"
)
_ORDINALS: Mapping[int, str] = {
    1: "first|one|former|erste[rns]?|premi[èe]re?|primer[oa]?|uno|一|最初",
    2: "second|two|zweite[rns]?|deuxi[èe]me|seconde?|segund[oa]|dos|二|两|兩",
    3: "third|three|dritte[rns]?|troisi[èe]me|tercer[oa]?|tres|三",
    4: "fourth|four|vierte[rns]?|quatri[èe]me|cuart[oa]|cuatro|四",
    -1: "last|latter|letzte[rns]?|derni[èe]re?|[úu]ltim[oa]|最后一?|最後",
}
_AROUND_HEAD = (
    r"(?:(?:i\s+mean|i\s+meant|i'?d\s+like|it'?s|that'?s|yes|ja|oui|s[íi]|ok(?:ay)?|option|number|"
    r"ich\s+meine|我?(?:是|选|要|说的是|指的是)|第)[\s,]*)*(?:the|that|das|die|der|le|la|el|l')?\s*"
)
_AROUND_TAIL = (
    r"\s*(?:one|option|question|choice|个|號|号|項|项|番目?|つ目)?"
    r"(?:\s*(?:please|bitte|吧|的|です))?"
)
_NEITHER = re.compile(
    r"(?:no[\s,]+)?(?:neither|none|not\s+(?:any|either|one))"
    r"(?:\s+(?:of\s+)?(?:these|those|them|the\s+two|both|one))?|no|nope|something\s+else|"
    r"(?:keine?[rs]?|nichts)(?:\s+(?:von|davon)(?:\s+\w+)?)?|weder\s+noch|nein|"
    r"non|aucune?(?:\s+des\s+\w+)?|ni\s+l'un\s+ni\s+l'autre|ningun[oa](?:\s+de\s+\w+)?|"
    r"(?:这?两个|这些|都)*不是(?:这个|这些)?|都不对|没有|不|"
    r"(?:どちら|どれ)でも(?:ない|ありません)(?:です)?|違います|いいえ"
)
_BOTH = re.compile(
    r"(?:(?:i\s+mean|i'?d\s+like)\s+)?(?:both|all)"
    r"(?:\s+(?:of\s+)?(?:them|these|those|two|three))?|"
    r"beides?|alle|(?:tous\s+)?les\s+deux|ambos|ambas|"
    r"(?:两个|这些|全部)?都(?:要|想知道|是|问)?|全部|両方|どちらも"
)


@dataclass(frozen=True)
class Meant:
    """What a message says about an open question back.

    Attributes:
        entry_ids: The entries that are meant; more than one for "both".
        neither: The customer means none of them, and says no more than that.
    """

    entry_ids: tuple[str, ...] = ()
    neither: bool = False


def options_of(entries: Sequence[FaqEntry]) -> tuple[Option, ...]:
    """Return what tells competing entries apart: the entity, else a tag, else the question.

    An entity or a tag is enough only where the questions say the same but for it; alone it would
    leave open what about it is meant.
    """
    shown = list(entries[:MOST_OPTIONS])
    labels = _by_entity(shown) or _by_tag(shown) or [entry.question for entry in shown]
    return tuple(Option(e.id, label) for e, label in zip(shown, labels, strict=True))


def meant(message: str, asked: Clarification, entries: Mapping[str, FaqEntry]) -> Meant | None:
    """Return which option a message names; None where it is something else altogether.

    Args:
        message: What the customer says after the question back.
        asked: The question back.
        entries: What stands in the base now; an option whose entry is gone cannot be meant.
    """
    there = [option for option in asked.options if option.entry_id in entries]
    plain = _plain(message)
    if not plain:
        return None
    for option in there:
        if _is_label(plain, option, entries[option.entry_id]):
            return Meant((option.entry_id,))
    if (number := _number(plain, len(asked.options))) is not None:
        chosen = asked.options[number - 1 : number]  # empty for a number that was not offered
        return Meant((chosen[0].entry_id,)) if chosen and chosen[0] in there else None
    short = _plain(question_part(message)) or plain
    if any(_NEITHER.fullmatch(words) for words in (plain, short)):
        return Meant(neither=True)
    if there and any(_BOTH.fullmatch(words) for words in (plain, short)):
        return Meant(tuple(option.entry_id for option in there))
    named = _by_words(short, [entries[option.entry_id] for option in there], there)
    return Meant((named,)) if named else None


def leaning(message: str, asked: Clarification, passages: Sequence[Passage]) -> str | None:
    """Return the id of the option that a short answer most likely means: "the French one".

    Args:
        message: What the customer says after the question back; `meant` found nothing in it.
        asked: The question back.
        passages: What the message finds together with the question that was asked, best first.
    """
    if len(tokens(message)) > FREE_WORDS:
        return None
    offered = {option.entry_id for option in asked.options}
    if not passages or passages[0].entry.id not in offered:
        return None
    rival = max((p.confidence for p in passages[1:]), default=0.0)
    best = passages[0].confidence
    return passages[0].entry.id if best >= max(LEANING_FROM, LEAD * rival) else None


def _plain(text: str) -> str:
    return _EDGE.sub("", " ".join(fold(text.removesuffix(_CUT_OFF)).split()))


def _is_label(plain: str, option: Option, entry: FaqEntry) -> bool:
    known = [_plain(words) for words in (option.label, entry.question, entry.entity or "")]
    # A button's label may have been cut; so short a beginning could be a word of its own.
    return plain in known or any(len(plain) > 20 and words.startswith(plain) for words in known)


def _number(plain: str, count: int) -> int | None:
    """Return the number that a message is, from 1; of so many options the last one is `count`."""
    if found := re.fullmatch(rf"{_AROUND_HEAD}{_DIGIT}{_AROUND_TAIL}", plain):
        return int(found["digit"])
    for place, words in _ORDINALS.items():
        if re.fullmatch(rf"{_AROUND_HEAD}(?:{words}){_AROUND_TAIL}", plain):
            return count if place < 0 else place
    return None


def _by_words(said: str, entries: Sequence[FaqEntry], options: Sequence[Option]) -> str:
    """Return the id of the one entry that the words of a short message belong to."""
    asked = [token for token in dict.fromkeys(tokens(said)) if token not in _SAYS_NOTHING]
    if not 0 < len(asked) <= FREE_WORDS:
        return ""
    named = [_words(entry, option) for entry, option in zip(entries, options, strict=True)]
    # What an option is called decides before what its answer says.
    whole = [words | set(tokens(e.answer)) for words, e in zip(named, entries, strict=True)]
    return _owner(asked, entries, named) or _owner(asked, entries, whole)


def _owner(asked: Sequence[str], entries: Sequence[FaqEntry], held: Sequence[set[str]]) -> str:
    best, most, rival = "", 0.0, 0.0
    for number, words in enumerate(held):
        others = set[str]().union(*(h for i, h in enumerate(held) if i != number))
        covered = [token for token in asked if _holds(words, token)]
        own = [token for token in covered if not _holds(others, token)]
        worth = len(own) if len(covered) / len(asked) >= COVERED_FROM else 0.0
        if worth > most:
            best, most, rival = entries[number].id, worth, most
        else:
            rival = max(rival, worth)
    return best if most > rival else ""


def _words(entry: FaqEntry, option: Option) -> set[str]:
    texts = (option.label, entry.question, *entry.alternates, entry.entity or "", *entry.tags)
    return {token for text in texts for token in tokens(text)}


def _holds(words: set[str], token: str) -> bool:
    if token in words:
        return True
    if len(token) < 4:
        return False
    kin = any(word.startswith(token[:BEGINNING]) for word in words if len(token) >= BEGINNING)
    return kin or bool(get_close_matches(token, words, n=1, cutoff=LIKE_FROM))


def _by_entity(entries: Sequence[FaqEntry]) -> list[str] | None:
    names = [entry.entity or "" for entry in entries]
    if not all(names) or len({fold(name) for name in names}) < len(names):
        return None
    return names if _ask_the_same(entries) else None


def _by_tag(entries: Sequence[FaqEntry]) -> list[str] | None:
    labels: list[str] = []
    for entry in entries:
        others = {fold(tag) for other in entries if other is not entry for tag in other.tags}
        own = [tag for tag in entry.tags if fold(tag) not in others]
        if not own:
            return None
        labels.append(own[0])
    return labels if _ask_the_same(entries) else None


def _ask_the_same(entries: Sequence[FaqEntry]) -> bool:
    """Return whether all questions are alike but for what they are about."""
    asked = [set(tokens(entry.question)) - set(tokens(entry.entity or "")) for entry in entries]
    first = asked[0]
    return all(_share(first, other) >= SAME_QUESTION_FROM for other in asked[1:])


def _share(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
