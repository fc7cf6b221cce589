"""Tuning the encoder for labelled messages, kept only where held-out messages are told better."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from answering.intents import IntentClassifier, IntentFigures, in_words
from core.errors import InvalidInput
from retrieval.encoders.protocol import Encoder
from training.checking import Row

if TYPE_CHECKING:
    from training.encoder.loop import Training

Say = Callable[[str], None]

HELD_OUT = 5
"""Every fifth message, of each label, decides whether tuning helps."""
PASSES = 8
"""How often each message is seen at most."""
BATCH = 64
FEWEST_STEPS, MOST_STEPS = 20, 1_500
TIMED_STEPS = 2
CHECKPOINT_EVERY = 20
SHARES_OF_TIME = 2
"""The time goes to the rehearsal and to the training on all messages, half each."""


@dataclass(frozen=True)
class Options:
    """How long to tune, and where an interrupted tuning is found again.

    Attributes:
        minutes: For the whole of it.
        place: Folder of checkpoints; None keeps none.
        learning_rate: Of the adapter.
    """

    minutes: float = 20.0
    place: Path | None = None
    learning_rate: float = 3e-4


@dataclass(frozen=True)
class Choice:
    """What tuning brought on held-out messages.

    Attributes:
        tuned: The encoder and its adapter, from all messages; None where the frozen one is as good.
        before: Figures of held-out messages with the frozen encoder.
        after: With the tuned one.
    """

    tuned: Any
    before: IntentFigures
    after: IntentFigures
    steps: int


def choose(
    rows: Sequence[Row], encoder: Encoder, options: Options, say: Say, *, seed: int = 7
) -> Choice | None:
    """Return whether tuning helps, and the tuned encoder where it does.

    Of the messages a fifth is held out; the encoder is tuned on the others and both are compared
    by how many held-out messages each tells right. Only if the tuned one wins is it tuned on all.

    Raises:
        InvalidInput: The encoder cannot be tuned.
    """
    train, test = _split(rows, seed)
    if len({rows[i].label for i in train}) < len({row.label for row in rows}) or not len(test):
        say("Tuning is left out: some intents have too few messages to hold any out")
        return None
    steps = _steps(rows, encoder, options, say, seed)
    before, was_right = _told(rows, train, test, encoder, seed)
    say(f"Held out: {before.accuracy:.4f} right with the frozen encoder; {steps} steps follow")
    some = [rows[i] for i in train]
    rehearsed = _tune(some, encoder, steps, seed, options, "rehearsal", say)
    after, is_right = _told(rows, train, test, rehearsed.encoder, seed)
    won, lost = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    say(f"Held out: {after.accuracy:.4f} right with the tuned one, {won} won and {lost} lost")
    if not is_better(won, lost):
        return Choice(None, before, after, steps)
    tuned = _tune(rows, encoder, steps, seed, options, "training", say)
    return Choice(tuned, before, after, steps)


def is_better(won: int, lost: int) -> bool:
    """Return whether more messages were won than chance explains.

    Source: the sign test on pairs that differ (McNemar 1947), normal approximation, one-sided 84%:
    being a little too bold costs nothing, since both are nearly alike then.
    """
    return won - lost > math.sqrt(won + lost)


def clear(place: Path | None) -> None:
    """Remove the checkpoints of a tuning that is through."""
    if place is None or not place.is_dir():
        return
    for file in [*place.glob("*.pt"), *place.glob("plan.json")]:
        file.unlink(missing_ok=True)
    if not any(place.iterdir()):
        place.rmdir()


def _split(rows: Sequence[Row], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (train, test), each text and each origin on one side only."""
    rng = np.random.default_rng(seed)
    first: dict[str, int] = {}
    group = np.asarray([first.setdefault(r.origin or r.text, i) for i, r in enumerate(rows)])
    heads = rng.permutation(np.unique(group))
    heads = heads[np.argsort([rows[i].label for i in heads], kind="stable")]
    is_test = np.isin(group, heads[HELD_OUT - 1 :: HELD_OUT])
    given = group == np.arange(len(rows))
    return np.flatnonzero(~is_test), np.flatnonzero(is_test & given)


