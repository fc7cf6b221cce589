"""What made examples and unlabelled messages bring an intent head, at 5, 10 and 30 an intent.

Run: python -m benchmarks.augmentation --data DIR --models MODELS [--seeds 2] [--out A.json]
DIR holds `train.csv` with the columns text and category (BANKING77); MODELS is the model store.
The held-out part is drawn from that file too: no test split is touched.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from answering.intents import IntentClassifier, IntentFigures
from retrieval.encoders.loading import load_encoder
from training import augmenting, semi_supervised
from training.augmenting import Example

Matrix = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Matrix]

SHOTS = (5, 10, 30)
HELD_OUT = 1_500
UNLABELLED = 3_000
KINDS: tuple[tuple[str, ...], ...] = (
    (), ("typing",), ("synonyms",), ("entities",), ("typing", "synonyms", "entities"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table: accuracy on clean and on mistyped held-out messages, in percent."""

    shots: int
    made_of: str
    seed: int
    rows: int
    accuracy: float
    mistyped: float
    ece: float


@dataclass(frozen=True)
class Split:
    """A few examples of each intent, further messages whose labels are hidden, and the test."""

    given: Sequence[Example]
    unlabelled: Sequence[Example]
    test: Sequence[Example]


def main() -> None:
    """Print two tables: of made examples, and of unlabelled messages."""
    arguments = _arguments()
    examples = augmenting.read(arguments.data / "train.csv")
    encoder = load_encoder("multilingual-e5-small", arguments.models)
    encode = remembering(encoder.encode_queries)
    made: list[Row] = []
    others: list[dict[str, Any]] = []
    for shots in SHOTS:
        for seed in range(arguments.seeds if shots < max(SHOTS) else 1):
            split = _split(examples, shots, seed)
            made += [_measure(split, kinds, shots, seed, encode) for kinds in KINDS]
            if shots < max(SHOTS):
                others.append(_unlabelled(split, shots, seed, encode))
        print(_table([row for row in made if row.shots == shots]), flush=True)
    print(json.dumps(others, indent=2))
    if arguments.out:
        told = {"augmentation": [asdict(row) for row in made], "unlabelled": others}
        arguments.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _split(examples: Sequence[Example], shots: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(examples))
    test = [examples[i] for i in order[:HELD_OUT]]
    rest = [examples[i] for i in order[HELD_OUT:]]
    counts: dict[str, int] = {}
    given: list[Example] = []
    others: list[Example] = []
    for example in rest:  # fewer shots are the beginning of more
        counts[example.label] = counts.get(example.label, 0) + 1
        (given if counts[example.label] <= shots else others).append(example)
    return Split(given, others[-UNLABELLED:], test)


def _measure(split: Split, kinds: Sequence[str], shots: int, seed: int, encode: Encode) -> Row:
    made = augmenting.augment(
        split.given, kinds, seed=seed, keep_out=[example.text for example in split.test]
    )
    used = [*split.given, *made]
    head = _fit(used, encode, seed)
    clean = _figures(head, split.test, encode)
    noisy = _figures(head, [_noisy(example) for example in split.test], encode)
    name = " + ".join(kinds) or "nothing"
    return Row(shots, name, seed, len(used), clean.accuracy, noisy.accuracy, clean.ece)


def _fit(examples: Sequence[Example], encode: Encode, seed: int) -> IntentClassifier:
    texts = [example.text for example in examples]
    labels = [example.label for example in examples]
    given = {e.origin: place for place, e in enumerate(examples) if e.source == "given"}
    # what was made is held out with its origin, what was guessed never: see `fit`
    origins = [given.get(e.origin, -1) for e in examples]
    return IntentClassifier.fit(encode(texts), labels, texts=texts, origins=origins, seed=seed)


def _figures(head: IntentClassifier, test: Sequence[Example], encode: Encode) -> IntentFigures:
    texts = [example.text for example in test]
    return head.evaluate(encode(texts), [example.label for example in test], texts)


def _noisy(example: Example) -> Example:
    """Return a test message with noise of another seed than the training's."""
    (found, *_) = [*augmenting.augment([example], ("typing",), seed=1_000), example]
    return replace(found, label=example.label)


def _unlabelled(split: Split, shots: int, seed: int, encode: Encode) -> dict[str, Any]:
    vectors = encode([e.text for e in split.given])
    labels = [e.label for e in split.given]
    others = encode([e.text for e in split.unlabelled])
    report = semi_supervised.Report()
    chosen = semi_supervised.extend(vectors, labels, others, seed=seed, report=report)
    told: dict[str, Any] = {"shots": shots, "seed": seed, "chosen": chosen and chosen.way}
    told["held_out_folds"] = {"plain": round(report.before, 4)} | {
        t.way: [round(t.accuracy, 4), f"{t.won} won, {t.lost} lost"] for t in report.trials
    }
    plain = _figures(_fit(split.given, encode, seed), split.test, encode)
    told["test"] = {"plain": round(plain.accuracy, 4)}
    for way, guess in semi_supervised.WAYS.items():
        found = guess(vectors, np.asarray(labels), others)
        taken = [
            replace(split.unlabelled[place], label=str(label), source="guessed")
            for place, label in zip(found.places, found.labels, strict=True)
        ]
        head = _fit([*split.given, *taken], encode, seed)
        told["test"][way] = round(_figures(head, split.test, encode).accuracy, 4)
        right = [split.unlabelled[p].label == e.label for p, e in zip(found.places, taken)]  # noqa: B905
        told[f"{way}: taken, right"] = len(taken), round(sum(right) / max(len(right), 1), 3)
    print(json.dumps(told), flush=True)
    return told


def _table(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.made_of for row in rows))
    base = _mean([r.accuracy for r in rows if r.made_of == names[0]])
    base_noisy = _mean([r.mistyped for r in rows if r.made_of == names[0]])
    lines = [
        "| examples an intent | made | rows | accuracy | gain | mistyped | gain | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        mine = [row for row in rows if row.made_of == name]
        clean, noisy = _mean([r.accuracy for r in mine]), _mean([r.mistyped for r in mine])
        lines.append(
            f"| {mine[0].shots} | {name} | {round(_mean([float(r.rows) for r in mine])):,} | "
            f"{100 * clean:.1f} | {100 * (clean - base):+.1f} | {100 * noisy:.1f} | "
            f"{100 * (noisy - base_noisy):+.1f} | {_mean([r.ece for r in mine]):.3f} |"
        )
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def remembering(encode: Callable[[list[str]], Matrix]) -> Encode:
    """Return the encoder with a memory: the parts of a run share most of their texts."""
    known: dict[str, NDArray[np.float32]] = {}

    def remembered(texts: Sequence[str]) -> Matrix:
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(zip(missing, encode(missing), strict=True))
        return np.stack([known[text] for text in texts])

    return remembered


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
