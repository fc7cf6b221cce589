"""The check before a generated reply is sent: each sentence against the passages it cites."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from answering.languages import same_language
from answering.prompting import plain
from core.types import FaqEntry
from retrieval.lexical import fold, tokens

SUPPORTED_FROM = 0.75
"""Share of a sentence's content words that must stand in the passages or the question.

Token precision against the passage follows human faithfulness ratings and needs no model:
Adlakha et al., TACL 2024. At 0.75 no invention of the untuned model was let through in trials.
"""
OWN_COVERS = 0.6
"""Share of a failed sentence's content words from which an entry's own sentence replaces it."""
LONGER_THAN_SOURCES = 1.3
"""A reply with more words than its sources has added something."""

_SENTENCE = re.compile(
    r"(?<=[.!?。！？])(?<!\b[A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)\s+(?=[\"'(*\[]?[A-Z0-9])|\n+"
)
_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>()\[\]]+|\b[\w.-]+\.(?:com|org|net|example|shop|io|co|eu|de|nl)(?:/[^\s<>()\[\]]*)?\b",
    re.I,
)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_CODE = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9]+(?:-[A-Za-z0-9]*)*\b")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"\b[A-Z][a-zA-Z'\u00c0-\u024f-]+")
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
_HARD_WORDS = (
    "half free monday tuesday wednesday thursday friday saturday sunday january february march "
    "april june july august september october november december daily weekly monthly always "
    "anytime unlimited guaranteed instantly immediately"
)
_NUMBER_WORDS = (
    {word: str(number) for number, word in enumerate(_COUNTED.split())}
    | {word: word for word in _HARD_WORDS.split()}
    | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"}
    | {"hundred": "100", "thousand": "1000", "twice": "2", "once": "1"}
)
"""Words that are facts as hard as figures; "one" does not count, being mostly a pronoun."""
_UNITS = re.compile(
    r"\b(hour|day|business day|working day|week|month|year|minute|second|kilo|gram|litre|liter|"
    r"centimetre|metre|euro|pound|dollar|percent|piece)s?\b|[€$£%¥]",
    re.I,
)
NEGATION = re.compile(
    r"\b(?:no|not|never|none|nothing|nobody|neither|nor|without|cannot|can't|won't|don't|doesn't|"
    r"didn't|isn't|aren't|wasn't|couldn't|shouldn't|mustn't|unable|unavailable|unfortunately|"
    r"excluded|except|only|prohibited|forbidden|impossible)\b|n't\b",
    re.I,
)
_NO = re.compile(r"^\W*(?:no\b|sorry,? no\b|unfortunately\b|i'm sorry\b|not\b)", re.I)
_YES = re.compile(r"^\W*(?:yes\b|yeah\b|yep\b|sure\b|of course\b|certainly\b|absolutely\b)", re.I)
_POLAR = re.compile(
    r"(?:^|[,.;:!?]\s*|\b(?:and|or|so|but|then|hi|hello|hey|please|what if|if|whether|too|also)\s+)"
    r"(?:i'm |i am |just |ok |oh )?"
    r"(?:can|could|do|does|did|is|are|was|were|will|would|may|might|must|should|"
    r"shall|have|has|am|any|isn't|aren't|don't|doesn't|can't|won't)\b|\b(?:right|ok(?:ay)?|"
    r"possible|allowed|too|either|correct|true|fine|same|doable|free)\s*\?|^(?:and|or|what about|"
    r"how about|so)\b",
    re.I,
)
"""A question that a yes or a no can answer, by its beginning or its end."""
_PROMISE = re.compile(
    r"\b(?:i|we)(?:'ll| will| have| 've|'ve| am| are|'m|'re|'d| would)?\s+(?:now |just |already |"
    r"gladly |happily |going to |be )?(?:(?:happy|glad|able) to )?(?:cancel|sen[dt]|refund|book|"
    r"order(?:ed)?|process|check|look(?:ed)? into|forward|contact|call|email|updat|chang|arrang|"
    r"escalat|connect|transfer|pass|notif|remov|creat|schedul|reserv|confirm|issu|help|assist|"
    r"let you know|get back|make sure|ensure)\w*\b|\blet me\b|\bplease wait\b|\bmy colleague\b",
    re.I,
)
_OFFER = re.compile(
    r"^(?:would you like|do you (?:want|need)|can i |may i |is there anything|anything else|"
    r"shall i|should i|how (?:can|may) i|let me know|feel free|i hope|please let|thank)",
    re.I,
)
_ROLE = re.compile(
    r"\b(?:sources?|passages?|instructions?|as an ai|language model|customer:|assistant:)", re.I
)
_JOINED_ON = re.compile(r",\s+(?:and|but|while)\s+", re.IGNORECASE)
ADMITS = re.compile(r"^I have no information (?:about|on) (?P<topic>[^.;]+)\.?$")
"""What the reply model is taught to say where no source answers a part; it claims nothing."""
_ASKED_KINDS = {
    "how long": (
        re.compile(
            r"\bhow (?:long|soon|fast|quick(?:ly)?|many (?:hours|days|weeks|months))\b", re.I
        ),
        re.compile(r"\b(?:hours?|days?|weeks?|months?|minutes?|years?)\b", re.I),
    ),
    "how much": (
        re.compile(r"\b(?:how much|what (?:does|do|will|would) .{0,40}\bcosts?|price of)\b", re.I),
        re.compile(r"[€$£¥%]|\b(?:free|euros?|dollars?|pounds?|GBP|EUR|USD|percent)\b", re.I),
    ),
}
"""What a question wants to know, and how an answer tells it: "how many days?" is not answered by
what it costs, however true that is."""
_WAY = re.compile(r"\b(?:how|where|what (?:do|should|can) (?:i|we)|who|contact|send)\b", re.I)
_COMPLETE = re.compile(r"[.!?。！？:)\]\"'*_`]\s*$")
# fmt: off
_FILLERS = frozenset({
    "yes", "no", "not", "also", "however", "therefore", "sorry", "unfortunately", "please",
    "you", "your", "we", "our", "it", "its", "they", "there", "here", "so", "then", "such",
    "long", "need", "want", "like", "able", "possible", "via", "within", "during", "per",
    "each", "every", "all", "both", "only", "one", "first", "after", "before", "until", "if",
    "unless", "when", "while", "but", "than", "more", "most", "least", "less", "much", "many",
    "very", "too", "offer", "have", "take", "get", "use", "make", "come", "be", "can", "do",
    "go", "give", "find", "see", "say", "cost",
})
# fmt: on
_FILLER_TOKENS = frozenset(t for word in _FILLERS for t in tokens(word))


class Label(StrEnum):
    """What a sentence is by its passages."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Judgement:
    """What the verifier says of a sentence; the chance of support is in [0, 1]."""

    label: Label
    support: float


