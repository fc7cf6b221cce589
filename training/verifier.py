"""The verifier of replies: its examples, made by rule from pairs, its training and its fitting."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from answering import verifier
from answering.grounding import split_sentences
from answering.prompting import plain
from answering.verifier import CLASSES, COMBINATION, SIGNS, Combination, Label, Source
from core.errors import InvalidInput
from retrieval.encoders import cross
from retrieval.encoders.protocol import Encoder, PairScorer
from training import counterfactuals as made
from training.cross.loop import PairExample, Recipe, train
from training.replies import data as replies

RECORD = "training.json"
FILES = {
    "wow": "wow/begin_dev_wow.tsv", "cmu": "cmu-dog/begin_dev_cmu.tsv",
    "tc": "topicalchat/begin_dev_tc.tsv",
}  # fmt: skip
FREE = ("wow", "cmu")
"""The parts of BEGIN under CC-BY: Topical-Chat's is share-alike, so only measured with."""
LEAST_HELD = 0.45
"""Words of a human reply that its entry must hold to be taken as supported without a doubt."""
TRAINED_ON = 9000
SHARES = {"begin": 1.5, "made": 1.0, "own": 1.0}
"""How much each family of cases weighs in the combination; own replies are supported ones only."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A reply, the passages that it cites and what it is by them.

    Attributes:
        kind: How it was made, for figures by kind.
        weight: In training.
        group: Cases that share a passage; splits keep them together.
    """

    sources: tuple[Source, ...]
    reply: str
    label: Label
    kind: str = ""
    weight: float = 1.0
    group: str = ""


