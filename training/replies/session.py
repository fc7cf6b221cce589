"""One training of the reply model: from files to an adapter with its card."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from answering.generators.adapted import CONFIG_FILE, WEIGHTS_FILE
from core.errors import ConfigurationError, InvalidInput
from core.types import Decision
from training.replies import ensemble
from training.replies.adalora import METHOD as ADALORA
from training.replies.cleaning import (
    Lesson,
    Mask,
    Report,
    as_row,
    read_lessons,
    unmasked,
    write_lessons,
)
from training.replies.data import Cleaning, ReplyExample, dstc9_examples, hold_out
from training.replies.fitting import LONGEST_TOKENS, Bench, encoded, load_tokenizer, opening_of
from training.replies.logs import Curves
from training.replies.loop import HEAD_FILE, planned_steps
from training.replies.made.mixing import general_examples
from training.replies.objective import Encoded
from training.replies.recipe import Measured, Outcome, Recipe
from training.replies.search import Found, search

HELD_OUT = 0.05
"""The share of the own entries that only validate."""
DSTC9_VALIDATION = 16
CONTRASTED = 0.3
"""Of the messages, so many are also shown with sources that do not answer them."""
RECORD = "training.json"
HELD_OUT_FILE = "held-out.jsonl"
WORK = ".training"
"""In the folder that is written: what is unfinished."""
MOVED = (WEIGHTS_FILE, CONFIG_FILE, HEAD_FILE)
FEWEST_STEPS_OF_ADALORA = 10


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
        desk: Pairs from the conversations of this installation, checked already.
        held_out: The share of entries that only validate.
        rehearsal: With `desk`, the share of older pairs, from `data`, among all.
        mask: Takes personal data out of what was said.
        longest: Tokens that an example may have.
    """

    data: tuple[Path, ...]
    dstc9: Path | None
    dstc9_limit: int
    repeats: int
    base: Path
    base_name: str
    start: Path | None = None
    threads: int = 0
    desk: tuple[Lesson, ...] = ()
    held_out: float = HELD_OUT
    rehearsal: float = 0.5
    mask: Mask = unmasked
    longest: int = LONGEST_TOKENS


@dataclass(frozen=True)
class Extras:
    """What else a training does.

    Attributes:
        ensemble: Adapters whose mean is taken; 1 trains one.
        search: Trials before it; 0 trains by the recipe as it is.
        wandb_project: Where Weights & Biases shows it, None for nowhere.
    """

    ensemble: int = 1
    search: int = 0
    wandb_project: str | None = None


@dataclass(frozen=True)
class Examples:
    """What a request holds, read and cleaned."""

    own: list[Lesson]
    general: list[Lesson]
    validation: list[Lesson]
    report: Report = field(default_factory=Report)

    @property
    def data_sha256(self) -> str:
        """A hash of all that is trained on and validated with, whatever file it came from."""
        digest = hashlib.sha256()
        for part in (self.own, self.general, self.validation):
            for lesson in part:
                digest.update(json.dumps(as_row(lesson), sort_keys=True).encode())
        return digest.hexdigest()


def gather(request: Request, seed: int, *, contrasts: bool = False) -> Examples:
    """Read and clean the examples of a request.

    Args:
        request: What to train on.
        seed: Of the parts that are held out.
        contrasts: Adds messages with sources that do not answer them, where the data teaches one
            decision alone.

    Raises:
        InvalidInput: A file is missing or wrong, or there is nothing to train on.
    """
    report = Report()
    given = [lesson for path in request.data for lesson in read_lessons(path, report, request.mask)]
    if request.desk:
        given = [*request.desk, *_rehearsed(given, len(request.desk), request.rehearsal, seed)]
    own, validation = _held_out(given, request.held_out, seed)
    general: list[Lesson] = []
    if request.dstc9 is not None:
        mixed = general_examples(request.dstc9, request.dstc9_limit, report.cleaning, seed=seed)
        general = _lessons(mixed, "DSTC9")
        unseen = dstc9_examples(request.dstc9, "val_unseen", Cleaning(), seed=seed)
        validation += _lessons(unseen[:DSTC9_VALIDATION], "DSTC9")
    if not own and not general:
        raise InvalidInput("there is nothing to train on: give --data or --dstc9", field="data")
    if contrasts and {lesson.decision for lesson in (*own, *general)} == {Decision.ANSWER}:
        own = [*own, *contrasted(own, seed)]
        general = [*general, *contrasted(general, seed)]
        validation = [*validation, *contrasted(validation, seed, share=1.0)]
    return Examples(own, general, validation, report)


