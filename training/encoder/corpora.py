"""What the adapter that ships is trained on: public sets whose licences let weights be released.

BANKING77 is left out, so that what is measured on it stays what a new customer may expect, and so
are share-alike sets. Spoken questions about entries are made from the wordings that other entities'
entries have for the same subject.
"""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from core.types import FaqEntry
from retrieval.encoders.protocol import Encoder
from retrieval.index import nameless
from training.dialogues import subject_of
from training.encoder.data import OUT_OF_SCOPE, Labelled, Mixture, kept
from training.encoder.pairs import EntryPairs, Pair
from training.encoder.session import Material
from training.noise import misheard, mistyped
from training.replies.data import cut_closing

HELD_OUT_ENTITIES = 0.2
ASKED_PER_ENTRY = 6
"""Questions made of each entry."""
MEASURED = 400
"""Questions about entities that are not trained on."""
KEPT_ENGLISH = 150
KEPT_CHINESE = 400
_NOTHING_SAID = frozenset({"contentonly", "confirmation", "rejection", ""})
_LEADS = (
    "", "", "", "", "", "also ", "okay, ", "great, and ", "thanks. ", "yes that sounds good, ",
    "before you book it, ", "one more thing, ", "could you tell me ", "i was wondering, ",
    "do you know, ", "i would like to know ", "hi, ", "no, but ", "perfect! ", "hmm ",
)  # fmt: skip
_NAMED = ("{question} at {name}", "for {name}, {question}", "about {name}: {question}",
          "i'm going to {name}, {question}")  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Entries in two parts without a common entity."""

    training: list[FaqEntry]
    held_out: list[FaqEntry]


def shipped(data: Path, encoder: Encoder, seed: int = 0) -> Material:
    """Return what the adapter that ships is trained on and measured with.

    Args:
        data: As `shipped_mixture` needs it.
        encoder: Frozen.
        seed: Decides everything.

    Raises:
        InvalidInput: A file is missing or wrong.
    """
    held_out = split(dstc9_entries(data), seed).held_out
    rng = random.Random(f"{seed}/measured")
    asked = spoken_pairs(held_out, rng)
    return Material(
        shipped_mixture(data, _own_texts(), encoder, seed),
        held_out,
        rng.sample(asked, min(MEASURED, len(asked))),
        {"sets": ["DSTC9 Track 1", "CLINC150", "HWU64", "MultiDoGO", "CrossWOZ", "Deskhand's own"]},
    )


def abroad() -> list[str]:
    """Return our own texts in languages other than English, which training shall leave alone."""
    rows = [*_table(_own_texts() / "seeking.csv"), *_table(_own_texts() / "sentiment.csv")]
    return list(dict.fromkeys(row["text"] for row in rows if row["locale"] != "en"))


def shipped_mixture(data: Path, own: Path, encoder: Encoder, seed: int = 0) -> Mixture:
    """Return the batches of the adapter that ships.

    Args:
        data: The folder with grounded_dstc9_pairs, intent_clinc150, intent_hwu64,
            intent_multidogo and dialog_crosswoz_zh.
        own: The folder with our general_intents.csv, seeking.csv and sentiment.csv.
        encoder: Frozen.
        seed: Decides everything.

    Raises:
        InvalidInput: A file is missing or wrong.
    """
    rng = random.Random(seed)
    known = split(dstc9_entries(data), seed).training
    encode = encoder.encode_queries
    subjects = {entry.id: subject_of(nameless(entry)) for entry in known}

    def labelled(examples: Sequence[tuple[str, str]], **sizes: Any) -> Labelled:
        return Labelled(examples, encode([text for text, _ in examples]), **sizes)

    sources = [
        (labelled(clinc(data)), 0.22),
        (labelled(hwu(data)), 0.17),
        (labelled(multidogo(data, rng), shots=3), 0.05),
        (labelled(general(own), size=48, shots=6), 0.06),
        (EntryPairs(known, spoken_pairs(known, rng), encode, replies=dstc9_replies(data),
                    subjects=subjects), 0.35),
    ]  # fmt: skip
    return Mixture(sources, kept(kept_texts(data, own, rng), encoder), seed)


def split(entries: Sequence[FaqEntry], seed: int, share: float = HELD_OUT_ENTITIES) -> Split:
    """Return entries to train on and entries of entities to measure with."""
    names = sorted({entry.entity or "" for entry in entries})
    random.Random(seed).shuffle(names)
    held_out = set(names[: max(1, round(share * len(names)))])
    return Split(
        [entry for entry in entries if (entry.entity or "") not in held_out],
        [entry for entry in entries if (entry.entity or "") in held_out],
    )


def dstc9_entries(data: Path) -> list[FaqEntry]:
    """Return the entries of grounded_dstc9_pairs."""
    return [
        FaqEntry(row["id"], row["question"], row["answer"], entity=row["entity"] or None,
                 status="published")
        for row in _lines(data / "grounded_dstc9_pairs" / "kb.jsonl")
    ]  # fmt: skip


def dstc9_replies(data: Path) -> Mapping[str, Sequence[str]]:
    """Return what people answered from each entry, without closing questions, by entry id."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in _lines(data / "grounded_dstc9_pairs" / "train.jsonl"):
        found[row["id"]].append(cut_closing(row["response"]))
    return found