def _told(
    rows: Sequence[Row],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    encoder: Encoder,
    seed: int,
) -> tuple[IntentFigures, NDArray[np.bool_]]:
    some, others = [rows[i] for i in train], [rows[i] for i in test]
    kinds = sorted({row.label for row in some})
    called = encoder.encode_queries([in_words(kind) for kind in kinds])
    classifier = IntentClassifier.fit(
        encoder.encode_queries([row.text for row in some]),
        [row.label for row in some],
        texts=[row.text for row in some],
        named=dict(zip(kinds, called, strict=True)),
        seed=seed,
    )
    vectors, texts = encoder.encode_queries([r.text for r in others]), [r.text for r in others]
    labels = [row.label for row in others]
    told = np.asarray(classifier.names)[classifier.probabilities(vectors, texts).argmax(axis=1)]
    return classifier.evaluate(vectors, labels, texts), told == np.asarray(labels)


def _steps(rows: Sequence[Row], encoder: Encoder, options: Options, say: Say, seed: int) -> int:
    """Return how many steps fit into the time; an interrupted tuning keeps its number."""
    plan = {"data": digest(rows), "encoder": encoder.name, "seed": seed}
    file = options.place / "plan.json" if options.place else None
    if file is not None and file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in plan} == plan:
            say(f"An interrupted tuning goes on: {kept['steps']} steps")
            return int(kept["steps"])
        clear(options.place)
    begun = time.monotonic()
    _tune(rows, encoder, TIMED_STEPS, seed, Options(), "timing", say)
    each = (time.monotonic() - begun) / TIMED_STEPS
    affordable = int(options.minutes * 60 / SHARES_OF_TIME / each)
    wanted = min(PASSES * -(-len(rows) // BATCH), MOST_STEPS)
    steps = max(min(wanted, affordable), FEWEST_STEPS)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**plan, "steps": steps}), encoding="utf-8")
    return steps


def _tune(
    rows: Sequence[Row],
    encoder: Encoder,
    steps: int,
    seed: int,
    options: Options,
    name: str,
    say: Say,
) -> Any:
    from training.encoder.data import labelled_batches
    from training.encoder.loop import Recipe, Training

    recipe = Recipe(steps=steps, seed=seed, learning_rate=options.learning_rate)
    training = Training(encoder, recipe)
    file = options.place / f"{name}.pt" if options.place else None
    if file is not None and file.is_file():
        training.resume(file)
        say(f"Tuning ({name}) goes on at step {training.done} of {steps}")
    batches = labelled_batches(
        [(row.text, row.label) for row in rows], encoder, size=BATCH, seed=seed
    )
    for batch in itertools.islice(batches, training.done, steps):
        loss = training.step(batch)
        if training.done % CHECKPOINT_EVERY == 0:
            _keep(training, file, say)
            say(f"Tuning ({name}): step {training.done} of {steps}, loss {loss:.3f}")
    return training.tuned()


def _keep(training: Training, file: Path | None, say: Say) -> None:
    """Write a checkpoint; without room for it the tuning goes on."""
    if file is None:
        return
    try:
        training.save(file)
    except OSError as error:
        say(f"No checkpoint could be kept: {error.strerror or error}")


def digest(rows: Sequence[Row]) -> str:
    """Return a hash of labelled messages, whatever their lines."""
    said = json.dumps([(row.text, row.label) for row in rows], ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()


def as_figures(choice: Choice) -> dict[str, Any]:
    """Return what a card says about a choice."""
    return {
        "chosen": choice.tuned is not None,
        "steps": choice.steps,
        "before": asdict(choice.before),
        "after": asdict(choice.after),
    }


def check_minutes(minutes: float) -> None:
    """Refuse a time in which nothing can be tuned.

    Raises:
        InvalidInput: It is not above nothing.
    """
    if not 0 < minutes <= 24 * 60:
        raise InvalidInput(f"--minutes {minutes} must be above 0, and a day at most.",
                           field="minutes")  # fmt: skip
