"""Making a follow-up stand alone: candidates by rules, of which retrieval's scores choose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrieval.lexical import tokens

ELLIPTIC_WORDS = 4
"""A question with at most so many words of its own may lean on what went before."""

MOST_READINGS = 5
"""More would cost more time in the encoder than they find."""

_LEAD = re.compile(
    r"^\W*(?:(?:ok(?:ay)?|alright|great|thanks|thank you|sure|right|good)\W+)?"
    r"(?:and|but|or|so|also|then|what about|how about|same for|what if|what's with)\b(?:\s+"
    r"(?:what about|how about|if|also|then))?\W*",
    re.IGNORECASE,
)
_POINTER = re.compile(
    r"\b(?:it|its|it's|they|them|their|this one|that one|these|those|the one|this|that|there|"
    r"(?:the\s+)?(?:other|same|\w+)\s+ones?)\b",
    re.IGNORECASE,
)
_ENTITY_POINTER = re.compile(
    r"\b(?:it's|it is|it|they|them|this one|that one|these|those|this|that)\b", re.IGNORECASE
)
_SLOT = re.compile(
    r"\b(?P<preposition>to|in|for|from|with|at|of|on)\s+(?P<filler>(?:the\s+|an?\s+)?"
    r"(?:[A-Z][\w-]*|\d[\w-]*)(?:(?:\s+|,\s*|\s+(?:and|or)\s+)(?:[A-Z][\w-]*|\d[\w-]*))*)"
)
_SLOT_ZH = re.compile(
    r"(?:送到|寄到|寄去|发到|送去|到|在|去)(?P<filler>[\u4e00-\u9fff]{2,5}?)(?=要|的|多|吗|几|需|运|能|可|有|？|$)"
)
_PREPOSITION = re.compile(r"^(?:to|in|for|from|with|at|of|on)\s+", re.IGNORECASE)
_ELIDED = re.compile(r"\s+ones?$", re.IGNORECASE)
_NAME = re.compile(r"(?<!^)(?<![.!?]\s)\b[A-Z][\w-]+\b")
_LEAD_ZH = re.compile(r"^(?:那么|那|还有|另外|如果是|如果|换成|要是)+")
_TAIL_ZH = re.compile(r"(?:呢|的呢|怎么样)?[？?。!！]*$")
_POINTER_ZH = re.compile(r"它们|它|这个|那个|这款|那款|这些|那些|这种|那种")
_HAN = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True)
class Context:
    """What is being talked about.

    Attributes:
        question: The customer's last question that was answered; empty at the beginning.
        entity: The product or place of the entry that the last answer rests on.
        topic: That entry's own question.
    """

    question: str = ""
    entity: str = ""
    topic: str = ""


def is_chinese(text: str) -> bool:
    """Return whether a text holds Han characters."""
    return bool(_HAN.search(text))


def leans(message: str) -> bool:
    """Return whether a message may need what was said before to be understood."""
    if _HAN.search(message):
        stripped = message.strip()
        return bool(
            _LEAD_ZH.search(stripped)
            or _POINTER_ZH.search(stripped)
            or stripped.rstrip("？?").endswith("呢")
            or len(tokens(message)) <= 2
        )
    return bool(
        _LEAD.search(message) or _POINTER.search(message) or len(tokens(message)) < ELLIPTIC_WORDS
    )


def must_lean(message: str) -> bool:
    """Return whether a message says by its form that it continues what was said before."""
    if _HAN.search(message):
        return bool(_LEAD_ZH.search(message.strip()) or message.strip(" ？?").endswith("呢"))
    return bool(_LEAD.search(message)) and len(tokens(message)) <= ELLIPTIC_WORDS + 1


def points_back(message: str, context: Context) -> bool:
    """Return whether a message speaks of a known thing by a pronoun: "do you make it in red?"."""
    pointer = _POINTER_ZH if is_chinese(message) else _ENTITY_POINTER
    named = bool(context.entity) and not _names(message, context.entity)
    return named and bool(pointer.search(message))


def candidates(message: str, context: Context) -> list[str]:
    """Return ways to read a message, as it stands first; more than one only for a follow-up."""
    readings = [message]
    if not leans(message) or not (context.question or context.topic or context.entity):
        return readings
    continues = must_lean(message)
    if context.entity and not continues and not _names(message, context.entity):
        readings.append(_with_entity(message, context.entity))
    fresh = _fresh_part(message)
    for asked in dict.fromkeys(filter(None, (context.question, context.topic))):
        if continues and (exchanged := _substituted(asked, fresh, context.entity)):
            readings.append(exchanged)
        readings.append(f"{asked} {fresh}")
    return list(dict.fromkeys(r for r in readings if r.strip()))[:MOST_READINGS]


def new_words(message: str, context: Context) -> list[str]:
    """Return the tokens that a follow-up adds: an entry that holds them is the likelier one."""
    before = set(tokens(f"{context.question} {context.topic} {context.entity}"))
    return [token for token in dict.fromkeys(tokens(_fresh_part(message))) if token not in before]


def _names(message: str, entity: str) -> bool:
    return bool(set(tokens(message)) & set(tokens(entity)))


def _with_entity(message: str, entity: str) -> str:
    replaced, count = _ENTITY_POINTER.subn(entity, message, count=1)
    if count:
        return replaced
    replaced, count = _POINTER_ZH.subn(entity, message, count=1)
    if count:
        return replaced
    return f"{entity} {_fresh_part(message)}"


def _fresh_part(message: str) -> str:
    """Return what a follow-up adds, without the words that only tie it on."""
    if _HAN.search(message):
        fresh = _TAIL_ZH.sub("", _LEAD_ZH.sub("", message.strip()))
    else:
        fresh = _LEAD.sub("", message).strip(" ?!.")
    return fresh or message


def _substituted(asked: str, fresh: str, entity: str) -> str | None:
    """Return the earlier question with its name exchanged for the new one.

    "How much is shipping to France?" + "Germany" is "How much is shipping to Germany?"; left as
    it is, the old name would lead back to the old entry.
    """
    filler = _PREPOSITION.sub("", fresh)
    if len(tokens(filler)) > 3:
        return None
    if entity and _names(asked, entity):
        # With its noun: "the Heron backpack" + "the cast iron one" is no backpack any more.
        # In a question in small letters nothing shows where the name ends.
        noun = r"(?:\s+[a-z]+)?" if entity in asked and filler.endswith(("one", "ones")) else ""
        pattern = re.compile(rf"(?:the\s+)?{re.escape(entity)}{noun}", re.IGNORECASE)
        replaced, count = pattern.subn(lambda _: _ELIDED.sub("", filler), asked, count=1)
        if count:
            return replaced
    for slot in (_SLOT, _SLOT_ZH):
        if match := slot.search(asked):
            return f"{asked[: match.start('filler')]}{filler}{asked[match.end('filler') :]}"
    names = _NAME.findall(asked)
    if names and _is_name(filler):
        return asked.replace(names[-1], filler, 1)
    return None


def _is_name(filler: str) -> bool:
    """Return whether a filler can stand for a name; customers do not always write capitals."""
    capital = re.match(r"(?:the\s+)?[A-Z\d\u3400-\u9fff]", filler)
    return bool(capital) or (len(filler.split()) == 1 and filler.islower())
