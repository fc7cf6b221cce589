"""What choosing the next messages to label brings over taking them as they come.

Run: python -m benchmarks.labelling --data DIR --models MODELS [--seeds 2]
DIR holds `train.csv` with the columns text and category (BANKING77); MODELS is the model store.
The held-out part is drawn from that file too: no test split is touched. "Labelled" means that the
file's own label is looked up, so a round costs nobody a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from answering.intents import IntentClassifier
from benchmarks.augmentation import Encode, remembering
from retrieval.encoders.loading import load_encoder
from training import active, augmenting
from training.active import Doubtful
from training.augmenting import Example

SHOTS = 3
HELD_OUT = 1_500
POOL = 2_000
"""Messages without a label, as they would have come in."""
ROUNDS = (77, 77, 154)
"""How many are labelled in each round; the head is fitted anew between them."""
WAYS = ("as they come", "chosen by words", "chosen by meaning")


@dataclass(frozen=True)
class Draw:
    """A few examples of each intent, messages to choose from, and the test."""

    given: Sequence[Example]
    pool: Sequence[Example]
    test: Sequence[Example]


def main() -> None:
    """Print the accuracy after each round, for each way to choose."""
    arguments = _arguments()
    examples = augmenting.read(arguments.data / "train.csv")
    encoder = load_encoder("multilingual-e5-small", arguments.models)
    encode = remembering(encoder.encode_queries)
    print("| labels | seed | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    for seed in range(arguments.seeds):
        draw = _draw(examples, seed)
        told = {way: _curve(draw, way, encode, seed) for way in WAYS}
        for place, count in enumerate(np.cumsum([len(draw.given), *ROUNDS])):
            cells = " | ".join(f"{100 * told[way][place]:.1f}" for way in WAYS)
            print(f"| {count} | {seed} | {cells} |", flush=True)


def _draw(examples: Sequence[Example], seed: int) -> Draw:
    order = np.random.default_rng(seed).permutation(len(examples))
    test = [examples[i] for i in order[:HELD_OUT]]
    counts: dict[str, int] = {}
    given: list[Example] = []
    others: list[Example] = []
    for example in (examples[i] for i in order[HELD_OUT:]):
        counts[example.label] = counts.get(example.label, 0) + 1
        (given if counts[example.label] <= SHOTS else others).append(example)
    return Draw(given, others[:POOL], test)


def _curve(draw: Draw, way: str, encode: Encode, seed: int) -> list[float]:
    labelled, pool = list(draw.given), list(draw.pool)
    head = _fit(labelled, encode, seed)
    told = [_accuracy(head, draw.test, encode)]
    for count in ROUNDS:
        taken = _next(head, labelled, pool, count, way, encode)
        labelled += [pool[place] for place in sorted(taken)]
        pool = [example for place, example in enumerate(pool) if place not in taken]
        head = _fit(labelled, encode, seed)
        told.append(_accuracy(head, draw.test, encode))
    return told


def _next(
    head: IntentClassifier,
    labelled: Sequence[Example],
    pool: Sequence[Example],
    count: int,
    way: str,
    encode: Encode,
) -> set[int]:
    if way == WAYS[0]:
        return set(range(count))
    texts = [example.text for example in pool]
    vectors = encode(texts)
    doubtful = [
        Doubtful(
            text, told[0].probability, told[1].probability, answer_from=0.5,
            intent=told[0].probability,
        )
        for text, told in zip(texts, head.predict(vectors, texts), strict=True)
    ]  # fmt: skip
    picks = active.choose(
        doubtful, count, labelled=[example.text for example in labelled],
        vectors=vectors if way == WAYS[2] else None,
    )  # fmt: skip
    return {pick.place for pick in picks}


def _fit(examples: Sequence[Example], encode: Encode, seed: int) -> IntentClassifier:
    texts = [example.text for example in examples]
    labels = [example.label for example in examples]
    return IntentClassifier.fit(encode(texts), labels, texts=texts, seed=seed)


def _accuracy(head: IntentClassifier, test: Sequence[Example], encode: Encode) -> float:
    texts = [example.text for example in test]
    return head.evaluate(encode(texts), [example.label for example in test], texts).accuracy


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