@dataclass(frozen=True)
class Checked:
    """What is left of a generated reply.

    Attributes:
        text: The supported sentences; empty where the approved answer must be sent instead.
        failures: Which check failed, in the words of the trace.
    """

    text: str
    failures: tuple[str, ...] = ()


def check(
    reply: str,
    entries: Sequence[FaqEntry],
    said: Sequence[str],
    *,
    language: str,
    finished: bool = True,
    verdicts: Mapping[str, Judgement] | None = None,
) -> Checked:
    """Return a reply without what its passages do not support.

    Args:
        reply: What the model wrote.
        entries: The cited entries, the one that answers first.
        said: The customer's own words in this conversation, the latest last.
        language: The language in which the customer writes.
        finished: False where the model was cut off in the middle.
        verdicts: What the verifier says of the sentences, by their text; what stands literally in
            an entry needs none. Without a verifier the exact checks decide alone.
    """
    sentences = split_sentences(reply)
    if not finished or (sentences and not _COMPLETE.search(sentences[-1])):
        sentences = sentences[:-1]
    if not sentences:
        return Checked("", ("nothing complete was written",))
    if not same_language(reply, language):
        return Checked("", ("written in another language",))
    source = Source.of(entries, said)
    if (flip := _polarity(sentences, entries, said)) is not None:
        return Checked("", (flip,))
    if (missed := _passes_over(sentences, entries, said)) is not None:
        return Checked("", (missed,))
    kept: list[str] = []
    failures: list[str] = []
    for number, sentence in enumerate(sentences):
        failure = unsupported(sentence, source) or refuted((verdicts or {}).get(sentence))
        if failure is None:
            kept.append(sentence)
            continue
        failures.append(failure)
        if number and (own := _own_sentence(sentence, source)) and own not in " ".join(kept):
            told = _content(own)
            kept = [said_before for said_before in kept if not _content(said_before) <= told]
            kept.append(own)  # said as staff wrote it; what it holds is not said twice
        if number == 0 and not failure.startswith("offers"):
            return Checked("", tuple(failures))  # the rest would hang in the air
    text = " ".join(kept)
    if not _says_something(text, source):
        return Checked("", (*failures, "nothing of the entry is left"))
    if entries and leaves_out_the_way(text, entries[0]) and _WAY.search(said[-1] if said else ""):
        return Checked("", (*failures, "leaves out where to go"))
    told = " ".join(sentence for sentence in kept if not ADMITS.match(sentence))
    if len(told.split()) > LONGER_THAN_SOURCES * max(source.words, 12):
        return Checked("", (*failures, "longer than its sources"))
    return Checked(text, tuple(failures))