def contrasted(lessons: Sequence[Lesson], seed: int, share: float = CONTRASTED) -> list[Lesson]:
    """Return messages with another message's sources: nothing there answers, a person must.

    Without a reply: what is said in a hand-off is a system text, so that the decision alone is
    learned.
    """
    chance = random.Random(seed)
    made: list[Lesson] = []
    for lesson in chance.sample(list(lessons), round(len(lessons) * share)):
        other = chance.choice(lessons).example
        if other.entry_id != lesson.example.entry_id and other.sources:
            example = replace(lesson.example, sources=other.sources, reply="")
            made.append(Lesson(example, Decision.HAND_OFF, lesson.where))
    return made


def run(
    request: Request,
    recipe: Recipe,
    out: Path,
    progress: Callable[[str], None],
    extras: Extras | None = None,
) -> Outcome:
    """Train an adapter into `out`, with `training.json` beside it that says how.

    What was in `out` stays until the new one is whole, and for good if it is better on the
    validation examples. The same call after an interruption goes on where it was.

    Raises:
        InvalidInput: The data is missing or wrong, or the recipe cannot be run.
        ConfigurationError: The base cannot be loaded, or `out` cannot be written.
    """
    try:
        return _run(request, recipe, out, progress, extras or Extras())
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(_unwritten(out, error)) from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "iostream error" not in str(error):
            raise
        raise ConfigurationError(_unwritten(out, error)) from error


def _unwritten(out: Path, error: Exception) -> str:
    return (
        f"training into {out} was broken off: {error}; what was there before is as it was, and the "
        "same command goes on from the last check"
    )


def _run(
    request: Request, recipe: Recipe, out: Path, progress: Callable[[str], None], extras: Extras
) -> Outcome:
    examples = gather(request, recipe.seed, contrasts=recipe.action_weight > 0)
    if request.threads:
        torch.set_num_threads(request.threads)
    bench = _bench(request, examples)
    for line in examples.report.lines():
        progress(line)
    progress(f"{len(examples.own)} own examples x {request.repeats}, {len(examples.general)} of "
             f"DSTC9, {len(examples.validation)} to validate")  # fmt: skip
    if not bench.training:
        raise InvalidInput("there is nothing to train on: all examples are too long", field="data")
    _check(recipe, bench)
    out.mkdir(parents=True, exist_ok=True)
    work = out / WORK
    before = _standing(bench, out)
    found = None
    if extras.search:
        if not bench.validation:
            raise InvalidInput("--search needs examples to validate on", field="search")
        found = search(bench, recipe, extras.search, work / "trials", progress)
        recipe = found.recipe
    key = _key(request, recipe, examples, extras)
    curves = Curves(out, asdict(recipe), progress, extras.wandb_project)
    try:
        if extras.ensemble > 1:
            outcome = ensemble.fit(bench, recipe, extras.ensemble, work, progress, curves.add)
        else:
            outcome = bench.fit(recipe, work, progress, key=key, curve=curves.add)
    finally:
        curves.close()
    weight = recipe.action_weight
    if before is not None and bench.validation and before.reply <= outcome.loss_best:
        shutil.rmtree(work, ignore_errors=True)
        progress(f"{out} stays as it was: its validation loss is {before.reply:.3f}, that of the "
                 f"new one {outcome.loss_best:.3f} (lambda {weight:g})")  # fmt: skip
        return replace(outcome, is_kept=False)
    _record(work, request, recipe, examples, outcome, extras, found)
    _publish(work, out)
    return outcome


