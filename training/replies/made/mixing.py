"""The general part of the training data: DSTC9's pairs and what is made by rule, mixed."""

from __future__ import annotations

import random
from pathlib import Path

from training.replies.data import Cleaning, ReplyExample, dstc9_examples, read_rows
from training.replies.made.composing import Kind, compose_many
from training.replies.made.conditions import conditions
from training.replies.made.facets import facts, held_places

MADE = {Kind.TOGETHER: 0.19, Kind.AGAINST: 0.09, Kind.FOLLOW_UP: 0.13, Kind.MISSING: 0.09}
"""The share of each kind in the mix."""
CONDITIONS = 0.15


def general_examples(
    folder: Path, count: int, cleaning: Cleaning, *, seed: int = 0
) -> list[ReplyExample]:
    """Return so many examples to learn from, shuffled: made by rule, the rest people's replies.

    None comes from a place that `held_places` keeps for tests.

    Args:
        folder: Of grounded_dstc9_pairs; holds `kb.jsonl` and `train.jsonl`.
        count: How many in all; people's replies end it earlier where they are too few.
        cleaning: Is filled with the counts of people's replies.
        seed: The same seed gives the same examples.

    Raises:
        InvalidInput: A file is missing or not JSONL.
    """
    chance = random.Random(seed)
    rows = read_rows(folder / "kb.jsonl")
    tested = held_places(rows)
    by_place = {place: told for place, told in facts(rows).items() if place not in tested}
    made = [
        case.example
        for kind, share in MADE.items()
        for case in compose_many(kind, by_place, round(share * count), chance)
    ]
    made += [case.example for case in conditions(round(CONDITIONS * count), chance, test=False)]
    written = [
        example
        for example in dstc9_examples(folder, "train", cleaning, seed=seed)
        if example.entry_id.rsplit("/", 1)[0] not in tested
    ]
    mixed = made + written[: max(0, count - len(made))]
    chance.shuffle(mixed)
    return mixed
