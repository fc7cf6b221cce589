"""Examples of grounded replies: read, cleaned of what their sources do not support, prepared."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from core.types import Author, Utterance

DISTRACTED = 0.4
"""The share of examples that get a second source which does not answer."""
REPLIES_PER_ENTRY = 3
"""More replies to one entry teach its words, not the task."""
SUPPORTED_PRECISION = 0.7
"""The share of a reply's content words that must stand in its source, question or entity.

Token precision follows people's judgement of faithfulness and needs no model.
Source: Adlakha et al., TACL 2024.
"""

_POLAR = re.compile(
    r"^(?:hello[.!,]?\s+|hi[.!,]?\s+)?"
    r"(?:is|are|do|does|did|can|could|may|will|would|should|has|have|am|was|were)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|none|never|neither|nor|without|cannot|unavailable|unable|prohibited|forbidden"
    r"|lacks?|non)\b|n[’']t\b",
    re.IGNORECASE,
)
_YES = re.compile(r"^(?:yes|yep|yeah|sure|absolutely|of course|certainly)\b", re.IGNORECASE)
_NO = re.compile(r"^(?:no|nope|unfortunately|sorry)\b", re.IGNORECASE)
_CHARGE = re.compile(r"\b(?:charge|cost|fee|pay|price)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CLOSING = re.compile(
    r"anything else|any ?(?:more|other|further)? ?questions?|let me know|glad (?:i|to)|thank"
    r"|good ?bye|hope (?:that|this)|have a (?:good|nice|great)|enjoy your|feel free|assist you"
    r"|help you|(?:sound|work)s? (?:good|great|all ?right|for you)|don't hesitate|happy to"
    r"|no (?:worries|problem)|^(?:ok(?:ay)?|great|sure)[.!]?$|is that all|^(?:would|should|shall|do"
    r"|does|can|could|may|is|are|will|what|how|did|have|which) ",
    re.IGNORECASE,
)
_RUN_ON = re.compile(
    r"[,;]?\s+(?:and |so |but )?(?:would you|should i|shall i|do you|can i|could i|may i|is that|"
    r"is there|will that|will there|will you|anything else|any other|what else|does (?:that|this|"
    r"it)|are you|how about|did you|have i)\b[^.!?]*[.?!/]*$",
    re.IGNORECASE,
)
_PROMISE = re.compile(
    r"\b(?:i|we)(?:['’](?:ll|d|m|ve)| (?:will|can|could|would|am|have|see|think|believe|found|"
    r"checked))\b|\blet me\b|\bit says\b|\bwebsite\b",
    re.IGNORECASE,
)
# fmt: off
_COMMON = frozenset({
    "a", "an", "the", "is", "are", "was", "were", "be", "been", "being", "do", "does", "did",
    "has", "have", "had", "will", "would", "can", "could", "may", "might", "should", "shall",
    "to", "of", "in", "on", "at", "for", "from", "by", "with", "and", "or", "but", "if", "as",
    "so", "that", "this", "these", "those", "there", "here", "it", "its", "they", "their",
    "them", "he", "she", "his", "her", "you", "your", "yours", "we", "our", "us", "i", "my",
    "me", "am", "which", "who", "whom", "what", "when", "where", "how", "any", "some", "all",
    "also", "just", "only", "very", "yes", "no", "not", "unfortunately", "sorry", "please",
    "however", "than", "then", "too", "both", "each", "there's", "it's", "they're", "you're",
    "don't", "doesn't", "isn't", "aren't", "can't", "cannot", "won't", "n't", "about", "into",
    "onto", "out", "up", "off", "over", "under", "while", "during",
})
# fmt: on
# fmt: off
_FRAME = frozenset({
    "available", "avail", "offer", "provide", "allow", "permit", "accept", "currently",
    "current", "time", "need", "use", "hotel", "restaurant", "train", "guest", "customer",
    "locate", "place", "property", "get", "take", "able", "option", "service", "there",
    "welcome", "establishment", "location", "bring",
})
# fmt: on
"""Words that carry a sentence and claim nothing about the shop by themselves."""


@dataclass(frozen=True)
class QuestionAnswer:
    """A source of a reply."""

    question: str
    answer: str


@dataclass(frozen=True)
class ReplyExample:
    """What a customer said, the sources, and the reply to learn.

    Attributes:
        turns: Oldest first; the last is the customer's.
        entry_id: Where the reply comes from, for splits that share no entry.
    """

    turns: tuple[Utterance, ...]
    sources: tuple[QuestionAnswer, ...]
    reply: str
    entry_id: str = ""

    @property
    def message(self) -> str:
        """What the customer said last."""
        return self.turns[-1].text

    @property
    def history(self) -> tuple[Utterance, ...]:
        """What was said before."""
        return self.turns[:-1]


@dataclass
class Cleaning:
    """How many replies were read, kept, and left out for which reason."""

    read: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])

    def lines(self) -> list[str]:
        """Return the counts as lines to print."""
        reasons = (f"  {count:6d} {reason}" for reason, count in self.left_out.most_common())
        left_out = "left out:" if self.left_out else "none left out"
        return [f"{self.read} replies read, {self.kept} kept; {left_out}", *reasons]


def read_examples(path: Path) -> list[ReplyExample]:
    """Return the examples of a JSONL file: `{"turns", "passages", "reply", "decision"?}` a line.

    Raises:
        InvalidInput: The file cannot be read, or a line is not of this form; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="data") from error
    examples = [
        _example(line, f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return [example for example in examples if example is not None]


def without_inventions(examples: Sequence[ReplyExample], cleaning: Cleaning) -> list[ReplyExample]:
    """Return the examples whose numbers all stand in a source or in what was said.

    Own replies are written with care and reword more than the words' overlap would allow, so
    this alone is held against them.
    """
    kept = [example for example in examples if not numbers(example.reply) - _numbers_known(example)]
    cleaning.read += len(examples)
    cleaning.kept += len(kept)
    if len(kept) < len(examples):
        cleaning.left_out["a number that no source has"] += len(examples) - len(kept)
    return kept


def _numbers_known(example: ReplyExample) -> set[str]:
    told = [turn.text for turn in example.turns]
    sources = [f"{source.question} {source.answer}" for source in example.sources]
    return numbers(" ".join([*told, *sources]))


def _example(line: str, where: str) -> ReplyExample | None:
    """Return a line's example, None where it teaches another decision than to answer."""
    try:
        row: dict[str, Any] = json.loads(line)
        if row.get("decision", "answer") != "answer":
            return None
        turns = tuple(
            Utterance(Author.CUSTOMER if turn["speaker"] == "U" else Author.BOT, str(turn["text"]))
            for turn in row["turns"]
        )
        sources = tuple(
            QuestionAnswer(str(passage["question"]), str(passage["answer"]))
            for passage in row["passages"]
        )
        reply = str(row["reply"]).strip()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f'{where}: expected {{"turns": [{{"speaker", "text"}}], "passages": [{{"question", '
            f'"answer"}}], "reply"}}; {type(error).__name__}: {error}',
            field="data",
        ) from error
    if not turns or turns[-1].author is not Author.CUSTOMER or not reply:
        raise InvalidInput(f"{where}: the last turn must be the customer's (speaker U), "
                           "and the reply not empty", field="data")  # fmt: skip
    ids = [str(passage.get("id", "")) for passage in row["passages"]]
    return ReplyExample(turns, sources, reply, ids[0] if ids else "")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file.

    Raises:
        InvalidInput: The file is missing or not JSONL.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="dstc9") from error