def refuted(verdict: Judgement | None) -> str | None:
    """Return why a sentence must not be said by the verifier, None where it may."""
    if verdict is None or verdict.label is Label.SUPPORTED:
        return None
    if verdict.label is Label.CONTRADICTED:
        return "contradicted by the entry"
    return "not supported by the entry"


@dataclass(frozen=True)
class Source:
    """What a reply may say: the words and facts of its passages and of the customer."""

    tokens: frozenset[str]
    answer_tokens: frozenset[str]
    facts: frozenset[str]
    folded: str
    names: str
    words: int
    sentences: tuple[tuple[frozenset[str], bool], ...]
    own: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[FaqEntry], said: Sequence[str]) -> Source:
        """Return the source that entries and a customer's words make."""
        answers = [plain(entry.answer) for entry in entries]
        questions = [entry.question for entry in entries] + [e.entity or "" for e in entries]
        everything = "\n".join([*answers, *questions, *said])
        return cls(
            tokens=frozenset(tokens(everything)),
            answer_tokens=frozenset(tokens("\n".join(answers))),
            facts=frozenset(facts("\n".join([*answers, *questions]))) | frozenset(_codes(said)),
            folded=fold(everything),
            names=fold("\n".join([*answers, *questions, *said[-1:]])),
            words=len(" ".join(answers).split()),
            sentences=tuple(
                (frozenset(tokens(s)), bool(NEGATION.search(s)))
                for answer in answers
                for s in split_sentences(answer)
            ),
            own=tuple(s for answer in answers for s in split_sentences(answer)),
        )


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, list items apart."""
    return [part.strip() for part in _SENTENCE.split(text.strip()) if part.strip()]


def facts(text: str) -> set[str]:
    """Return what must not be invented: numbers, links, addresses, codes, weekdays, amounts."""
    found: set[str] = set()
    rest = text
    for pattern in (_MAIL, _URL):
        found |= {match.rstrip(".,;:!?").lower() for match in pattern.findall(rest)}
        rest = pattern.sub(" ", rest)
    found |= {_plain_number(n) for n in _NUMBER.findall(rest)}
    found |= {code.lower() for code in _CODE.findall(rest)}
    found |= {_NUMBER_WORDS[w] for w in re.findall(r"[a-z]+", rest.lower()) if w in _NUMBER_WORDS}
    return found - {"1", "0"}


def unsupported(sentence: str, source: Source) -> str | None:
    """Return why a sentence must not be said, None where its source supports it."""
    if _OFFER.search(sentence):
        return "offers what no entry says"
    if (admits := ADMITS.match(sentence)) is not None:
        topic = [t for t in tokens(admits["topic"]) if t not in _FILLER_TOKENS]
        if topic and all(_is_or_akin(t, source.answer_tokens) for t in topic):
            return "admits not to know what an entry says"
        strange = [t for t in topic if t not in source.tokens]
        return "admits not to know what nobody asked" if strange else None
    if _PROMISE.search(sentence) and not _stands_in(_PROMISE, sentence, source):
        return "promises an action"
    if _ROLE.search(sentence):
        return "speaks of its instructions"
    invented = {f for f in facts(sentence) if f not in source.facts and f not in source.folded}
    invented |= {f for f in facts(sentence) if f.isdigit() and f not in source.facts}
    if invented:
        return f"not in the entry: {', '.join(sorted(invented))}"
    if _stutters(sentence):
        return "says a figure twice"
    if (unit := _wrong_unit(sentence, source)) is not None:
        return f"not in the entry: {unit}"
    names = [n for n in _NAME.findall(sentence)[0:] if not _begins_with(sentence, n)]
    if unknown := [n for n in names if fold(n) not in source.names and n.lower() != "i"]:
        return f"not in the entry: {', '.join(unknown)}"
    words = [t for t in tokens(sentence) if t not in _FILLER_TOKENS]
    held = sum(t in source.tokens or _akin(t, source.tokens) for t in words)
    if words and held < SUPPORTED_FROM * len(words):
        return f"only {held} of {len(words)} words are the entry's"
    if _guesses_a_part(sentence, source):
        return "answers a part of the question that no entry answers"
    return _turned_round(sentence, source)


def _guesses_a_part(sentence: str, source: Source) -> bool:
    """Return whether a clause that is joined on holds nothing of an entry.

    "Pets are welcome, and it has a gym": the customer asked for both, the entry knows of pets.
    """
    for clause in _JOINED_ON.split(sentence)[1:]:
        words = [t for t in tokens(clause) if t not in _FILLER_TOKENS]
        if words and not any(_is_or_akin(t, source.answer_tokens) for t in words):
            return True
    return False


def _is_or_akin(token: str, known: frozenset[str]) -> bool:
    return token in known or _akin(token, known)


def _own_sentence(sentence: str, source: Source) -> str | None:
    """Return the entry's own sentence on what a failed one was about, None where none covers it."""
    if _OFFER.search(sentence) or _PROMISE.search(sentence) or _ROLE.search(sentence):
        return None
    words = {t for t in tokens(sentence) if t not in _FILLER_TOKENS}
    if not words or not source.own:
        return None
    best = max(source.own, key=lambda own: len(words & set(tokens(own))))
    return best if len(words & set(tokens(best))) >= OWN_COVERS * len(words) else None


