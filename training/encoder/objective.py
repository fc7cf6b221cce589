"""What a step learns: alike texts together, unlike ones apart, other languages where they were.

Sources: InfoNCE with several positives, van den Oord et al. 2018 (equation 4) and Khosla et al.,
Supervised Contrastive Learning, NeurIPS 2020 (equation 2, the sum outside the logarithm); keeping
the relations between texts, Park et al., Relational Knowledge Distillation, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Mask = NDArray[np.bool_]

TEMPERATURE = 0.02
"""e5's cosines lie between 0.7 and 1: at the usual 0.05 the whole space would have to stretch."""


@dataclass(frozen=True)
class Batch:
    """The texts of one step, each with its encoder prefix to come from its role.

    Attributes:
        queries: What customers say.
        passages: What is searched; empty compares the queries with each other.
        positive: Which belong together, shape (queries, passages), or (queries, queries).
        ignored: Which are neither drawn together nor pushed apart, of the same shape: those that
            may belong together although nothing says so.
        weight: Of this batch's loss.
        kept: Texts, as queries, whose likeness to each other and to `kept_passages` shall stay.
        kept_passages: Texts, as passages, likewise.
        likeness: The cosines of both, queries first, under the frozen encoder.
    """

    queries: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    positive: Mask | None = None
    ignored: Mask | None = None
    weight: float = 1.0
    kept: tuple[str, ...] = ()
    kept_passages: tuple[str, ...] = ()
    likeness: NDArray[np.float32] | None = None


def by_label(texts: Sequence[str], labels: Sequence[str], weight: float = 1.0) -> Batch:
    """Return the batch that draws texts of the same label together.

    Args:
        texts: Customers' messages.
        labels: One a text; a text whose label is empty only pushes.
    """
    names = np.asarray(labels)
    positive = (names[:, None] == names[None, :]) & (names != "")[:, None]
    return Batch(tuple(texts), positive=positive, weight=weight)


def contrast(
    left: torch.Tensor,
    right: torch.Tensor,
    positive: torch.Tensor,
    ignored: torch.Tensor,
    temperature: float = TEMPERATURE,
) -> torch.Tensor:
    """Return the mean loss of the rows of `left` that have a positive.

    Args:
        left: Unit vectors, shape (queries, hidden).
        right: Unit vectors, shape (passages, hidden).
        positive: Shape (queries, passages).
        ignored: Shape (queries, passages); the positives among them are ignored too.
        temperature: Cosines are divided by it.
    """
    wanted = positive & ~ignored
    logits = (left @ right.T / temperature).masked_fill(ignored, -1e4)
    logs = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    counts = wanted.sum(dim=1)
    rows = counts > 0
    if not bool(rows.any()):
        return left.sum() * 0
    losses = -(logs * wanted).sum(dim=1)[rows] / counts[rows]
    return losses.mean()


def both_ways(
    left: torch.Tensor, right: torch.Tensor, positive: torch.Tensor, ignored: torch.Tensor
) -> torch.Tensor:
    """Return the mean of the loss from queries to passages and of that from passages to queries.

    A hard negative has no query of its own and takes no part in the second.
    """
    there = contrast(left, right, positive, ignored)
    back = contrast(right, left, positive.T, ignored.T)
    return (there + back) / 2


def drift(
    vectors: torch.Tensor, likeness: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Return how far texts have moved among each other: the mean Kullback-Leibler divergence.

    Args:
        vectors: Unit vectors, shape (texts, hidden).
        likeness: Cosines before, shape (texts, texts).
        temperature: Cosines are divided by it.
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    now = (vectors @ vectors.T / temperature).masked_fill(itself, -1e4)
    before = (likeness / temperature).masked_fill(itself, -1e4)
    return functional.kl_div(
        functional.log_softmax(now, dim=1), functional.log_softmax(before, dim=1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