def hold_out(
    examples: Sequence[ReplyExample], share: float, seed: int
) -> tuple[list[ReplyExample], list[ReplyExample]]:
    """Split examples into training and validation parts that share no first source."""
    entries = sorted({_entry_of(example) for example in examples})
    random.Random(seed).shuffle(entries)
    held = set(entries[: round(len(entries) * share)])
    training = [example for example in examples if _entry_of(example) not in held]
    return training, [example for example in examples if _entry_of(example) in held]


def _entry_of(example: ReplyExample) -> str:
    return example.entry_id or (example.sources[0].question if example.sources else "")


def dstc9_examples(
    folder: Path, part: str, cleaning: Cleaning, *, seed: int = 0
) -> list[ReplyExample]:
    """Return cleaned examples of grounded_dstc9_pairs, with paraphrases and distractors.

    Args:
        folder: Holds `kb.jsonl` and `<part>.jsonl`.
        part: `train`, or `val_unseen`, whose entries do not occur in `train`.
        cleaning: Is filled with the counts.
        seed: The same seed gives the same examples.
    """
    chance = random.Random(seed)
    rows = read_rows(folder / f"{part}.jsonl")
    chance.shuffle(rows)
    neighbours = _by_entity(read_rows(folder / "kb.jsonl"))
    counts: Counter[str] = Counter()
    examples: list[ReplyExample] = []
    for row in rows:
        reply = clean_reply(row, cleaning)
        if reply is None or counts[row["id"]] >= REPLIES_PER_ENTRY:
            continue
        counts[row["id"]] += 1
        examples.append(_dstc9_example(row, reply, neighbours, chance))
    return examples


