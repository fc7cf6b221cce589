"""The training loop: AdamW, warm-up and cosine, clipped gradients; it can stop and go on.

`tune` is the whole of it for who has batches; `Training` lets a session look at each step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import InvalidInput
from retrieval.encoders.adapter import Adapter
from retrieval.encoders.protocol import Encoder
from training.encoder import lora
from training.encoder.objective import Batch, both_ways, contrast, drift

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Recipe:
    """How to tune.

    Attributes:
        steps: Batches taken; the learning rate ends at nothing there.
        rank: Of the adapter's factors.
        layers: Only so many of the last layers are tuned; 0 takes all.
        longest_tokens: Longer texts are cut while training.
        chunk: Texts in one pass; those of a batch are sorted by length and padded by chunk.
        keep_weight: Of staying where the frozen encoder was (self-distillation).
        share: How far to go from the given weights to the tuned ones. Half way often keeps what
            is won and loses less of the rest. Source: Wortsman et al., Robust fine-tuning of
            zero-shot models (WiSE-FT), CVPR 2022.
    """

    steps: int = 200
    learning_rate: float = 3e-4
    rank: int = 16
    layers: int = 0
    longest_tokens: int = 48
    chunk: int = 16
    warmup_share: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    keep_weight: float = 1.0
    share: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """What tuning brought.

    Attributes:
        encoder: With the adapter merged; its name tells it from the one that was given.
        adapter: To be written with `retrieval.encoders.adapter.write`.
        losses: One a step.
    """

    encoder: Encoder
    adapter: Adapter
    losses: tuple[float, ...]


def tune(encoder: Encoder, batches: Iterable[Batch], recipe: Recipe) -> Tuned:
    """Return an encoder tuned on batches, the first `recipe.steps` of them.

    Args:
        encoder: Stays as it is.
        batches: `training.encoder.data.labelled_batches` makes some from labelled messages.
        recipe: The same encoder, batches, recipe and machine give the same adapter.

    Raises:
        InvalidInput: The encoder cannot be tuned, or the training went astray.
    """
    training = Training(encoder, recipe)
    for batch, _ in zip(batches, range(recipe.steps), strict=False):
        training.step(batch)
    return training.tuned()


class Training:
    """A training that goes on step by step.

    Args:
        encoder: Stays as it is.
        recipe: How to tune.

    Raises:
        InvalidInput: The encoder cannot be tuned.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        self._encoder = lora.trainable(encoder)
        self._recipe = recipe
        torch.manual_seed(recipe.seed)
        self._model = lora.twin(self._encoder.model)
        self._model.max_seq_length = recipe.longest_tokens
        self._tuned = lora.add(self._model, recipe.rank, recipe.layers)
        self._parameters = [p for p in self._tuned.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.losses: list[float] = []

    @property
    def done(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def step(self, batch: Batch) -> float:
        """Take a step, and return its loss."""
        recipe = self._recipe
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate(
                self.done + 1, recipe.steps, recipe.warmup_share
            )
        loss = self._loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise InvalidInput("the training went astray: give a smaller --lr", field="lr")
        return self.losses[-1]

    def tuned(self) -> Tuned:
        """Return what there is so far; the training can go on."""
        adapter = lora.taken(self._tuned, self._encoder.name).part(self._recipe.share)
        return Tuned(lora.apply(self._encoder, adapter), adapter, tuple(self.losses))

    def save(self, place: Path, extra: dict[str, Any] | None = None) -> None:
        """Write a checkpoint; it replaces an earlier one at once or not at all.

        Args:
            place: A file.
            extra: Plain values and tensors to be given back by `resume`.
        """
        state = {
            "recipe": asdict(self._recipe),
            "encoder": self._encoder.name,
            "adapter": [p.detach() for p in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "losses": list(self.losses),
            "extra": extra or {},
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

    def resume(self, place: Path) -> dict[str, Any]:
        """Go on where a checkpoint stopped, and return its extra values.

        Raises:
            InvalidInput: It cannot be read, or is of another training.
        """
        try:
            state: dict[str, Any] = torch.load(place, weights_only=True)
            is_same = (state["recipe"], state["encoder"]) == (
                asdict(self._recipe), self._encoder.name,
            )  # fmt: skip
            if is_same:
                self._restore(state)
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError) as error:
            raise InvalidInput(
                f"{place} is no checkpoint that can be read ({error}): remove it to start anew",
                field="out",
            ) from error
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
        return dict(state["extra"])

    def _restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self._parameters, state["adapter"], strict=True):
                parameter.copy_(kept)
        self._optimizer.load_state_dict(state["optimizer"])
        self.losses = [float(loss) for loss in state["losses"]]

    def _loss(self, batch: Batch) -> torch.Tensor:
        encoder = self._encoder
        asked = [encoder.query_prefix + text for text in batch.queries]
        kept = [encoder.query_prefix + text for text in batch.kept]
        kept += [encoder.passage_prefix + text for text in batch.kept_passages]
        searched = [encoder.passage_prefix + text for text in batch.passages]
        vectors = embed(self._model, asked + kept + searched, self._recipe.chunk)
        queries, stay, passages = vectors.split([len(asked), len(kept), len(searched)])
        loss = vectors.sum() * 0
        if batch.positive is not None:
            loss = loss + batch.weight * _contrastive(queries, passages, batch)
        if batch.likeness is not None and len(kept) > 1:
            likeness = torch.from_numpy(batch.likeness).to(vectors)
            loss = loss + self._recipe.keep_weight * drift(stay, likeness)
        return loss


def embed(model: SentenceTransformer, texts: Sequence[str], chunk: int) -> torch.Tensor:
    """Return unit vectors with their gradient, shape (texts, hidden).

    Texts alike in length are passed together, since padding is work for nothing.
    """
    first: Any = model[0]
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    parts: list[torch.Tensor] = []
    for start in range(0, len(order), chunk):
        some = [texts[number] for number in order[start : start + chunk]]
        inputs = first.tokenizer(
            some, padding=True, truncation=True, max_length=model.max_seq_length,
            return_tensors="pt",
        )  # fmt: skip
        out: Any = model({name: tensor.to(model.device) for name, tensor in inputs.items()})
        parts.append(out["sentence_embedding"])
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.as_tensor(order)] = torch.arange(len(order))
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)[back.to(model.device)]


def rate(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then half a cosine."""
    warmup = max(1, round(steps * warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _contrastive(queries: torch.Tensor, passages: torch.Tensor, batch: Batch) -> torch.Tensor:
    positive = torch.from_numpy(batch.positive).to(queries.device)
    ignored = (
        torch.zeros_like(positive)
        if batch.ignored is None
        else torch.from_numpy(batch.ignored).to(queries.device)
    )
    if batch.passages:
        return both_ways(queries, passages, positive, ignored)
    itself = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    return contrast(queries, queries, positive & ~itself, ignored | itself)