def _bench(request: Request, examples: Examples) -> Bench:
    tokenizer = load_tokenizer(request.base)

    def ids(part: Sequence[Lesson]) -> list[Encoded]:
        return encoded(part, tokenizer, examples.report, request.longest)

    training = [*(ids(examples.own) * request.repeats), *ids(examples.general)]
    return Bench(
        base=request.base,
        base_name=request.base_name,
        training=training,
        validation=ids(examples.validation),
        pad=int(tokenizer.pad_token_id or tokenizer.eos_token_id),
        opening=opening_of(training),
        start=request.start,
    )


def _check(recipe: Recipe, bench: Bench) -> None:
    steps = planned_steps(len(bench.training), recipe)
    if bench.method(recipe) is ADALORA and steps < FEWEST_STEPS_OF_ADALORA:
        raise InvalidInput(
            f"adalora shares out its ranks over at least {FEWEST_STEPS_OF_ADALORA} steps and there "
            f"are {steps}; give more --data or --epochs, or use --method lora",
            field="method",
        )


def _standing(bench: Bench, out: Path) -> Measured | None:
    """Return how good what stands in the folder is, None where nothing does."""
    if not (out / CONFIG_FILE).is_file() or not (out / WEIGHTS_FILE).is_file():
        return None
    return bench.measure(out) if bench.validation else None


def _publish(work: Path, out: Path) -> None:
    """Put what was trained in the place of what was there.

    Files are renamed, which needs no room on the disk and cannot stop half-way through one.
    """
    for name in (*MOVED, RECORD, HELD_OUT_FILE):
        if (work / name).is_file():
            os.replace(work / name, out / name)
        elif name == HEAD_FILE:  # of the adapter that was there
            (out / name).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _key(request: Request, recipe: Recipe, examples: Examples, extras: Extras) -> str:
    """Return a hash of all that a training's result depends on."""
    start = None
    if request.start is not None and (request.start / WEIGHTS_FILE).is_file():
        start = hashlib.sha256((request.start / WEIGHTS_FILE).read_bytes()).hexdigest()
    whole = {
        "data": examples.data_sha256, "recipe": asdict(recipe), "base": request.base_name,
        "repeats": request.repeats, "start": start, "ensemble": extras.ensemble,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _lessons(examples: Sequence[ReplyExample], where: str) -> list[Lesson]:
    return [Lesson(example, where=where) for example in examples]


def _rehearsed(old: Sequence[Lesson], new: int, share: float, seed: int) -> list[Lesson]:
    """Return so many older pairs that they are a share of all, by chance."""
    count = min(len(old), round(new * share / (1 - share)))
    return random.Random(seed).sample(list(old), count)


def _held_out(
    lessons: Sequence[Lesson], share: float, seed: int
) -> tuple[list[Lesson], list[Lesson]]:
    """Split lessons into parts that share no entry."""
    training, _ = hold_out([lesson.example for lesson in lessons], share, seed)
    kept = {id(example) for example in training}
    return (
        [lesson for lesson in lessons if id(lesson.example) in kept],
        [lesson for lesson in lessons if id(lesson.example) not in kept],
    )


def _record(
    folder: Path,
    request: Request,
    recipe: Recipe,
    examples: Examples,
    outcome: Outcome,
    extras: Extras,
    found: Found | None,
) -> None:
    """Write how the adapter was made, without paths of the machine that made it."""
    record: dict[str, Any] = {
        "data_sha256": examples.data_sha256,
        "base": request.base_name,
        "own_files": [path.name for path in request.data],
        "own_examples": len(examples.own),
        "desk_pairs": len(request.desk),
        "dstc9_examples": len(examples.general),
        "left_out": dict(examples.report.cleaning.left_out),
        "masked": len(examples.report.masked),
        "validation_examples": len(examples.validation),
        "repeats": request.repeats,
        "recipe": asdict(recipe),
        "ensemble": extras.ensemble,
        "search": _searched(found),
        "outcome": asdict(outcome),
    }
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
    answers = [v for v in examples.validation if v.decision is Decision.ANSWER]
    write_lessons(answers, folder / HELD_OUT_FILE)


def _searched(found: Found | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    return {"trials": found.trials, "pruned": found.pruned, "best": dict(found.values)}