def clean_reply(row: Mapping[str, Any], cleaning: Cleaning) -> str | None:
    """Return a row's reply without its closing question, None if its entry does not support it."""
    cleaning.read += 1
    reply = cut_closing(row["response"])
    if is_polar(row["faq_question"]):
        reply = polarity_first(reply, row["faq_answer"])
    known = " ".join([row["faq_question"], row["faq_answer"], row.get("entity") or ""])
    reason = unsupported(reply, row["faq_question"], row["faq_answer"], known)
    if reason:
        cleaning.left_out[reason] += 1
        return None
    cleaning.kept += 1
    return reply


def cut_closing(reply: str) -> str:
    """Return a reply without the closing question or courtesy that no entry supports."""
    sentences = [part for part in _SENTENCE.split(reply.strip()) if part]
    while len(sentences) > 1 and (sentences[-1].endswith("?") or _CLOSING.search(sentences[-1])):
        sentences.pop()
    text = _RUN_ON.sub("", " ".join(sentences)).strip(" ,;")
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def is_polar(question: str) -> bool:
    """Return whether a question asks for yes or no."""
    return bool(_POLAR.match(question.strip()))


def negates(text: str) -> bool:
    """Return whether a text says no to something."""
    return bool(_NEGATION.search(text))


def numbers(text: str) -> set[str]:
    """Return the numbers in a text, as they are written."""
    return set(_NUMBER.findall(text))


def polarity_first(reply: str, answer: str) -> str:
    """Return a reply to a yes/no question with its yes or no first, where it is beyond doubt."""
    if not reply or _YES.match(reply) or _NO.match(reply):
        return reply
    if negates(reply) != negates(answer) or len(_NEGATION.findall(answer)) > 1:
        return reply
    return f"{'No' if negates(reply) else 'Yes'}, {lower_first(reply, answer)}"


def lower_first(text: str, answer: str) -> str:
    """Return a text as it stands within a sentence: a name of the answer keeps its capital."""
    first = text.split()[0]
    within_sentence = re.search(rf"(?<=[a-z,] ){re.escape(first)}", answer)
    is_name = bool(within_sentence) or not first[1:].islower()
    prose = first.lower() in _COMMON or (first.lower() in answer.lower() and not is_name)
    return text[0].lower() + text[1:] if prose else text


def unsupported(reply: str, question: str, answer: str, known: str) -> str | None:
    """Return why a reply does not rest on its entry, None if it does."""
    if len(_WORD.findall(reply)) < 3:
        return "empty or too short"
    if _PROMISE.search(reply):
        return "speaks of what the bot does or saw"
    if reply.endswith("?"):
        return "is a question"
    if numbers(reply) - numbers(known):
        return "a number that the entry lacks"
    if _YES.match(reply) and not is_polar(question):
        return "says yes where no yes or no was asked"
    if _flips(reply, question, answer):
        return "says yes where the entry says no, or the reverse"
    if token_precision(reply, known) < SUPPORTED_PRECISION:
        return "words that the entry lacks"
    return None