def _turned_round(sentence: str, source: Source) -> str | None:
    """Return a failure where a sentence negates what its source affirms, or the other way."""
    if not source.sentences or len(source.sentences) > 40:
        return None
    words = frozenset(tokens(sentence))
    best = max(source.sentences, key=lambda s: len(words & s[0]) / (len(words | s[0]) or 1))
    overlap = len(words & best[0])
    negated = bool(NEGATION.search(sentence))
    if negated and not any(negative for _, negative in source.sentences):
        return "says no where the entry does not"
    if overlap >= 3 and best[1] and not negated and overlap >= 0.6 * len(words):
        return "drops the entry's no"
    return None


def _polarity(
    sentences: Sequence[str], entries: Sequence[FaqEntry], said: Sequence[str]
) -> str | None:
    """Return a failure where the reply begins with a yes or no that the entry does not give.

    The entry's yes or no answers the entry's question: of several, the one that the first clause
    is about. Where the customer's question is turned round ("do I have to ...", "is it forbidden
    ..."), nobody but a person can tell: approved text.
    """
    if not entries:
        return None
    opening = sentences[0]
    says_yes, says_no = bool(_YES.search(opening)), bool(_NO.search(opening))
    entry = _meant(opening, entries)
    answer = plain(entry.answer)
    first = (split_sentences(answer) or [""])[0]
    is_yes, is_no = bool(_YES.search(first)), bool(_NO.search(first))
    negative = is_no or (not is_yes and bool(NEGATION.search(first)))
    asked = said[-1] if said else ""
    if (says_yes or says_no) and not _POLAR.search(asked):
        return "yes or no to what asks for neither"
    if (says_yes or says_no) and NEGATION.search(asked) and not NEGATION.search(entry.question):
        return "yes or no to a question that is turned round"
    if (says_yes or says_no) and _takes_back(opening, asked, says_no=says_no):
        return "says yes and no at once"
    if says_yes and _evades(" ".join(sentences), answer, asked):
        return "says yes and leaves out what was asked for"
    if says_yes and negative:
        return "says yes where the entry says no"
    if says_no and is_yes:
        return "says no where the entry says yes"
    if says_no and not is_no and not _denies(opening, answer):
        return "says no where the entry does not"
    if is_no and not says_no and not NEGATION.search(opening):
        return "leaves out the entry's no"
    return _crossed(opening, entries)


