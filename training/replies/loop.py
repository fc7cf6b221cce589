"""The training loop: warm-up and a schedule, clipped gradients, the best state kept."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from core.errors import InvalidInput
from training.replies import checkpoints
from training.replies.lora import METHOD as LORA
from training.replies.objective import (
    DECISIONS,
    ActionHead,
    Encoded,
    Learner,
    Sums,
    causal_of,
    collate,
)
from training.replies.protocol import Method
from training.replies.recipe import PRECISIONS, Measured, Outcome, Recipe

Progress = Callable[[str], None]
Curve = Callable[[int, dict[str, float]], None]
Watch = Callable[[int, float, float], None]
"""Takes the step and the two validation losses, of the reply and of the action."""

HEAD_FILE = "action_head.safetensors"
TOLD_EVERY = 10


def _no_curve(_step: int, _figures: dict[str, float]) -> None:
    """Nobody looks."""


def _no_watch(_step: int, _reply: float, _action: float) -> None:
    """Nobody prunes."""


@dataclass(frozen=True)
class Job:
    """What is trained, and who is told.

    Attributes:
        model: As the method returned it.
        base_name: Is written into the adapter's configuration.
        head: The action head, where `action_weight` is above zero.
        key: Of data and recipe; a checkpoint with another key is not taken up. Empty: none is
            written or read.
        curve: Takes figures by step.
        watch: Is told the validation losses after each check; what it raises ends the training.
    """

    model: Any
    method: Method = LORA
    base_name: str = ""
    head: ActionHead | None = None
    key: str = ""
    curve: Curve = _no_curve
    watch: Watch = _no_watch


def train(
    job: Job,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    out: Path,
    recipe: Recipe,
    pad: int,
    progress: Progress,
) -> Outcome:
    """Train and keep the state with the least validation loss in `out`.

    Args:
        job: What is trained.
        training: At least one example.
        validation: Of entries that training does not see; empty keeps the last state.
        out: Is made; holds the adapter, and `checkpoint.pt` while training goes on.
        recipe: The same recipe, data and machine give the same adapter, interrupted or not.
        pad: The padding token's id.
        progress: Takes one line at a time.

    Raises:
        InvalidInput: The recipe cannot be run on this machine.
    """
    return _Run(job, training, validation, out, recipe, pad, progress).run()


class _Run:
    """One training: what it holds from step to step."""

    def __init__(
        self,
        job: Job,
        training: Sequence[Encoded],
        validation: Sequence[Encoded],
        out: Path,
        recipe: Recipe,
        pad: int,
        progress: Progress,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.job, self.recipe, self.out = job, recipe, out
        self.training, self.validation, self.pad = training, validation, pad
        self.accelerator = Accelerator()
        self.is_first = self.accelerator.is_main_process
        self.tell: Progress = progress if self.is_first else lambda _line: None
        self.device = self.accelerator.device
        self.dtype = _dtype(recipe, self.device)
        if recipe.checkpointing:
            _check_checkpointing(job)
        self.learner = Learner(job.model, job.head, checkpointing=recipe.checkpointing)
        self.parameters = {
            name: p for name, p in self.learner.named_parameters() if p.requires_grad
        }
        self.wrapped: Any = self.accelerator.prepare_model(self.learner)
        self.optimizer = _optimizer(list(self.parameters.values()), recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.steps = planned_steps(len(training), recipe)
        self.before = self.best = Measured(math.inf)
        self.step = self.best_step = self.size = self.without_better = 0
        self.resumed_at, self.earlier_seconds = 0, 0.0

    def run(self) -> Outcome:
        began = time.monotonic()
        if not self._resume():
            self.before = self.best = self._measure()
        told = f"; validation loss {self.before.reply:.3f}" if self.validation else ""
        self.tell(f"{self.steps} steps of {self.recipe.batch}{told}")
        check_every = max(1, math.ceil(self.steps / self.recipe.checks))
        stopped = bool(self.recipe.patience) and self.without_better >= self.recipe.patience
        for number, batch in enumerate(batches(self.training, self.steps, self.recipe), start=1):
            if number <= self.step or stopped:
                continue
            self.step = number
            loss = self._take(batch)
            self._tell_step(loss, began)
            if number % check_every == 0 or number == self.steps:
                stopped = self._check()
        if not self.size:  # nothing was better than the start: keep it, so that `out` is whole
            self.size = self._save()
        self.accelerator.wait_for_everyone()
        if self.is_first:
            (self.out / checkpoints.FILE).unlink(missing_ok=True)
        return Outcome(
            steps=self.step,
            seconds=self.earlier_seconds + time.monotonic() - began,
            loss_before=self.before.reply,
            loss_best=self.best.reply,
            best_step=self.best_step,
            adapter_bytes=self.size,
            action_accuracy=self.best.accuracy,
            stopped_early=self.step < self.steps,
            resumed_at=self.resumed_at,
        )

    def _tell_step(self, loss: float, began: float) -> None:
        if self.is_first:
            self.job.curve(self.step, {"loss/training": loss, "rate": self._rate()})
        if self.step % TOLD_EVERY == 0:
            done = self.step - self.resumed_at
            left = (time.monotonic() - began) / done * (self.steps - self.step)
            share = round(20 * self.step / self.steps)
            bar = "█" * share + "░" * (20 - share)
            self.tell(f"{bar} step {self.step}/{self.steps} loss {loss:.3f}, "
                      f"{left / 60:.0f} min left")  # fmt: skip

    def _check(self) -> bool:
        """Measure and keep what is better; return whether patience is at its end."""
        now = self._measure()
        if not self.validation:
            now = Measured(-float(self.step))
        weight = self.recipe.action_weight
        is_better = now.joint(weight) < self.best.joint(weight)
        if is_better:
            self.best, self.best_step, self.size = now, self.step, self._save()
        self.without_better = 0 if is_better else self.without_better + 1
        right = "" if now.accuracy is None else f", decisions right {now.accuracy:.1%}"
        if self.validation:
            self.tell(f"step {self.step}/{self.steps} validation loss {now.reply:.3f}{right}")
        if self.is_first and self.validation:
            shown = {"loss/validation": now.reply}
            if now.accuracy is not None:
                shown |= {"loss/action": now.action, "decisions right": now.accuracy}
            self.job.curve(self.step, shown)
        self._keep_checkpoint()
        self.job.watch(self.step, now.reply, now.action)
        if self.recipe.patience and self.without_better >= self.recipe.patience:
            self.tell(f"no better for {self.without_better} checks: training ends here")
            return True
        return False

    def _rate(self) -> float:
        recipe = self.recipe
        share = schedule(self.step, self.steps, recipe.warmup_share, recipe.schedule)
        return recipe.learning_rate * share

    def _take(self, batch: Sequence[Encoded]) -> float:
        """Take one step; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.wrapped.train()
        tokens = max(1, sum(example.reply_tokens for example in batch))
        parts = _parts(self._share(batch), self.recipe.accumulate)
        total = 0.0
        for number, part in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else self._without_sync():
                total += self._back(part, tokens, len(batch))
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.job.method.adjust(self.job.model, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _without_sync(self) -> AbstractContextManager[Any]:
        return self.accelerator.no_sync(self.wrapped)

    def _share(self, batch: Sequence[Encoded]) -> tuple[Sequence[Encoded], float]:
        """Return this process's examples and how they count.

        The wrapper takes the mean of the processes' gradients, and the losses are parts of one
        sum: hence the factor. Who has no example runs one for nothing, as the others wait.
        """
        processes = self.accelerator.num_processes
        own = batch[self.accelerator.process_index :: processes]
        return (own, float(processes)) if own else (batch[:1], 0.0)

    def _back(self, part: tuple[Sequence[Encoded], float], tokens: int, rows: int) -> float:
        """Run a part forward and back; return its loss as a part of the step's."""
        examples, factor = part
        batch = self._batch(examples)

        def loss_of(sums: Sums) -> torch.Tensor:
            joint = sums.reply / tokens + self.recipe.action_weight * sums.action / rows
            return factor * joint

        adversarial = self.recipe.adversarial
        with self._casting():
            loss = loss_of(self.wrapped(batch, keeps_embeddings=adversarial > 0))
            penalty = self.job.method.penalty(self.job.model)
        whole = loss if penalty is None else loss + penalty * len(examples) / rows
        self.scaler.scale(whole).backward()
        if adversarial:
            embedded = self.learner.embedded
            assert embedded is not None
            assert embedded.grad is not None
            nudge = against(embedded.detach(), embedded.grad, batch, adversarial)
            with self._casting():
                worse = loss_of(self.wrapped(batch, nudge=nudge))
            self.scaler.scale(worse).backward()
        return loss.item()

    def _batch(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        made = collate(examples, self.pad, shares=not self.recipe.checkpointing)
        return {name: tensor.to(self.device) for name, tensor in made.items()}

    def _casting(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _measure(self) -> Measured:
        if not self.validation:
            return Measured(math.inf)
        with self._casting():
            return evaluate(self.learner, self.validation, self.pad, device=self.device)

    def _save(self) -> int:
        if not self.is_first:
            return 1  # the first one writes; here it only says that there is something
        size = self.job.method.save(self.job.model, self.out, self.job.base_name)
        if self.job.head is not None:
            save_head(self.job.head, self.out)
        return size

    def _keep_checkpoint(self) -> None:
        if not self.job.key or not self.is_first:
            return
        checkpoints.save(
            self.out,
            {
                "key": self.job.key,
                "step": self.step,
                "weights": {name: p.detach() for name, p in self.parameters.items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "method": self.job.method.memory(self.job.model),
                "chance": checkpoints.chance(),
                "before": list(vars(self.before).values()),
                "best": list(vars(self.best).values()),
                "best_step": self.best_step,
                "size": self.size,
                "without_better": self.without_better,
                "seconds": self.earlier_seconds,
            },
        )

    def _resume(self) -> bool:
        """Take up an interrupted training; return whether there was one."""
        state = checkpoints.load(self.out, self.job.key) if self.job.key else None
        if state is None:
            return False
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.job.method.restore(self.job.model, state["method"])
        checkpoints.restore_chance(state["chance"])
        self.before, self.best = Measured(*state["before"]), Measured(*state["best"])
        self.step = self.resumed_at = int(state["step"])
        self.best_step, self.size = int(state["best_step"]), int(state["size"])
        self.without_better = int(state["without_better"])
        self.earlier_seconds = float(state["seconds"])
        self.tell(f"going on after step {self.step}")
        return True


def planned_steps(examples: int, recipe: Recipe) -> int:
    """Return how many steps a recipe takes."""
    whole = math.ceil(examples / recipe.batch) * recipe.epochs
    return min(whole, recipe.max_steps) if recipe.max_steps else whole


def schedule(step: int, steps: int, warmup_share: float, kind: str = "cosine") -> float:
    """Return the share of the learning rate at a step: linear warm-up, then what `kind` says."""
    warmup = max(1, round(steps * warmup_share))
    if step <= warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if kind == "constant":
        return 1.0
    return 1 - done if kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))


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


def evaluate(
    learner: Learner, examples: Sequence[Encoded], pad: int, *, batch: int = 16, device: Any = "cpu"
) -> Measured:
    """Return the mean losses over all reply tokens and all decisions of examples."""
    learner.eval()
    reply = action = right = 0.0
    with torch.inference_mode():
        for chunk in _by_length(list(examples), batch):
            made = collate(chunk, pad, shares=not learner.checkpointing)
            sums = learner({name: tensor.to(device) for name, tensor in made.items()})
            reply += sums.reply.item()
            action += sums.action.item()
            right += sums.right.item()
    learner.train()
    tokens = max(1, sum(example.reply_tokens for example in examples))
    if learner.head is None:
        return Measured(reply / tokens)
    return Measured(reply / tokens, action / len(examples), right / len(examples))


def against(
    embedded: torch.Tensor, gradient: torch.Tensor, batch: dict[str, torch.Tensor], epsilon: float
) -> torch.Tensor:
    """Return the step on the embeddings that raises the loss most, (batch, tokens, hidden).

    Source: Miyato et al., Adversarial training methods for semi-supervised text classification,
    ICLR 2017, equation 6, one step an example. There embeddings have the variance 1; here epsilon
    counts in lengths of a mean embedding.
    """
    own = batch["attention_mask"][:, -embedded.shape[1] :].unsqueeze(-1).to(embedded.dtype)
    mean_length = (embedded.norm(dim=-1, keepdim=True) * own).sum() / own.sum()
    gradient = gradient * own
    lengths = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    return epsilon * mean_length * gradient / lengths[:, None, None]


def save_head(head: ActionHead, folder: Path) -> None:
    """Write an action head beside an adapter."""
    state = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    save_file(state, folder / HEAD_FILE, metadata={"format": "pt"})
    (folder / HEAD_FILE).chmod(0o644)


def read_head(folder: Path, hidden: int) -> ActionHead | None:
    """Return the action head beside an adapter, None where there is none that fits."""
    if not (folder / HEAD_FILE).is_file():
        return None
    state = load_file(folder / HEAD_FILE)
    if state["linear.weight"].shape != (len(DECISIONS), hidden):
        return None
    head = ActionHead(hidden)
    head.load_state_dict(state)
    return head


def _by_length(examples: list[Encoded], size: int) -> list[list[Encoded]]:
    ordered = sorted(examples, key=lambda example: len(example.ids))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _parts(
    share: tuple[Sequence[Encoded], float], count: int
) -> list[tuple[Sequence[Encoded], float]]:
    examples, factor = share
    size = math.ceil(len(examples) / count)
    return [(examples[at : at + size], factor) for at in range(0, len(examples), size)]


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW, or Adafactor (Shazeer and Stern 2018), which keeps no square a weight.

    Adafactor is taken with the rate as given, not relative to the weights, so that --lr and the
    schedule mean the same for both.
    """
    if recipe.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
            scale_parameter=False, relative_step=False, warmup_init=False,
        )  # fmt: skip
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    if recipe.precision == "fp16" and device.type == "cpu":
        raise InvalidInput("fp16 needs a GPU; use --precision bf16 or fp32", field="precision")
    return PRECISIONS[recipe.precision]


def _check_checkpointing(job: Job) -> None:
    if getattr(getattr(job.model, "active_peft_config", None), "is_prompt_learning", False):
        raise InvalidInput(
            "a prefix cannot be trained with --checkpointing: layers that run again have no cache",
            field="checkpointing",
        )
    causal_of(job.model).activation_checkpointing_enable({"use_reentrant": False})