def _flips(reply: str, question: str, answer: str) -> bool:
    if _YES.match(reply) and (_NO.match(answer) or negates(reply)):
        return True
    if _NO.match(reply) and _YES.match(answer):
        return True
    if _YES.match(reply) and _CHARGE.search(question) and re.search(r"\bfree\b", reply, re.I):
        return True  # "Is there a charge?" "Yes, it is free."
    if _YES.match(reply) and is_polar(question) and negates(answer) and not _YES.match(answer):
        return True
    return negates(reply) != negates(answer)


def stem(word: str) -> str:
    """Return a word without the endings that a paraphrase changes; crude on purpose."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def content_words(text: str) -> list[str]:
    """Return the stems of a text's words that carry meaning."""
    stems = (stem(word) for word in _WORD.findall(text) if word.lower() not in _COMMON)
    return [word for word in stems if word not in _FRAME]


def token_precision(reply: str, known: str) -> float:
    """Return the share of a reply's content words that stand in what is known, in [0, 1]."""
    words = content_words(reply)
    there = set(content_words(known))
    return sum(word in there for word in words) / len(words) if words else 1.0


def _by_entity(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group entries by domain and entity: their ids are `domain/entity/number`."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["id"].rsplit("/", 1)[0]].append(row)
    return groups


def _dstc9_example(
    row: Mapping[str, Any],
    reply: str,
    neighbours: Mapping[str, Sequence[Mapping[str, Any]]],
    chance: random.Random,
) -> ReplyExample:
    sources = [QuestionAnswer(row["faq_question"], row["faq_answer"])]
    others = [
        other
        for other in neighbours.get(row["id"].rsplit("/", 1)[0].removeprefix("train/*"), ())
        if other["question"] != row["faq_question"]
    ]
    if others and chance.random() < DISTRACTED:
        other = chance.choice(others)
        sources.append(QuestionAnswer(other["question"], other["answer"]))
        chance.shuffle(sources)
    said = paraphrase(row["faq_question"], chance)
    turns = [*_opening(row.get("entity"), chance), Utterance(Author.CUSTOMER, said)]
    return ReplyExample(tuple(turns), tuple(sources), reply, row["id"])


def _opening(entity: str | None, chance: random.Random) -> list[Utterance]:
    """Return an earlier exchange for some examples, since customers ask follow-ups."""
    if entity is None or chance.random() > 0.15:
        return []
    name = entity.title()
    asked = chance.choice(["Tell me about {}", "I'm interested in {}.", "do you know {}?"])
    return [
        Utterance(Author.CUSTOMER, asked.format(name)),
        Utterance(Author.BOT, f"What would you like to know about {name}?"),
    ]


def paraphrase(question: str, chance: random.Random) -> str:
    """Return a question as a customer may type it: greeted, indirect, or carelessly written."""
    text = question.strip()
    kind = chance.random()
    if kind < 0.3:
        return text
    lowered = text[0].lower() + text[1:]
    if kind < 0.5:
        opener = chance.choice(["Hi, ", "Hello! ", "Also, ", "One more thing: ", "OK thanks. "])
        text = opener + (text if opener[-2] in "!." else lowered)
    elif kind < 0.65 and is_polar(text):
        text = (
            chance.choice(["Can you tell me: ", "I'd like to know, ", "quick question, "]) + lowered
        )
    elif kind < 0.8:
        text = re.sub(r"^(?:do|does|is|are) (?:you|they|there|it)\b\s*", "", lowered)
        text = re.sub(r"^(?:have|offer|provide|any)\s+", "", text)
        return text or lowered
    if chance.random() < 0.5:
        text = text.lower().rstrip("?")
    return text
