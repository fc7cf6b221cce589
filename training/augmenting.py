"""More examples from few: typing noise, synonyms, swapped entities, and a model's own words.

Made examples keep the label of the one they come from and name it (`origin`), so that folds can
keep them on one side: a made example beside its origin in the test part would be a leak.
Source: Wei & Zou 2019 (EDA: synonyms, noise); Sennrich et al. 2016 (back-translation).
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from answering.generators.protocol import Finish, Generator
from answering.prompting import ChatMessage, Prompt
from core.errors import InvalidInput, TransientError
from core.faq_entries import normalised
from retrieval.rewriting import is_chinese
from training.noise import mistyped

SYNONYMS = Path(__file__).parent / "data" / "synonyms.json"
BY_RULE = ("typing", "synonyms", "entities")
BY_MODEL = ("paraphrase", "backtranslation")
KINDS = (*BY_RULE, *BY_MODEL)
"""What can be made; those by a model need one behind an OpenAI-compatible server."""

ROWS_LIMIT = 200_000
"""More made rows than this help no head and fill disks."""
TEXT_LIMIT_CHARACTERS = 500
TRIES = 12
SWAP_SHARE = 0.5
"""How many of a text's known phrases are replaced."""
PROMPTS_AT_ONCE = 32
NEW_TOKENS = 160
LONGEST = 3.0
"""A paraphrase that is so many times longer is an answer, or talk about the task."""
PIVOTS = {"en": "German"}


@dataclass(frozen=True)
class Example:
    """A labelled message.

    Attributes:
        origin: The number of the example that it was made of, from 0; its own where it is given.
        source: `given`, or how it was made.
    """

    text: str
    label: str
    locale: str
    origin: int
    source: str = "given"


Maker = Callable[[str, random.Random], str]


