"""One training of the reply model from files to an adapter with its card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from answering.generators.rendering import render
from core.errors import InvalidInput
from training.replies import lora
from training.replies.data import (
    Cleaning,
    ReplyExample,
    dstc9_examples,
    hold_out,
    read_examples,
    without_inventions,
)
from training.replies.loop import Outcome, Recipe, train
from training.replies.objective import encode

HELD_OUT = 0.05
"""The share of the own entries that only validate."""
DSTC9_VALIDATION = 16
LONGEST_TOKENS = 640
"""Longer examples are left out: a batch costs what its longest costs."""


@dataclass(frozen=True)
class Request:
    """What to train on.

    Attributes:
        data: JSONL files of own examples.
        dstc9: The folder of grounded_dstc9_pairs, or None.
        dstc9_limit: How many of its examples are taken.
        repeats: How often the own examples are taken: they are fewer, and nearer to the use.
        base: A transformers folder of the reply model.
        base_name: Its public name, for the adapter's configuration.
        start: An adapter to go on from, or None.
        threads: CPU threads; 0 leaves torch's choice.
    """

    data: tuple[Path, ...]
    dstc9: Path | None
    dstc9_limit: int
    repeats: int
    base: Path
    base_name: str
    start: Path | None = None
    threads: int = 0


@dataclass(frozen=True)
class Examples:
    """What a request holds, read and cleaned."""

    own: list[ReplyExample]
    general: list[ReplyExample]
    validation: list[ReplyExample]
    cleaning: Cleaning


def gather(request: Request, seed: int) -> Examples:
    """Read and clean the examples of a request.

    Raises:
        InvalidInput: A file is missing or wrong, or there is nothing to train on.
    """
    cleaning = Cleaning()
    given = [example for path in request.data for example in read_examples(path)]
    own, validation = hold_out(without_inventions(given, cleaning), HELD_OUT, seed)
    general: list[ReplyExample] = []
    if request.dstc9 is not None:
        general = dstc9_examples(request.dstc9, "train", cleaning, seed=seed)
        general = general[: request.dstc9_limit]
        unseen = dstc9_examples(request.dstc9, "val_unseen", Cleaning(), seed=seed)
        validation += unseen[:DSTC9_VALIDATION]
    if not own and not general:
        raise InvalidInput("there is nothing to train on: give --data or --dstc9", field="data")
    return Examples(own, general, validation, cleaning)


def run(request: Request, recipe: Recipe, out: Path, progress: Callable[[str], None]) -> Outcome:
    """Train an adapter into `out`, with `training.json` beside it that says how.

    Raises:
        InvalidInput: The data is missing or wrong.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    examples = gather(request, recipe.seed)
    for line in examples.cleaning.lines():
        progress(line)
    progress(f"{len(examples.own)} own examples x {request.repeats}, {len(examples.general)} of "
             f"DSTC9, {len(examples.validation)} to validate")  # fmt: skip
    if request.threads:
        torch.set_num_threads(request.threads)
    torch.manual_seed(recipe.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(request.base))
    # fp32: on the CPUs tried, without bf16 matrix units, a step took 7.6 core-seconds, bf16 12.4
    base: Any = AutoModelForCausalLM.from_pretrained(str(request.base), dtype=torch.float32)
    model = (
        lora.resume(base, request.start, request.base_name)
        if request.start
        else lora.add(base, recipe.rank, request.base_name)
    )

    def encoded(part: Sequence[ReplyExample]) -> list[Any]:
        every = [encode(example, tokenizer, render) for example in part]
        return [example for example in every if len(example.ids) <= LONGEST_TOKENS]

    training = encoded(examples.own) * request.repeats + encoded(examples.general)
    pad = int(tokenizer.pad_token_id or tokenizer.eos_token_id)
    outcome = train(model, training, encoded(examples.validation), out, recipe, pad, progress)
    _record(out, request, recipe, examples, outcome)
    return outcome


def _record(
    out: Path, request: Request, recipe: Recipe, examples: Examples, outcome: Outcome
) -> None:
    """Write how the adapter was made, without paths of the machine that made it."""
    record = {
        "base": request.base_name,
        "own_files": [path.name for path in request.data],
        "own_examples": len(examples.own),
        "dstc9_examples": len(examples.general),
        "left_out": dict(examples.cleaning.left_out),
        "validation_examples": len(examples.validation),
        "repeats": request.repeats,
        "recipe": asdict(replace(recipe)),
        "outcome": asdict(outcome),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
