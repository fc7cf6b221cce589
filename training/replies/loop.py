"""The training loop: AdamW, warm-up and cosine, clipped gradients, the best adapter kept."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.replies import lora
from training.replies.objective import Encoded, collate, reply_loss

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over all examples.
        rank: Of the adapter's factors.
        max_steps: Ends earlier than the epochs would; 0 takes them whole.
        checks: How often the validation loss is measured.
    """

    epochs: int = 1
    rank: int = 8
    learning_rate: float = 5e-4
    batch: int = 8
    seed: int = 0
    max_steps: int = 0
    checks: int = 4
    warmup_share: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Outcome:
    """What training brought; losses are mean cross-entropy per reply token."""

    steps: int
    seconds: float
    loss_before: float
    loss_best: float
    best_step: int
    adapter_bytes: int


def train(
    model: Any,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    out: Path,
    recipe: Recipe,
    pad: int,
    progress: Progress,
) -> Outcome:
    """Train an adapter and keep the one with the least validation loss in `out`.

    Args:
        model: With an adapter whose weights alone are trainable.
        training: At least one example.
        validation: Of entries that training does not see; empty keeps the last adapter.
        out: Is made; holds the adapter in peft's format.
        recipe: The same recipe, data and machine give the same adapter.
        pad: The padding token's id.
        progress: Takes one line at a time.
    """
    torch.manual_seed(recipe.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = planned_steps(len(training), recipe)
    check_every = max(1, math.ceil(steps / recipe.checks))
    began = time.monotonic()
    before = best = evaluate(model, validation, pad) if validation else math.inf
    best_step, size = 0, 0
    progress(f"{steps} steps of {recipe.batch}; validation loss {before:.3f}")
    for step, batch in enumerate(batches(training, steps, recipe), start=1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule(step, steps, recipe.warmup_share)
        loss = _step(model, collate(batch, pad), optimizer, parameters, recipe.clip)
        if step % 10 == 0:
            left = (time.monotonic() - began) / step * (steps - step)
            progress(f"step {step}/{steps} loss {loss:.3f}, {left / 60:.0f} min left")
        if step % check_every == 0 or step == steps:
            now = evaluate(model, validation, pad) if validation else -float(step)
            progress(f"step {step}/{steps} validation loss {now:.3f}")
            if now < best:
                best, best_step, size = now, step, lora.save(model, out)
    if not size:  # nothing was better than the start: keep the start, so that `out` is whole
        size = lora.save(model, out)
    return Outcome(steps, time.monotonic() - began, before, best, best_step, size)


def planned_steps(examples: int, recipe: Recipe) -> int:
    """Return how many steps a recipe takes."""
    whole = math.ceil(examples / recipe.batch) * recipe.epochs
    return min(whole, recipe.max_steps) if recipe.max_steps else whole


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then half a cosine."""
    warmup = max(1, round(steps * warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(examples: Sequence[Encoded], steps: int, recipe: Recipe) -> Iterator[Sequence[Encoded]]:
    """Yield shuffled batches of examples alike in length, since padding is work for nothing."""
    chance = random.Random(recipe.seed)
    made = 0
    while made < steps:
        order = list(examples)
        chance.shuffle(order)
        pool = recipe.batch * 16
        chunks = [
            chunk
            for start in range(0, len(order), pool)
            for chunk in _by_length(order[start : start + pool], recipe.batch)
        ]
        chance.shuffle(chunks)
        yield from chunks[: steps - made]
        made += len(chunks)


def evaluate(model: Any, examples: Sequence[Encoded], pad: int, batch: int = 16) -> float:
    """Return the mean loss of the reply tokens of all examples."""
    model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for chunk in _by_length(list(examples), batch):
            count = sum(example.reply_tokens for example in chunk)
            total += reply_loss(model, collate(chunk, pad)).item() * count
            tokens += count
    model.train()
    return total / tokens


def _by_length(examples: list[Encoded], size: int) -> list[list[Encoded]]:
    ordered = sorted(examples, key=lambda example: len(example.ids))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _step(
    model: Any,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    clip: float,
) -> float:
    model.train()
    loss = reply_loss(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
