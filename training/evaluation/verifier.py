"""How well the verifier tells what a reply's passages support: by set, by kind, by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from answering import verifier
from answering.grounding import Label, split_sentences
from answering.verifier import CLASSES, Combination
from retrieval.encoders.protocol import PairScorer
from training.verifier import Case, features

BASELINE_FROM = 0.75
"""Words held from which the baseline says supported: what the exact checks ask for."""


@dataclass(frozen=True)
class Judged:
    """What the verifier says of the cases.

    Attributes:
        support: The least chance of a reply's sentences, shape (cases,).
        labels: What each reply is: what its weakest sentence is.
        held: The least share of words held of its sentences, shape (cases,).
    """

    support: verifier.Vector
    labels: tuple[Label, ...]
    held: verifier.Vector


def judged(cases: Sequence[Case], scorer: PairScorer, combination: Combination) -> Judged:
    """Return what the verifier says of each case; each of its sentences must be supported."""
    rows, owners, logits = features(cases, scorer)
    chances = combination.support(rows)
    support = np.ones(len(cases))
    labels = [Label.SUPPORTED] * len(cases)
    for owner, chance, row in zip(owners, chances, logits, strict=True):
        if chance < combination.support_from and chance <= support[owner]:
            labels[owner] = Label.CONTRADICTED if row[1] > row[2] else Label.UNSUPPORTED
        support[owner] = min(support[owner], chance)
    held = np.array([
        min(verifier.overlap(s, case.sources) for s in split_sentences(case.reply) or [case.reply])
        for case in cases
    ])  # fmt: skip
    return Judged(support, tuple(labels), held)


def figures(cases: Sequence[Case], of: Judged) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, precision and recall, with the baseline beside them."""
    truth = np.array([case.label is Label.SUPPORTED for case in cases])
    said = np.array([label is Label.SUPPORTED for label in of.labels])
    return {
        "cases": len(cases),
        "supported": int(truth.sum()),
        **two_sided(truth, said),
        "words held alone": two_sided(truth, of.held >= BASELINE_FROM),
    }


def two_sided(truth: Any, said: Any) -> dict[str, float]:
    """Return what counts of a yes or no; of a side without cases nothing is said.

    Args:
        truth: Whether each case is supported, shape (cases,).
        said: Whether it was said to be.
    """
    found: dict[str, float] = {"accuracy": float((truth == said).mean())}
    recalls: list[float] = []
    for name, side in (("supported", True), ("not supported", False)):
        there, told = truth == side, said == side
        if there.any():
            recalls.append(float((told & there).sum() / there.sum()))
            found[f"{name}: recall"] = recalls[-1]
        if told.any() and truth.any() and not truth.all():
            found[f"{name}: precision"] = float((told & there).sum() / told.sum())
    if len(recalls) == 2:
        found["balanced accuracy"] = sum(recalls) / 2
    return found


def by_class(cases: Sequence[Case], of: Judged) -> dict[str, dict[str, float]]:
    """Return precision and recall of each of the three classes."""
    out: dict[str, dict[str, float]] = {}
    for name in CLASSES:
        there = np.array([case.label == name for case in cases])
        told = np.array([label == name for label in of.labels])
        both = float((there & told).sum())
        out[name] = {
            "precision": both / float(told.sum()) if told.any() else 0.0,
            "recall": both / float(there.sum()) if there.any() else 0.0,
        }
    return out


def by_kind(cases: Sequence[Case], of: Judged) -> dict[str, dict[str, float]]:
    """Return, for each way of making a case, how many there are and how many are told rightly.

    For a counterfactual `balanced` is the mean with the share of supported human replies and
    entries' own sentences that are let through: a verifier that refuses all gets a half.
    """
    groups: dict[str, list[bool]] = defaultdict(list)
    for case, label in zip(cases, of.labels, strict=True):
        is_right = (label is Label.SUPPORTED) == (case.label is Label.SUPPORTED)
        groups[f"{_side(case)}{case.kind or 'unnamed'}"].append(is_right)
    passed = [right for name in ("reply", "entry", "turned") for right in groups.get(name, [])]
    through = sum(passed) / len(passed) if passed else None
    out: dict[str, dict[str, float]] = {}
    for name, right in sorted(groups.items()):
        share = sum(right) / len(right)
        out[name] = {"cases": len(right), "right": share}
        if name.startswith("not: ") and through is not None:
            out[name]["balanced"] = (share + through) / 2
    return out


def _side(case: Case) -> str:
    return "" if case.label is Label.SUPPORTED else "not: "


def report(
    cases: Sequence[Case], scorer: PairScorer, combination: Combination
) -> Mapping[str, Any]:
    """Return all figures of a set of cases."""
    of = judged(cases, scorer, combination)
    out = figures(cases, of)
    if any(case.label is Label.CONTRADICTED for case in cases):
        out["by class"] = by_class(cases, of)
    if len({case.kind for case in cases}) > 1:
        out["by kind"] = by_kind(cases, of)
    return out
