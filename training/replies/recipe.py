"""How to train, and what training brought."""

from __future__ import annotations

from dataclasses import dataclass

import torch

OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over all examples.
        rank: Size of the adapter; see `Shape`.
        batch: Examples of one step, over all GPUs together.
        accumulate: In how many parts a step's batch is run, for less memory; the result stays.
        max_steps: Ends earlier than the epochs would; 0 takes them whole.
        checks: How often the validation loss is measured.
        patience: After so many checks without a better one training ends; 0 never.
        method: Its name in `methods.METHODS`.
        dropout: Of what goes into the adapter.
        last_layers: How many the method of that name trains.
        optimizer: `adamw` or `adafactor`; see `_optimizer`.
        schedule: `cosine`, `linear` or `constant`, after the warm-up.
        precision: `fp32`, `bf16` or `fp16` (a GPU's alone) of the products; weights are fp32.
        checkpointing: Runs layers again on the way back instead of keeping what they did.
        action_weight: Lambda in loss = reply loss + lambda x action loss; 0 has no action head.
        adversarial: Epsilon of the step on the embeddings, in lengths of a mean one; 0 has none.
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
    accumulate: int = 1
    patience: int = 0
    method: str = "lora"
    dropout: float = 0.0
    last_layers: int = 2
    optimizer: str = "adamw"
    schedule: str = "cosine"
    precision: str = "fp32"
    checkpointing: bool = False
    action_weight: float = 0.0
    adversarial: float = 0.0


@dataclass(frozen=True)
class Measured:
    """Validation losses: of a reply token and of a decision, and the share of decisions right."""

    reply: float
    action: float = 0.0
    accuracy: float | None = None

    def joint(self, weight: float) -> float:
        """Return reply loss + weight x action loss."""
        return self.reply + weight * self.action


@dataclass(frozen=True)
class Outcome:
    """What training brought; losses are mean cross-entropy per reply token.

    Attributes:
        action_accuracy: Share of validation examples whose decision the head tells; None without.
        stopped_early: Patience ended it.
        resumed_at: The step from which an interrupted training went on, 0 if it was none.
        is_kept: What was there before was no better on the same validation examples.
    """

    steps: int
    seconds: float
    loss_before: float
    loss_best: float
    best_step: int
    adapter_bytes: int
    action_accuracy: float | None = None
    stopped_early: bool = False
    resumed_at: int = 0
    is_kept: bool = True
