"""The training of a cross-encoder on labelled pairs: an adapter and a head, the rest stays.

Source: Hu et al., LoRA, ICLR 2022; soft targets by cross entropy: Hinton et al., 2015.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import InvalidInput
from retrieval.encoders.cross import CrossEncoder, CrossWeights, Network
from retrieval.encoders.protocol import Encoder
from training.encoder import lora
from training.encoder.loop import rate

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PairExample:
    """Two texts and what holds of them.

    Attributes:
        target: The number of a class, or a chance for each class.
        weight: Of its loss; 1 for an example whose label is beyond doubt.
    """

    a: str
    b: str
    target: int | tuple[float, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        rank: Of the adapter; 8 on all layers of the small e5 is 1.3 MB in half precision.
        layers: Only so many of the last layers are tuned; 0 takes all.
        batch: Pairs in a step.
        head_rate: Times the learning rate, for the head, which begins at random.
        smoothing: Of hard targets; made labels are not all right.
    """

    epochs: int = 1
    learning_rate: float = 5e-4
    rank: int = 8
    layers: int = 0
    batch: int = 16
    head_rate: float = 4.0
    warmup_share: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    smoothing: float = 0.02
    seed: int = 0


def train(
    encoder: Encoder,
    examples: Sequence[PairExample],
    classes: tuple[str, ...],
    recipe: Recipe,
    progress: Progress = lambda _: None,
    resume: Path | None = None,
    every: int = 50,
) -> CrossWeights:
    """Return the weights of a cross-encoder.

    Args:
        encoder: Stays as it is; the weights belong to it by its name.
        examples: In any order; they are shuffled.
        classes: What the targets mean.
        recipe: The same encoder, examples, recipe and machine give the same weights.
        progress: Is told the step and the loss now and then.
        resume: A checkpoint: written each `every` steps, gone on from if it exists, and removed
            at the end.
        every: Steps between two checkpoints.

    Raises:
        InvalidInput: The encoder cannot be tuned, a target is none of the classes, the checkpoint
            is of another training, or the training went astray.
    """
    training = Training(encoder, classes, recipe)
    targets = np.stack([_target(example, len(classes)) for example in examples])
    steps = recipe.epochs * math.ceil(len(examples) / recipe.batch)
    if resume is not None and resume.exists():
        training.resume(resume)
        progress(f"going on at step {training.done}")
    for number, some in enumerate(_batches(examples, recipe)):
        if number < training.done:
            continue
        training.step([examples[i] for i in some], targets[some], steps)
        if training.done % every == 0:
            mean = sum(training.losses[-every:]) / every
            progress(f"step {training.done} of {steps}, loss {mean:.3f}")
            if resume is not None:
                training.save(resume)
    if resume is not None:
        resume.unlink(missing_ok=True)
    return training.weights()