def read_cases(path: Path) -> list[Case]:
    """Return the cases of JSONL: `{"passage" or "passages", "reply", "label", "kind"?}` a line.

    A passage is a text, or an object with `question` and `answer`.

    Raises:
        InvalidInput: The file cannot be read, or a line is not of this form; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="cases") from error
    cases: list[Case] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(line)
            passages: Any = row["passages"] if "passages" in row else [row["passage"]]
            cases.append(Case(tuple(_source(p) for p in passages), str(row["reply"]),
                              Label(row["label"]), str(row.get("kind", "")),
                              group=str(passages)))  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f'{path} line {number}: expected {{"passage" or "passages", "reply", "label"}} '
                f"with a label of {', '.join(CLASSES)}; {type(error).__name__}: {error}",
                field="cases",
            ) from error
    return cases


def begin_cases(path: Path, kind: str = "begin") -> list[Case]:
    """Return the cases of a file of BEGIN; what is not fully attributable is unsupported.

    Source: Dziri et al., Evaluating Attribution in Dialogue Systems: The BEGIN Benchmark, TACL
    2022.

    Raises:
        InvalidInput: It is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [
            Case((Source("", row["knowledge"]),), row["response"],
                 Label.SUPPORTED if row["begin_label"] == "Fully attributable"
                 else Label.UNSUPPORTED, kind, group=row["knowledge"])
            for row in rows
        ]  # fmt: skip
    except (OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is no file of BEGIN: {error!r}", field="begin") from error


def begin_files(place: Path) -> dict[str, list[Case]]:
    """Return the cases of BEGIN's folder, or of one of its files, by part.

    Raises:
        InvalidInput: There is no such file.
    """
    if place.is_file():
        return {place.stem: begin_cases(place, place.stem)}
    there = {name: place / file for name, file in FILES.items() if (place / file).is_file()}
    if not there:
        raise InvalidInput(f"{place} holds none of BEGIN's files, such as {FILES['wow']}",
                           field="begin")  # fmt: skip
    return {name: begin_cases(path, name) for name, path in there.items()}


def is_trained_on(case: Case) -> bool:
    """Return whether a case is of the half, by passages, that is trained on."""
    return zlib.crc32(case.group.encode()) % 2 == 0


def is_measured(case: Case) -> bool:
    """Return whether a case is of the quarter that is neither trained nor fitted on."""
    return zlib.crc32(case.group.encode()) % 4 == 3


def is_fitted_on(case: Case) -> bool:
    """Return whether a case is of the quarter that the combination is fitted on.

    On cases that it was trained on a cross-encoder is surer than on new ones: they would set the
    threshold too high.
    """
    return not is_trained_on(case) and not is_measured(case)


def shop_cases(path: Path) -> list[Case]:
    """Return own replies as supported cases: JSONL as `deskhand train replies --data` takes it.

    Raises:
        InvalidInput: The file cannot be read.
    """
    return [
        Case(tuple(Source(s.question, plain(s.answer)) for s in example.sources), sentence,
             Label.SUPPORTED, "own", group=example.entry_id)
        for example in replies.read_examples(path)
        for sentence in split_sentences(example.reply)
        if example.sources
    ]  # fmt: skip


def dstc9_cases(folder: Path, part: str, seed: int = 0) -> list[Case]:
    """Return cases by rule from grounded_dstc9_pairs, each with its kind.

    Args:
        folder: Holds `kb.jsonl`, `val_unseen.jsonl` and `<part>.jsonl`.
        part: `train`, or `val_unseen`, whose entries occur in no case of `train`.
        seed: The same seed gives the same cases.

    Raises:
        InvalidInput: A file is missing or not JSONL.
    """
    chance = random.Random(seed)
    apart = {row["id"] for row in replies.read_rows(folder / "val_unseen.jsonl")}
    wants_apart = part == "val_unseen"
    entries = [row for row in replies.read_rows(folder / "kb.jsonl")
               if wants_apart or row["id"] not in apart]  # fmt: skip
    maker = Maker(entries, chance)
    rows = replies.read_rows(folder / f"{part}.jsonl")
    chance.shuffle(rows)
    cases: list[Case] = []
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        row = row | {"id": row["id"].removeprefix("train/*") or row["id"]}
        said = _supported_reply(row)
        if said is None or counts[row["id"]] >= replies.REPLIES_PER_ENTRY:
            continue
        counts[row["id"]] += 1
        cases += maker.cases(row, said)
    seen: set[str] = set()
    for row in entries:
        if wants_apart is (row["id"] in apart) and row["id"] not in seen:
            seen.add(row["id"])
            own = {"faq_question": row["question"], "faq_answer": row["answer"]} | row
            cases += maker.cases(own, (split_sentences(row["answer"]) or [""])[0], few=True)
    chance.shuffle(cases)
    return cases


def _supported_reply(row: Mapping[str, Any]) -> str | None:
    """Return the one claiming sentence of a human reply, None where its entry does not hold it."""
    reply = replies.cut_closing(row["response"])
    if replies.is_polar(row["faq_question"]):
        reply = replies.polarity_first(reply, row["faq_answer"])
    known = " ".join([row["faq_question"], row["faq_answer"], row.get("entity") or ""])
    reason = replies.unsupported(reply, row["faq_question"], row["faq_answer"], known)
    if reason == "words that the entry lacks":
        return reply if replies.token_precision(reply, known) >= LEAST_HELD else None
    return None if reason else reply


class Maker:
    """Makes cases of one supported sentence and its entry."""

    def __init__(self, entries: Iterable[Mapping[str, Any]], chance: random.Random) -> None:
        self._chance = chance
        self._by_entity: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._by_question: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in entries:
            self._by_entity[_entity_of(entry["id"])].append(entry)
            self._by_question[_topic(entry["question"], entry.get("entity"))].append(entry)
        self._names = sorted({e[0]["entity"] for e in self._by_entity.values()
                              if e[0].get("entity")})  # fmt: skip

    def cases(self, row: Mapping[str, Any], sentence: str, *, few: bool = False) -> list[Case]:
        """Return what one sentence gives; `few` where it is the entry's own."""
        source = Source(row["faq_question"], row["faq_answer"])
        sources = (source, *self._distractor(row))
        out = [(sources, sentence, Label.SUPPORTED, "entry" if few else "reply")]
        for kind, change in made.CONTRADICTING.items():
            if kind == "polarity" and few and self._chance.random() < 0.5:
                continue
            changed = change(sentence, self._chance)
            if changed:
                out.append((sources, changed, Label.CONTRADICTED, kind))
        out += self._turned(source, sentence)
        out += self._unsupported(row, sources, sentence)
        if replies.is_polar(source.question) and self._chance.random() < 0.3:
            out += self._bare(source)
        return [Case(s, text, label, kind, _WEIGHTS.get(kind, 1.0), str(row["id"]))
                for s, text, label, kind in out if text.strip()]  # fmt: skip

    def _turned(self, source: Source, sentence: str) -> list[tuple[Any, str, Label, str]]:
        """Return cases whose source is turned: the sentence contradicts it, turned it does not."""
        name = self._chance.choice(["polarity", "polarity", "number"])
        if name == "number":
            number = re.search(r"\d+(?:[.,:]\d+)*", sentence)
            if number is None or number.group() not in source.text:
                return []
            new = made.other_number(number.group(), self._chance)
            if new is None:
                return []
            turned = Source(source.question, source.text.replace(number.group(), new))
            other = sentence.replace(number.group(), new)
        else:
            text, flipped = made.flip(source.text), made.flip(sentence)
            if text is None or flipped is None or len(split_sentences(source.text)) > 1:
                return []
            turned, other = Source(source.question, text), flipped
        return [
            ((turned,), sentence, Label.CONTRADICTED, name),
            ((turned,), other, Label.SUPPORTED, "turned"),
        ]

    def _unsupported(
        self, row: Mapping[str, Any], sources: tuple[Source, ...], sentence: str
    ) -> list[tuple[Any, str, Label, str]]:
        out: list[tuple[Any, str, Label, str]] = []
        kin = [
            entry
            for entry in self._by_entity[_entity_of(row["id"])]
            if entry["question"] != row["faq_question"] and not _alike(entry["answer"], sources)
        ]
        if kin:
            other = self._chance.choice(kin)
            text = (split_sentences(other["answer"]) or [""])[-1]
            out.append((sources, text, Label.UNSUPPORTED, "other"))
            if self._chance.random() < 0.4:
                joined = f"{sentence.rstrip('. ')}, and {text[:1].lower()}{text[1:]}"
                out.append((sources, joined, Label.UNSUPPORTED, "addition"))
        if (added := made.addition(sentence, self._chance)) is not None:
            out.append((sources, added, Label.UNSUPPORTED, "addition"))
        name = row.get("entity")
        if name and self._chance.random() < 0.5:
            new = self._chance.choice(self._names).title()
            swapped = made.entity(sentence, name, new)
            if swapped and new.lower() != name.lower():
                out.append((sources, swapped, Label.CONTRADICTED, "entity"))
        return out + self._opposite(row, sources)

    def _opposite(
        self, row: Mapping[str, Any], sources: tuple[Source, ...]
    ) -> list[tuple[Any, str, Label, str]]:
        """Return another entity's answer to the same question that says the opposite."""
        name = row.get("entity")
        group = self._by_question[_topic(row["faq_question"], name)]
        says_no = replies.negates(row["faq_answer"])
        found = [e for e in group if replies.negates(e["answer"]) is not says_no]
        if not found or not name:
            return []
        other = self._chance.choice(found)
        text = made.entity(other["answer"], other["entity"] or "", str(name).title())
        return [(sources, text or other["answer"], Label.CONTRADICTED, "polarity")]

    def _bare(self, source: Source) -> list[tuple[Any, str, Label, str]]:
        says_no = replies.negates(source.text)
        right, wrong = ("No.", "Yes.") if says_no else ("Yes.", "No.")
        return [((source,), right, Label.SUPPORTED, "bare"),
                ((source,), wrong, Label.CONTRADICTED, "bare")]  # fmt: skip

    def _distractor(self, row: Mapping[str, Any]) -> tuple[Source, ...]:
        kin = self._by_entity[_entity_of(row["id"])]
        if not kin or self._chance.random() > 0.2:
            return ()
        other = self._chance.choice(kin)
        if other["question"] == row["faq_question"]:
            return ()
        return (Source(other["question"], other["answer"]),)


_WEIGHTS = {"turned": 0.7, "entity": 0.7, "bare": 0.5, "antonym": 0.7}
"""Kinds whose rule is wrong now and then, or that are rare in replies."""


_SHARES = {
    "contradicted polarity": 2.0, "supported reply": 2.5, "supported bare": 0.4,
    "contradicted bare": 0.4, "contradicted antonym": 0.6,
}  # fmt: skip
"""Of kinds that should be taken more, or less, than evenly."""


def from_supported(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """Return counterfactuals of supported cases, for material without entities."""
    chance = random.Random(seed)
    out: list[Case] = []
    for case in cases:
        changes = {kind: change(case.reply, chance) for kind, change in made.CONTRADICTING.items()}
        out += [Case(case.sources, text, Label.CONTRADICTED, kind, group=case.group)
                for kind, text in changes.items() if text]  # fmt: skip
        if (added := made.addition(case.reply, chance)) is not None:
            out.append(Case(case.sources, added, Label.UNSUPPORTED, "addition", group=case.group))
        other = chance.choice(cases)
        if other.group != case.group and not _alike(other.reply, case.sources):
            out.append(Case(case.sources, other.reply, Label.UNSUPPORTED, "other",
                            group=case.group))  # fmt: skip
    return out


def sampled(cases: Sequence[Case], count: int, seed: int = 0) -> list[Case]:
    """Return so many cases, two in five of them supported, rare kinds whole."""
    chance = random.Random(seed)
    by_kind: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_kind[f"{case.label} {case.kind}"].append(case)
    taken: list[Case] = []
    for is_supported in (True, False):
        kinds = sorted((k for k in by_kind if k.startswith("supported") is is_supported),
                       key=lambda k: len(by_kind[k]) / _SHARES.get(k, 1.0))  # fmt: skip
        room = round(count * (0.4 if is_supported else 0.6))
        for left, kind in zip(range(len(kinds), 0, -1), kinds, strict=True):
            some = by_kind[kind][: round(_SHARES.get(kind, 1.0) * (room // left))]
            taken += some
            room -= len(some)
    chance.shuffle(taken)
    return taken


def pair_examples(cases: Sequence[Case]) -> list[PairExample]:
    """Return cases as the cross-encoder learns them."""
    return [
        PairExample(*verifier.pair(case.reply, case.sources), CLASSES.index(case.label),
                    case.weight)
        for case in cases
    ]  # fmt: skip


def features(
    cases: Sequence[Case], scorer: PairScorer
) -> tuple[verifier.Vector, list[int], np.ndarray[Any, Any]]:
    """Return the signs of each sentence of the cases, the case of each, and the logits.

    Shapes (sentences, signs), (sentences,), (sentences, classes).
    """
    parts = [(number, sentence) for number, case in enumerate(cases)
             for sentence in split_sentences(case.reply) or [case.reply]]  # fmt: skip
    logits = scorer.score([verifier.pair(text, cases[number].sources) for number, text in parts])
    rows = [verifier.signs(text, cases[number].sources, row)
            for (number, text), row in zip(parts, logits, strict=True)]  # fmt: skip
    return np.stack(rows), [number for number, _ in parts], logits


def fit(
    signs: verifier.Vector,
    owners: Sequence[int],
    cases: Sequence[Case],
    shares: Mapping[str, float],
) -> Combination:
    """Return the combination fitted on development cases, the best balanced accuracy its threshold.

    Args:
        signs: Of `features`.
        owners: The case of each row.
        cases: Those of one sentence are fitted on; all are used for the threshold.
        shares: How much each group of kinds weighs, by `_family`; others weigh as they are.
    """
    from sklearn.linear_model import LogisticRegression

    means, scales = signs.mean(axis=0), signs.std(axis=0) + 1e-6
    is_supported = np.array([cases[owner].label is Label.SUPPORTED for owner in owners])
    families = [_family(cases[owner]) for owner in owners]
    weight = np.ones(len(owners))
    for family in set(families):
        for side in (True, False):
            mask = np.array([f == family for f in families]) & (is_supported == side)
            if mask.any():
                weight[mask] = shares.get(family, 1.0) / mask.sum()
    model: Any = LogisticRegression(C=1.0, max_iter=2000)
    model.fit((signs - means) / scales, is_supported, sample_weight=weight * len(owners) / 4)
    combination = Combination(model.coef_[0].astype(float), means, scales,
                              float(model.intercept_[0]), 0.5)  # fmt: skip
    chances = combination.support(signs)
    grid = np.linspace(0.1, 0.9, 81)
    scores = [
        (weight[is_supported] @ (chances[is_supported] >= at)) / weight[is_supported].sum()
        + (weight[~is_supported] @ (chances[~is_supported] < at)) / weight[~is_supported].sum()
        for at in grid
    ]
    best = float(grid[int(np.argmax(scores))])
    return Combination(combination.weights, means, scales, combination.bias, best)


def _family(case: Case) -> str:
    return "begin" if case.kind in FILES else "own" if case.kind == "own" else "made"


@dataclass(frozen=True)
class Outcome:
    """What training made.

    Attributes:
        examples: That the cross-encoder was trained on.
        fitted_on: Cases of the combination.
        support_from: The threshold that it found.
        weights_bytes: Of the folder's weights.
    """

    examples: int
    fitted_on: int
    seconds: float
    support_from: float
    weights_bytes: int
    name: str


def run(
    encoder: Encoder,
    dstc9: Path,
    begin: Path | None,
    own: Path | None,
    out: Path,
    recipe: Recipe,
    progress: Progress,
    count: int = TRAINED_ON,
) -> Outcome:
    """Train a verifier and write it into a folder.

    Raises:
        InvalidInput: A file is missing, or the training went astray.
    """
    started = time.monotonic()
    training, fitting = material(dstc9, begin, own, count, recipe.seed)
    progress(f"{len(training)} examples to train on, {len(fitting)} cases to fit on")
    out.mkdir(parents=True, exist_ok=True)
    examples = pair_examples(training)
    weights = train(encoder, examples, CLASSES, recipe, progress, out / "checkpoint.pt")
    size = cross.write(weights, out)
    scorer = cross.CrossEncoder.load(encoder, weights)
    progress("Fitting the combination")
    rows, owners, _ = features(fitting, scorer)
    combination = fit(rows, owners, fitting, SHARES)
    (out / COMBINATION).write_text(
        json.dumps(combination.to_json(), indent=2) + "\n", encoding="utf-8"
    )
    digest = hashlib.sha256("\n".join(f"{e.a}\t{e.b}\t{e.target}" for e in examples).encode())
    outcome = Outcome(len(training), len(fitting), time.monotonic() - started,
                      combination.support_from, size, scorer.name)  # fmt: skip
    record = {
        "encoder": encoder.name,
        "data_sha256": digest.hexdigest(),
        "sources": {"dstc9": "train; half of val_unseen to fit the combination",
                    "begin": "dev parts wow and cmu: half, a quarter to fit" if begin else "none",
                    "own": "half of the replies, a quarter to fit" if own else "none"},
        "recipe": asdict(recipe),
        "signs": list(SIGNS),
        "outcome": asdict(outcome),
    }  # fmt: skip
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return outcome


def material(
    dstc9: Path, begin: Path | None, own: Path | None, count: int, seed: int
) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to fit the combination on."""
    training = sampled(dstc9_cases(dstc9, "train", seed), count, seed)
    unseen = [case for case in dstc9_cases(dstc9, "val_unseen", seed) if is_trained_on(case)]
    fitting = sampled(unseen, 1200, seed)
    if begin is not None:
        parts = begin_files(begin)
        free = [case for name in FREE for case in parts.get(name, ())]
        halves = [case for case in free if is_trained_on(case)]
        training += [case for case in halves for _ in range(2)]
        training += from_supported([c for c in halves if c.label is Label.SUPPORTED], seed)
        fitting += [case for case in free if is_fitted_on(case)]
    if own is not None:
        said = shop_cases(own)
        half = [case for case in said if is_trained_on(case)]
        training += half + sampled(from_supported(half, seed), 2 * len(half), seed)
        fitting += [case for case in said if is_fitted_on(case)]
    random.Random(seed).shuffle(training)
    return training, fitting


def _source(passage: Any) -> Source:
    if isinstance(passage, str):
        return Source("", passage)
    return Source(str(passage.get("question", "")), plain(str(passage["answer"])))


def _entity_of(entry_id: str) -> str:
    return entry_id.rsplit("/", 1)[0]


def _topic(question: str, entity: str | None) -> str:
    text = question.lower()
    if entity:
        text = text.replace(entity.lower(), "")
    words = sorted({replies.stem(w) for w in replies.content_words(text)})
    return " ".join(words)


def _alike(text: str, sources: Sequence[Source]) -> bool:
    known = " ".join(f"{s.question} {s.text}" for s in sources)
    return replies.token_precision(text, known) > 0.7