def augment(
    given: Sequence[Example],
    kinds: Sequence[str],
    *,
    per_example: int = 1,
    seed: int = 7,
    model: Generator | None = None,
    keep_out: Iterable[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> list[Example]:
    """Return examples made of the given ones; the same for the same input and seed.

    No text comes twice, none that was given, and none of `keep_out`.

    Args:
        given: Labelled messages, at least one.
        kinds: Of `KINDS`.
        per_example: How many are made of each example by each kind, at most.
        seed: Of chance.
        model: Writes paraphrases and translations.
        keep_out: Texts of test files; what is made must not be one of them.
        tell: Is told how far the model is.

    Raises:
        InvalidInput: A kind is unknown or needs a model, or too much would be made.
        TransientError: The model's server is away.
    """
    _check(given, kinds, per_example, model)
    taken = {normalised(text) for text in keep_out} | {normalised(e.text) for e in given}
    made: list[Example] = []

    def keep(example: Example, text: str, kind: str) -> bool:
        text = " ".join(text.split())
        key = normalised(text)  # another case or comma alone teaches nothing
        if not text or len(text) > TEXT_LIMIT_CHARACTERS or key in taken:
            return False
        taken.add(key)
        made.append(Example(text, example.label, example.locale, example.origin, kind))
        return True

    for kind in kinds:
        if kind in BY_RULE:
            _by_rule(given, kind, per_example, seed, keep)
        elif model is not None:
            _by_model(given, kind, per_example, model, keep, tell)
    return made


Keep = Callable[[Example, str, str], bool]


def _check(
    given: Sequence[Example], kinds: Sequence[str], per_example: int, model: Generator | None
) -> None:
    if not given:
        raise InvalidInput("There are no examples to make others of.", field="data")
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidInput(
                f"There is no kind {kind!r}; choose of {', '.join(KINDS)}.", field="kinds"
            )
        if kind in BY_MODEL and model is None:
            raise InvalidInput(
                f"{kind} needs a model behind an OpenAI-compatible server: give --model and --url, "
                "or set DESKHAND_REPLY_MODEL=openai:<model> and DESKHAND_REPLY_MODEL_URL.",
                field="model",
            )
    if (total := len(given) * len(kinds) * per_example) > ROWS_LIMIT:
        raise InvalidInput(
            f"Up to {total:,} rows would be made; {ROWS_LIMIT:,} are the most. Take fewer kinds, "
            "a smaller --per-example, or fewer examples.",
            field="per_example",
        )


def _by_rule(given: Sequence[Example], kind: str, per_example: int, seed: int, keep: Keep) -> None:
    for example in given:
        # by the text and not by its place: a row more in the file leaves the others as they were
        digest = hashlib.sha256(f"{seed}:{kind}:{example.text}".encode()).digest()
        rng = random.Random(int.from_bytes(digest[:8], "big"))
        found = 0
        for _ in range(TRIES * per_example):
            found += keep(example, MAKERS[kind](example.text, rng), kind)
            if found == per_example:
                break


# --- typing


_CONFUSED = ("的得地", "在再", "那哪", "做作", "账帐", "像象", "已以", "需须", "她他它", "到道")
"""Signs that input methods and people mistake for each other."""


def typed(text: str, rng: random.Random) -> str:
    """Return a text as somebody types it in a hurry; Chinese with signs of the same sound."""
    if not is_chinese(text):
        return mistyped(text, rng)
    places = [(i, group) for i, sign in enumerate(text) for group in _CONFUSED if sign in group]
    if places and rng.random() < 0.7:
        place, group = rng.choice(places)
        return text[:place] + rng.choice(group.replace(text[place], "")) + text[place + 1 :]
    text = text.rstrip("？?。.！!")
    place = rng.randrange(len(text)) if len(text) > 3 else 0
    return text[:place] + text[place] + text[place:] if len(text) > 3 else text


# --- synonyms


@cache
def _synonyms() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Return what each phrase can be said as, by language."""
    stored: dict[str, list[list[str]]] = json.loads(SYNONYMS.read_text(encoding="utf-8"))
    known: dict[str, dict[str, list[str]]] = {}
    for language, groups in stored.items():
        known[language] = {}
        for group in groups:
            for phrase in group:
                others = known[language].setdefault(phrase, [])
                others += [other for other in group if other != phrase]
    return known


@cache
def _phrases(language: str) -> re.Pattern[str]:
    longest_first = sorted(_synonyms()[language], key=len, reverse=True)
    inner = "|".join(map(re.escape, longest_first))
    return re.compile(inner if language == "zh" else rf"\b(?:{inner})\b", re.IGNORECASE)


def reworded(text: str, rng: random.Random) -> str:
    """Return a text with some of its phrases said in other words, in English and Chinese."""
    language = "zh" if is_chinese(text) else "en"
    known = _synonyms()[language]
    places = list(_phrases(language).finditer(text))
    if not places:
        return text
    count = max(1, round(SWAP_SHARE * len(places)))
    for place in sorted(rng.sample(places, count), key=lambda p: p.start(), reverse=True):
        said = place.group()
        other = rng.choice(known[said.lower()])
        other = other[0].upper() + other[1:] if said[0].isupper() else other
        text = text[: place.start()] + other + text[place.end() :]
    return text


# --- entities


_GROUPS: Mapping[str, Sequence[str]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January", "February", "April", "June", "July", "August", "September", "October",
        "November", "December",
    ),
    "name": (
        "Ann", "Anna", "Ben", "Carlos", "Chen", "Daniel", "Emma", "Fatima", "James", "John",
        "Julia", "Kofi", "Laura", "Lena", "Maria", "Mary", "Mohammed", "Noah", "Olga", "Paul",
        "Peter", "Priya", "Sarah", "Sofia", "Thomas", "Yuki",
    ),
    "country": (
        "Australia", "Austria", "Belgium", "Brazil", "Canada", "China", "Denmark", "France",
        "Germany", "India", "Ireland", "Italy", "Japan", "Mexico", "Norway", "Poland", "Portugal",
        "Spain", "Sweden", "Switzerland", "Turkey",
    ),
    "city": (
        "Amsterdam", "Berlin", "Boston", "Chicago", "Dublin", "Hamburg", "London", "Madrid",
        "Milan", "Munich", "Oslo", "Paris", "Rome", "Seattle", "Sydney", "Tokyo", "Vienna",
    ),
    "currency": ("EUR", "USD", "GBP", "AUD", "CHF", "CAD", "SEK"),
    "money": ("euros", "dollars", "pounds"),
    "sign": ("€", "$", "£"),
    "colour": ("black", "blue", "brown", "green", "grey", "orange", "red", "white", "yellow"),
    "place": ("德国", "法国", "日本", "美国", "英国", "意大利", "加拿大", "澳大利亚"),
    "town": ("北京", "上海", "广州", "深圳", "杭州", "成都", "南京", "武汉", "西安"),
    "weekday": ("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
    "shade": ("黑色", "蓝色", "绿色", "红色", "白色", "黄色", "灰色"),
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,:/-])\d{1,6}(?:[.,]\d{1,2})?(?![\w:/-])")


@cache
def _entities() -> tuple[re.Pattern[str], Mapping[str, str]]:
    group_of = {word.casefold(): name for name, group in _GROUPS.items() for word in group}
    plain = [re.escape(word) for word in group_of if word.isascii() and word.isalpha()]
    others = [re.escape(word) for word in group_of if not (word.isascii() and word.isalpha())]
    pattern = re.compile(rf"\b(?:{'|'.join(plain)})\b|{'|'.join(others)}", re.IGNORECASE)
    return pattern, group_of


def swapped(text: str, rng: random.Random) -> str:
    """Return a text about another day, place, name, amount or number of the same kind."""
    pattern, group_of = _entities()

    def other(found: re.Match[str]) -> str:
        said = found.group()
        group = [w for w in _GROUPS[group_of[said.casefold()]] if w.casefold() != said.casefold()]
        word = rng.choice(group)
        return word.lower() if said.islower() else word

    return _NUMBER.sub(lambda found: _another_number(found.group(), rng), pattern.sub(other, text))


def _another_number(said: str, rng: random.Random) -> str:
    """Return a number with as many digits; a nought stays, it is rarely an amount."""
    whole = re.match(r"\d+", said)
    digits = whole.group() if whole else said
    if not int(digits):
        return said
    low = 10 ** (len(digits) - 1)
    return str(rng.randint(max(low, 1), 10 * low - 1)) + said[len(digits) :]


MAKERS: Mapping[str, Maker] = {"typing": typed, "synonyms": reworded, "entities": swapped}


# --- by a model


_ASK = {
    "paraphrase": (
        "A customer wrote this to a support team:\n{text}\n\nWrite it in {count} other ways, as "
        "different customers would, in the same language, with the same meaning and the same "
        "facts. One a line, no numbers, nothing else."
    ),
    "there": "Translate this customer's message into {language}. Write the translation alone.\n"
    "{text}",
}
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.):])\s*")


def _by_model(
    given: Sequence[Example],
    kind: str,
    per_example: int,
    model: Generator,
    keep: Keep,
    tell: Callable[[str], None],
) -> None:
    for start in range(0, len(given), PROMPTS_AT_ONCE):
        some = given[start : start + PROMPTS_AT_ONCE]
        texts = [example.text for example in some]
        written = (
            _paraphrased(texts, per_example, model)
            if kind == "paraphrase"
            else _translated_back(some, model)
        )
        for example, found in zip(some, written, strict=True):
            kept = 0
            for text in found:
                if kept < per_example and _plausible(example.text, text):
                    kept += keep(example, text, kind)
        tell(f"{kind}: {min(start + PROMPTS_AT_ONCE, len(given))} of {len(given)}")


def _paraphrased(texts: Sequence[str], count: int, model: Generator) -> list[list[str]]:
    asked = [_ASK["paraphrase"].format(text=text, count=count) for text in texts]
    return [
        [_LIST_MARK.sub("", line).strip().strip('"“”') for line in answer.splitlines()]
        for answer in _written(asked, model)
    ]


def _translated_back(some: Sequence[Example], model: Generator) -> list[list[str]]:
    languages = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French"}
    there = _written(
        [
            _ASK["there"].format(text=e.text, language=PIVOTS.get(e.locale[:2], "English"))
            for e in some
        ],
        model,
    )
    back = _written(
        [
            _ASK["there"].format(
                text=text, language=languages.get(e.locale[:2], f"the language {e.locale}")
            )
            for e, text in zip(some, there, strict=True)
        ],
        model,
    )
    return [[text] for text in back]


def _written(asked: Sequence[str], model: Generator) -> Iterator[str]:
    """Yield the model's answers; an empty text where it refused one, or had to stop."""
    prompts = [Prompt((ChatMessage("user", text),)) for text in asked]
    for answer in model.generate(prompts, NEW_TOKENS):
        # cut short, the last line is half a sentence
        whole = answer.text if answer.finish is Finish.STOP else answer.text.rpartition("\n")[0]
        yield "" if answer.finish is Finish.ERROR else whole


def _plausible(said: str, written: str) -> bool:
    return (
        bool(written)
        and len(written) <= max(LONGEST * len(said), 40)
        and is_chinese(said) == is_chinese(written)
    )


# --- files


COLUMNS = ("text", "label", "locale", "source", "origin")


def read(path: Path) -> list[Example]:
    """Return the examples of a CSV file with the columns text, label and, if need be, locale.

    Rows that an earlier run made (their `source` is a kind) are left out: noise of noise helps
    nobody.

    Raises:
        InvalidInput: A line is wrong; the message names it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            return _read(csv.DictReader(opened), path.name)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}.", field="data") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path.name} is not UTF-8; save it as UTF-8.", field="data") from None
    except csv.Error as error:
        raise InvalidInput(f"{path.name}: {error}.", field="data") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", field="data") from None


def _read(reader: csv.DictReader[str], name: str) -> list[Example]:
    label_column = _label_column(reader.fieldnames or (), name)
    examples: list[Example] = []
    for row in reader:
        if (row.get("source") or "") in KINDS:
            continue
        text = " ".join((row["text"] or "").split())
        label = (row[label_column] or "").strip()
        if not text or not label:
            empty = "label" if text else "text"
            raise InvalidInput(f"{name} line {reader.line_num}: {empty} is empty.", field=empty)
        locale = (row.get("locale") or "").strip() or ("zh" if is_chinese(text) else "en")
        examples.append(Example(text, label, locale, len(examples)))
    if not examples:
        raise InvalidInput(f"{name} holds no examples.", field="data")
    return examples


def _label_column(columns: Sequence[str], name: str) -> str:
    label = next((column for column in ("label", "category") if column in columns), None)
    if "text" not in columns or label is None:
        raise InvalidInput(f"{name} line 1: the header must name text and label.", field="data")
    return label


def texts_of(path: Path) -> list[str]:
    """Return the texts of a labelled file, such as a test part that nothing may leak into."""
    return [example.text for example in read(path)]


def write(examples: Sequence[Example], path: Path) -> None:
    """Write examples as CSV: text, label, locale, source, origin.

    Raises:
        TransientError: The disk is full, or the folder cannot be written; no half file is left.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([e.text, e.label, e.locale, e.source, e.origin] for e in examples)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TransientError(f"{path} cannot be written: {error.strerror}.") from error


def counted(examples: Sequence[Example]) -> dict[str, int]:
    """Return how many examples there are of each source."""
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.source] = counts.get(example.source, 0) + 1
    return counts


def folds(examples: Sequence[Example], count: int, seed: int = 7) -> list[list[int]]:
    """Return places of examples in folds, so that what was made lies in the fold of its origin."""
    origins = sorted({example.origin for example in examples})
    random.Random(seed).shuffle(origins)
    bounds = [round(i * len(origins) / count) for i in range(count + 1)]
    parts = [set(origins[a:b]) for a, b in pairwise(bounds)]
    return [[i for i, e in enumerate(examples) if e.origin in part] for part in parts]