class Training:
    """A training that goes on step by step."""

    def __init__(self, encoder: Encoder, classes: tuple[str, ...], recipe: Recipe) -> None:
        source = lora.trainable(encoder)
        torch.manual_seed(recipe.seed)
        self._encoder = encoder
        self._classes = classes
        self._recipe = recipe
        self._network = Network(source, len(classes))
        self._network.transformer.requires_grad_(False)
        self._network.transformer.eval()  # no dropout: few steps, and masks cost time on a CPU
        self._tuned = lora.add_to(self._network.transformer, recipe.rank, recipe.layers)
        self._network.transformer = self._tuned.base_model.model
        adapter = [p for p in self._tuned.parameters() if p.requires_grad]
        head = list(self._network.head.parameters())
        self._parameters = [*adapter, *head]
        rates = (recipe.learning_rate, recipe.learning_rate * recipe.head_rate)
        self._rates = rates
        self._optimizer = torch.optim.AdamW(
            [{"params": adapter, "lr": rates[0]}, {"params": head, "lr": rates[1]}],
            weight_decay=recipe.weight_decay,
        )
        self.losses: list[float] = []

    @property
    def done(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def step(
        self, examples: Sequence[PairExample], targets: np.ndarray[Any, Any], steps: int
    ) -> float:
        """Take a step, and return its loss.

        Args:
            examples: Of one batch.
            targets: Shape (examples, classes).
            steps: Of the whole training; the learning rate ends at nothing there.
        """
        recipe = self._recipe
        share = rate(self.done + 1, steps, recipe.warmup_share)
        for group, top in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = top * share
        logits = self._network.logits([(example.a, example.b) for example in examples])
        wanted = torch.from_numpy(targets).to(logits)
        wanted = wanted * (1 - recipe.smoothing) + recipe.smoothing / wanted.shape[1]
        weight = torch.tensor([example.weight for example in examples]).to(logits)
        each = -(wanted * logits.log_softmax(dim=1)).sum(dim=1)
        loss = (each * weight).sum() / weight.sum().clamp(min=1e-6)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise InvalidInput("the training went astray: give a smaller --lr", field="lr")
        return self.losses[-1]

    def weights(self) -> CrossWeights:
        """Return what there is so far, in half precision."""
        head = self._network.head
        return CrossWeights(
            lora.taken(self._tuned, self._encoder.name),
            head.weight.detach().cpu().numpy().astype(np.float16),
            head.bias.detach().cpu().numpy().astype(np.float16),
            self._classes,
        )

    def save(self, place: Path) -> None:
        """Write a checkpoint; it replaces an earlier one at once or not at all."""
        state = {
            "of": self._identity(),
            "parameters": [p.detach() for p in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "losses": list(self.losses),
        }
        part = place.with_name(f".{place.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)

    def resume(self, place: Path) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            InvalidInput: It cannot be read, or is of another training.
        """
        try:
            state: dict[str, Any] = torch.load(place, weights_only=True)
            is_same = state["of"] == self._identity()
            if is_same:
                with torch.no_grad():
                    for parameter, kept in zip(self._parameters, state["parameters"], strict=True):
                        parameter.copy_(kept)
                self._optimizer.load_state_dict(state["optimizer"])
                self.losses = [float(loss) for loss in state["losses"]]
        except Exception as error:  # torch raises pickle's own for a file that was cut
            raise InvalidInput(
                f"{place} is damaged ({error}): remove it to start anew", field="out"
            ) from error
        if not is_same:
            raise InvalidInput(
                f"{place} is the checkpoint of a training with other settings: repeat those, or "
                "remove it to start anew",
                field="out",
            )

    def _identity(self) -> dict[str, Any]:
        return {"encoder": self._encoder.name, "classes": list(self._classes)} | asdict(
            self._recipe
        )


def scorer(encoder: Encoder, weights: CrossWeights) -> CrossEncoder:
    """Return the scorer that serves with these weights."""
    return CrossEncoder.load(encoder, weights)


def _batches(examples: Sequence[PairExample], recipe: Recipe) -> Iterator[list[int]]:
    """Yield the numbers of each step's examples, those of a batch alike in length.

    Padding is work for nothing; groups of sixteen batches are sorted, the batches then shuffled.
    """
    for epoch in range(recipe.epochs):
        chance = random.Random(recipe.seed * 1000 + epoch)
        order = list(range(len(examples)))
        chance.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), 16 * recipe.batch):
            some = sorted(order[start : start + 16 * recipe.batch],
                          key=lambda i: len(examples[i].a) + len(examples[i].b))  # fmt: skip
            batches += [some[at : at + recipe.batch] for at in range(0, len(some), recipe.batch)]
        chance.shuffle(batches)
        yield from batches


def _target(example: PairExample, classes: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    target = np.zeros(classes, np.float32)
    if isinstance(example.target, int):
        if not 0 <= example.target < classes:
            raise InvalidInput(f"{example.target} is the number of no class", field="target")
        target[example.target] = 1.0
        return target
    if len(example.target) != classes:
        raise InvalidInput(f"{example.target} is no chance for each class", field="target")
    target[:] = example.target
    return target
