"""Making a follow-up stand alone: candidates by rules, of which retrieval's scores choose."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
_POINTER_ZH = re.compile(
    r"它们|它家|它|这个|那个|这款|那款|这家|那家|这间|那间|这些|那些|这种|那种"
    r"|それ|これ|あれ|(?:その|この|あの)(?=[\u30a0-\u9fff])"
)
_NAME_ZH = re.compile(
    r"[《「『“\"]([^》」』”\"]{2,30})[》」』”\"]|([A-Za-z][\w'-]*(?: [A-Z\d][\w'-]*)*)"
)
"""What is certainly a name in a text without spaces: in quotes, or in Latin letters."""
_LEAD_JA = re.compile(r"^(?:じゃあ|じゃ|では|それでは|それと|あと|ちなみに)[、,]?")
_HAN = re.compile("[\u3400-\u9fff]")


RECENCY = 0.4
"""What a phrase counts less with each message since."""
BEGINNING = 1.0
"""What a conversation began with is its topic, however long ago that was."""
NAME_WEIGHT = 2.0
"""A name is likelier meant by a pronoun than a common noun."""
WORD_WEIGHT = 0.4
"""A single small word is often no noun at all: "How was it received?"."""
PHRASE_WORDS = 4
ADDED = 2
ADDED_TO_NAMED = 0
"""How many phrases a message takes on that names nothing, and one that does."""

_FUNCTION_WORDS = frozenset({
    "a", "about", "affect", "after", "again", "against", "all", "also", "am", "an", "and",
    "another", "any", "anything", "are", "aren't", "article", "as", "aspects", "at", "bad",
    "be", "became", "because", "become", "been", "before", "being", "best", "better",
    "between", "big", "both", "but", "by", "call", "called", "came", "can", "cause", "causes",
    "come", "compare", "could", "d", "day", "days", "describe", "did", "didn't", "difference",
    "different", "do", "does", "doesn't", "doing", "don", "don't", "done", "down", "during",
    "each", "else", "end", "ended", "ever", "everything", "explain", "few", "find", "first",
    "for", "found", "from", "gave", "get", "give", "go", "going", "gone", "good", "got", "had",
    "happen", "happened", "happens", "has", "have", "having", "he", "hello", "help", "her",
    "here", "hers", "hi", "him", "his", "how", "i", "if", "important", "in", "interesting",
    "into", "is", "isn't", "it", "its", "just", "kind", "kinds", "know", "large", "last",
    "like", "little", "ll", "long", "lot", "lots", "m", "made", "main", "make", "many", "may",
    "me", "mean", "means", "might", "mine", "more", "most", "much", "must", "my", "name",
    "names", "need", "new", "next", "no", "nor", "not", "nothing", "of", "off", "ok", "okay",
    "old", "on", "one", "ones", "only", "or", "other", "others", "our", "out", "over", "own",
    "part", "people", "person", "please", "re", "s", "said", "same", "saw", "say", "says",
    "see", "shall", "she", "should", "show", "since", "small", "so", "some", "something",
    "sort", "start", "started", "still", "such", "t", "take", "tell", "than", "thanks", "that",
    "the", "their", "theirs", "them", "then", "there", "these", "they", "thing", "things",
    "think", "this", "those", "through", "time", "times", "to", "too", "took", "type", "types",
    "until", "up", "us", "use", "used", "ve", "very", "want", "wanted", "was", "wasn't", "way",
    "ways", "we", "well", "went", "were", "what", "when", "where", "which", "while", "who",
    "whom", "whose", "why", "will", "with", "work", "works", "worst", "would", "year", "years",
    "yes", "you", "your",
})  # fmt: skip
_WORDS = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*|[.,;:!?()\"“”]")
_PERSONAL = re.compile(r"\b(?:he|she|they|it|him|them)\b", re.IGNORECASE)
_POSSESSIVE = re.compile(r"\b(?:his|her|their|its)\b", re.IGNORECASE)
_QUESTION = re.compile(
    r"^(?:how|what|when|where|which|who|why|is|are|do|does|did|can|could|will|would|should|may)\b"
    r"(?!\s+about\b)(?=.*\w+\s+\w+)|\b(?:it|they|them)\b|它",
    re.IGNORECASE,
)
"""A clause that asks by itself, or points to something by a pronoun."""
_PERSON = re.compile(r"\b(?:he|she|him|his|her|hers)\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_OWNER = re.compile(r"['’]s?$")
_ENDS = frozenset('.!?:"“(')
_CONNECTORS = frozenset({"of", "the", "and", "de", "von", "van", "la"})


@dataclass(frozen=True)
class Context:
    """What is being talked about.

    Attributes:
        question: The customer's last question that was answered; empty at the beginning.
        entity: The product or place of the entry that the last answer rests on.
        topic: That entry's own question.
        said: What was said before, by anybody, oldest first; of it a pronoun is resolved that
            points to nothing in the base.
    """

    question: str = ""
    entity: str = ""
    topic: str = ""
    said: tuple[str, ...] = ()


def is_chinese(text: str) -> bool:
    """Return whether a text holds Han characters."""
    return bool(_HAN.search(text))


def leans(message: str) -> bool:
    """Return whether a message may need what was said before to be understood."""
    if _HAN.search(message):
        stripped = message.strip()
        return bool(
            _LEAD_ZH.search(stripped)
            or _LEAD_JA.search(stripped)
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
        stripped = message.strip(" ？?")
        return bool(
            _LEAD_ZH.search(stripped) or _LEAD_JA.search(stripped) or stripped.endswith("呢")
        )
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
    if not context.entity:
        readings.append(standalone(message, context.said))
    fresh = _fresh_part(message)
    # "and how big is it?" only begins like "and for Germany?": it is a question of its own.
    continues = must_lean(message) and not _QUESTION.search(fresh)
    if context.entity and not continues and not _names(message, context.entity):
        readings.append(_with_entity(fresh, context.entity))
        if _QUESTION.search(fresh):  # whole now; the earlier question would only lead back to it
            return readings
    for asked in dict.fromkeys(filter(None, (context.question, context.topic))):
        if continues and (exchanged := _substituted(asked, fresh, context.entity)):
            readings.append(exchanged)
        readings.append(f"{asked} {fresh}")
    return list(dict.fromkeys(r for r in readings if r.strip()))[:MOST_READINGS]


def standalone(message: str, said: Sequence[str]) -> str:
    """Return a message as a question that can be understood without what went before it.

    By rules alone: a pronoun gives way to the phrase that was named last and most, and what the
    conversation began with is added where the message names nothing of it.

    Source: adding the words of earlier turns that matter, rather than writing the question anew,
    does nearly as well for retrieval: Voskarides et al., Query Resolution for Conversational
    Search with Limited Supervision (SIGIR 2020).

    Args:
        message: What the customer says.
        said: What was said before, by anybody, oldest first.
    """
    if not said:
        return message
    if _HAN.search(message):
        return _standalone_zh(message, said)
    phrases = _salient(said)
    open_phrases = [phrase for phrase in phrases if not _names(message, phrase.text)]
    if not open_phrases:
        return message
    people = [p for p in open_phrases if p.is_name and not _DIGIT.search(p.text)]
    main = people[0] if people and _PERSON.search(message) else open_phrases[0]
    text, owned = _POSSESSIVE.subn(lambda _: f"{main.text}'s", message, count=1)
    if not owned:
        text, _ = _PERSONAL.subn(lambda _: main.text, text, count=1)
    own = [p for p in _phrases(message) if p.is_name or " " in p.text]
    added = ADDED_TO_NAMED if own else ADDED
    extra = [p.text for p in open_phrases[:added] if not _names(text, p.text)]
    return " ".join([text, *extra])


def _standalone_zh(message: str, said: Sequence[str]) -> str:
    """Return a Chinese or Japanese message with its pronoun exchanged for the name said last.

    Only what is certainly a name is taken: a phrase has no visible end in these languages. Names
    that the base knows are put in by `candidates`.
    """
    if not _POINTER_ZH.search(message) or _NAME_ZH.search(message):
        return message
    names = [quoted or latin for text in said for quoted, latin in _NAME_ZH.findall(text)]
    return _POINTER_ZH.sub(lambda _: names[-1], message, count=1) if names else message


@dataclass(frozen=True)
class _Phrase:
    """A noun phrase; `is_name` where it is written with capitals."""

    text: str
    is_name: bool


def _salient(said: Sequence[str]) -> list[_Phrase]:
    """Return the phrases of a conversation, the likeliest to be meant first."""
    weights: dict[str, float] = {}
    shown: dict[str, _Phrase] = {}
    for age, text in enumerate(reversed(said)):
        worth = RECENCY**age + (BEGINNING if age == len(said) - 1 else 0.0)
        for phrase in _phrases(text):
            key = phrase.text.casefold()
            shown.setdefault(key, phrase)
            words = len(phrase.text.split())
            form = NAME_WEIGHT if phrase.is_name else 1.0 if words > 1 else WORD_WEIGHT
            weights[key] = weights.get(key, 0.0) + worth * form
    return [shown[key] for key in sorted(weights, key=lambda key: -weights[key])]


def _phrases(text: str) -> list[_Phrase]:
    """Return the noun phrases of a text, by rule: runs of words that are no function words.

    Names end where capitals end: "Zappa broke up" names Zappa.
    """
    found: list[_Phrase] = []
    run: list[str] = []
    is_name = False

    def close() -> None:
        while run and run[-1].casefold() in _CONNECTORS:
            run.pop()
        if run:
            found.append(_Phrase(" ".join(run[-PHRASE_WORDS:]), is_name))
        run.clear()

    before = "."
    for word in _WORDS.findall(text):
        plain = _OWNER.sub("", word)
        capital = plain[:1].isupper() or plain[:1].isdigit()
        begins = before in _ENDS
        holds = plain[:1].isalnum() and plain.casefold() not in _FUNCTION_WORDS
        if is_name and run and word.casefold() in _CONNECTORS:
            run.append(word)
        elif not holds:
            close()
        else:
            if run and capital != is_name and not (len(run) == 1 and capital):
                close()
            is_name = capital and (bool(run) or not begins or _is_proper(plain, text))
            run.append(plain)
        before = word
    close()
    return found


def _is_proper(word: str, text: str) -> bool:
    """Return whether a word that begins a sentence is a name: a text of few words is a title."""
    return len(text.split()) <= PHRASE_WORDS or f" {word}" in text


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
        fresh = _TAIL_ZH.sub("", _LEAD_JA.sub("", _LEAD_ZH.sub("", message.strip())))
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