def _meant(opening: str, entries: Sequence[FaqEntry]) -> FaqEntry:
    """Return the entry that a sentence's first clause is about; in doubt the first one."""
    words = _content(_JOINED_ON.split(opening)[0])

    def shared(entry: FaqEntry) -> int:
        return len(words & set(tokens(f"{entry.question} {plain(entry.answer)}")))

    return max(entries, key=shared)


def _crossed(opening: str, entries: Sequence[FaqEntry]) -> str | None:
    """Return a failure where a clause that is joined on turns its own entry round.

    "No, there is no pool, and pets are welcome" of an entry by which pets are not.
    """
    for clause in _JOINED_ON.split(opening)[1:]:
        words = _content(clause)
        own = [s for e in entries for s in split_sentences(plain(e.answer))]
        best = max(own, key=lambda s: len(words & set(tokens(s))), default="")
        if len(words & set(tokens(best))) * 2 < len(words):
            continue
        if bool(NEGATION.search(best)) is not bool(NEGATION.search(clause)):
            return "turns round what a second entry says"
    return None


def _content(text: str) -> set[str]:
    return {token for token in tokens(text) if token not in _FILLER_TOKENS}


def _passes_over(
    sentences: Sequence[str], entries: Sequence[FaqEntry], said: Sequence[str]
) -> str | None:
    """Return a failure where a reply is silent on a day, number or name that was asked for.

    A plain yes or no needs none: "do you deliver on Sundays?", "No, only on Saturdays."
    """
    if not said or _YES.search(sentences[0]) or _NO.search(sentences[0]):
        return None
    answers = "\n".join(plain(entry.answer) for entry in entries)
    reply = " ".join(sentences)
    for kind, (asks, tells) in _ASKED_KINDS.items():
        if asks.search(said[-1]) and tells.search(answers) and not tells.search(reply):
            return f"passes over what was asked: {kind}"
    known = facts(answers)
    names = {
        fold(name)
        for sentence in split_sentences(answers)
        for name in _NAME.findall(sentence)
        if not _begins_with(sentence, name)
    }
    wanted = {name for name in names if re.search(rf"\b{re.escape(name)}\b", fold(said[-1]))}
    given = {name for name in names if name in fold(" ".join(sentences))}
    if wanted and given and not wanted & given:
        return f"speaks of another than was asked: {', '.join(sorted(given))}"
    asked = {f for f in facts(said[-1]) & known if f.isdigit() or f.endswith("day")}
    if passed := asked - facts(" ".join(sentences)):
        return f"passes over what was asked: {', '.join(sorted(passed))}"
    return None


def _takes_back(opening: str, asked: str, *, says_no: bool) -> bool:
    """Return whether a yes or no is followed by its opposite: "No, you can pay with Bitcoin".

    Only what repeats the customer's question can take it back: "No, you can order as a guest" adds
    something to a question about an account.
    """
    rest = opening.partition(",")[2] or opening.partition(" ")[2]
    words = {token for token in tokens(rest) if token not in _FILLER_TOKENS}
    return (
        bool(words) and words <= set(tokens(asked)) and bool(NEGATION.search(rest)) is not says_no
    )