def spoken_pairs(entries: Sequence[FaqEntry], rng: random.Random) -> list[Pair]:
    """Return questions as customers put them, written or spoken, named or not.

    The words are those that entries of other entities use for the same subject.
    """
    wordings: defaultdict[int, dict[str, None]] = defaultdict(dict)
    relevant: defaultdict[tuple[str | None, int], set[str]] = defaultdict(set)
    subjects = {entry.id: subject_of(nameless(entry)) for entry in entries}
    for entry in entries:
        if (subject := subjects[entry.id]) is not None:
            wordings[subject][nameless(entry)] = None
            relevant[entry.entity, subject].add(entry.id)
    pairs: list[Pair] = []
    for entry in entries:
        subject = subjects[entry.id]
        ways = list(wordings[subject]) if subject is not None else [nameless(entry)]
        ids = relevant[entry.entity, subject] if subject is not None else {entry.id}
        for _ in range(ASKED_PER_ENTRY):
            text = _asked(rng.choice(ways), entry.entity, rng)
            pairs.append(Pair(text, frozenset(ids)))
    return pairs


def clinc(data: Path) -> list[tuple[str, str]]:
    """Return CLINC150's training messages, with those out of scope."""
    folder = data / "intent_clinc150"
    rows = [*_lines(folder / "train.jsonl"), *_lines(folder / "oos_train.jsonl")]
    return [
        (row["text"], OUT_OF_SCOPE if row["intent"] == "oos" else row["intent"]) for row in rows
    ]


def hwu(data: Path) -> list[tuple[str, str]]:
    """Return HWU64's training messages."""
    folder = data / "intent_hwu64" / "train"
    texts, labels = _text(folder / "seq.in").splitlines(), _text(folder / "label").splitlines()
    return list(zip(texts, labels, strict=True))


def multidogo(data: Path, rng: random.Random, most: int = 300) -> list[tuple[str, str]]:
    """Return customers' turns that say what they want, at most so many an intent."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for domain in ("airline", "finance", "insurance"):
        rows = csv.DictReader(
            _text(data / "intent_multidogo" / domain / "train.tsv").splitlines(),
            delimiter="\t", quoting=csv.QUOTE_NONE,
        )  # fmt: skip
        for row in rows:
            text, intent = row["utterance"] or "", row["intent"] or ""
            if intent in _NOTHING_SAID or "<div>" in intent or len(text.split()) < 3:
                continue
            found[OUT_OF_SCOPE if intent == "outofdomain" else intent][text.strip()] = None
    return [
        (text, intent)
        for intent, texts in sorted(found.items())
        for text in rng.sample(sorted(texts), min(most, len(texts)))
    ]


def general(own: Path) -> list[tuple[str, str]]:
    """Return our own general intents in all their languages."""
    return [(row["text"], row["label"]) for row in _table(own / "general_intents.csv")]


def kept_texts(data: Path, own: Path, rng: random.Random) -> list[str]:
    """Return texts of many languages, with some English ones that they shall stay near."""
    rows = [*_table(own / "seeking.csv"), *_table(own / "sentiment.csv")]
    abroad = [row["text"] for row in rows if row["locale"] != "en"]
    english = [row["text"] for row in rows if row["locale"] == "en"]
    chinese = sorted({turn["content"] for turns in _crosswoz(data) for turn in turns})
    texts = [
        *abroad,
        *rng.sample(english, min(KEPT_ENGLISH, len(english))),
        *rng.sample(chinese, min(KEPT_CHINESE, len(chinese))),
    ]
    return list(dict.fromkeys(texts))


def _crosswoz(data: Path) -> list[list[dict[str, Any]]]:
    place = data / "dialog_crosswoz_zh" / "val.json.zip"
    try:
        with zipfile.ZipFile(place) as archive:
            dialogues = json.loads(archive.read("val.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{place} cannot be read: {error}", field="data") from error
    return [dialogues[name]["messages"] for name in sorted(dialogues)]


def _asked(question: str, name: str | None, rng: random.Random) -> str:
    text = question.strip().rstrip("?. ")
    if name and rng.random() < 0.4:
        text = rng.choice(_NAMED).format(question=text, name=name.title())
    lead = rng.choice(_LEADS)
    text = (lead + text[:1].lower() + text[1:] if lead else text) + "?"
    chance = rng.random()
    if chance < 0.45:
        return misheard(text, rng)
    return mistyped(text, rng) if chance < 0.7 else text


def _own_texts() -> Path:
    return Path(str(files("answering") / "data"))


def _lines(place: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in _text(place).splitlines() if line.strip()]
    except ValueError as error:
        raise InvalidInput(f"{place} is no JSON Lines file: {error}", field="data") from error


def _table(place: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(place).splitlines()))


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{place} cannot be read: {error}", field="data") from error