def _evades(reply: str, answer: str, asked: str) -> bool:
    """Return whether a reply lacks a word of the question that the entry's answer has.

    "Yes, it comes in 500 ml" says nothing of the blue that was asked for and that the answer names.
    Of 123 right replies with a yes in the training pairs 36 would fall back to the approved text.
    """
    wanted = {token for token in tokens(asked) if token not in _FILLER_TOKENS}
    return bool(wanted & set(tokens(answer)) - set(tokens(reply)))


def _denies(opening: str, answer: str) -> bool:
    """Return whether a sentence of the answer denies what the opening's first clause denies."""
    words = _content(_JOINED_ON.split(opening)[0])
    denied = [set(tokens(s)) for s in split_sentences(answer) if NEGATION.search(s)]
    return bool(words) and any(len(words & d) >= 0.7 * len(words) for d in denied)


def leaves_out_the_way(text: str, entry: FaqEntry) -> bool:
    """Return whether a reply names none of the places to which an entry sends the customer.

    Links, addresses, codes and what is set in bold are what the customer needs to act.
    """
    answer = entry.answer
    ways = {*_MAIL.findall(answer), *re.findall(r"\*\*([^*]+)\*\*|`([^`]+)`", answer)}
    named = {part for way in ways for part in ([way] if isinstance(way, str) else way) if part}
    named |= set(_URL.findall(answer))
    said = fold(text)
    return bool(named) and not any(_bare_link(fold(way)) in said for way in named)


def _bare_link(link: str) -> str:
    return re.sub(r"^(?:mailto:|https?://)?(?:www\.)?", "", link).rstrip(".,/")


def _stutters(sentence: str) -> bool:
    """Return whether a sentence says one figure with its unit twice."""
    figures = re.findall(r"\d[\d.,:]*\s?[a-z%€$£]+|[€$£]\d[\d.,]*", sentence.lower())
    return len(figures) != len(set(figures))


def _says_something(text: str, source: Source) -> bool:
    words = set(tokens(text))
    bare = bool(_YES.search(text) or _NO.search(text))
    return len(words & source.answer_tokens) >= (1 if bare else 2)


def _wrong_unit(sentence: str, source: Source) -> str | None:
    """Return a number with a unit that its source does not give it (5 weeks for 5 days)."""
    for match in re.finditer(r"(\d+(?:[.,]\d+)*)[\s-]*([a-z%€$£]+)", sentence.lower()):
        number, unit = match.group(1), match.group(2)
        if not _UNITS.fullmatch(unit):
            continue
        stem = unit.rstrip("s")
        after = (
            re.escape(number) + r"(?:\s*(?:-|to|or|and|–)\s*\d+(?:[.,]\d+)*)?[\s-]*(?:\w+\s+){0,2}"
        )
        if not re.search(after + re.escape(stem), source.folded):
            return match.group(0)
    return None


def _codes(said: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for text in said:
        found |= facts(text)
    return found


def _plain_number(number: str) -> str:
    """Return a number without trailing zeros and thousands' separators: 20.00 is 20."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        number = number.replace(",", "")
    number = number.replace(",", ".")
    return re.sub(r"\.0+$", "", number)


def _stands_in(pattern: re.Pattern[str], sentence: str, source: Source) -> bool:
    match = pattern.search(sentence)
    return match is not None and fold(match.group()) in source.folded


def _begins_with(sentence: str, name: str) -> bool:
    """Return whether a capital is only that of the sentence's beginning."""
    start = sentence.find(name)
    before = sentence[:start].rstrip(" \"'(*_")
    return not before or (
        before[-1] in ".!?:,;" and _YES.search(sentence) is not None and start < 8
    )


def _akin(token: str, known: frozenset[str]) -> bool:
    """Return whether a token is another form of a known word: deliveri, deliver."""
    return len(token) >= 5 and any(k[:5] == token[:5] for k in known if len(k) >= 5)
