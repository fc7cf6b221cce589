"""Fitting how the form of a message and what retrieval found tell together that it asks.

Run as `python -m training.signals MODELS --dstc9 DIR` (the model store; a folder with kb.jsonl);
it writes `answering/data/seeking.json`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.optimize import minimize

from answering.languages import language_of
from answering.signals import DATA, Found, log_odds
from core.types import FaqEntry
from retrieval.encoders.protocol import Encoder
from training.dialogues import split
from training.evaluation.retrieval import build_index
from training.evaluation.samples import entry_of, sample_entries, sample_questions
from training.evaluation.seeking import (
    Scored,
    Turn,
    by_signal,
    scored,
    turns_of,
    unrelated_turns,
)

PENALTY = 1e-3
TURNS = 500
"""Conversations of each kind of noise."""
FIT_SHARE = 0.7
"""Of the entities; the others' conversations give the figures."""


def fit(cases: Sequence[Scored]) -> Found:
    """Return the weights under which what was sought is likeliest; each kind counts as much."""
    inputs = np.asarray([[log_odds(c.asks), log_odds(c.found), 1.0] for c in cases])
    truth = np.asarray([c.turn.seeks for c in cases], np.float64)
    weight = np.where(truth > 0, 0.5 / max(truth.sum(), 1), 0.5 / max((1 - truth).sum(), 1))

    def loss(weights: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, Any]:
        z = inputs @ weights
        value = float((weight * (np.logaddexp(0.0, z) - truth * z)).sum())
        surplus = weight * (1 / (1 + np.exp(-np.clip(z, -40, 40))) - truth)
        return float(
            value + PENALTY * weights @ weights
        ), inputs.T @ surplus + 2 * PENALTY * weights

    asks, found, bias = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B").x
    return Found(round(float(asks), 4), round(float(found), 4), round(float(bias), 4))


async def cases_of(entries: Sequence[FaqEntry], encoder: Encoder, seed: int) -> list[list[Scored]]:
    """Return scored turns to fit on and to measure with, with no entity in common."""
    index = build_index(entries, encoder)
    parts: list[list[Scored]] = []
    for part in split(entries, FIT_SHARE, random.Random(seed)):
        rng = random.Random(seed)
        named = [entry for entry in part if entry.entity]
        turns = [*turns_of(named, TURNS, rng, "written"), *turns_of(named, TURNS, rng, "spoken")]
        parts.append(await scored(turns, index, encoder, lambda _: "en"))
    return parts


async def shop_cases(encoder: Encoder) -> list[Scored]:
    """Return scored messages of the sample shop's customers, and unrelated ones."""
    asked = [Turn(text, (), True, "entry") for text, _ in sample_questions()]
    index = build_index(sample_entries(), encoder)
    return await scored(
        [*asked, *unrelated_turns()], index, encoder, lambda text: language_of(text, fallback="en")
    )


def main(
    models: Annotated[Path, "The model store."],
    dstc9: Annotated[Path, typer.Option(help="Folder with kb.jsonl.")],
    out: Path = DATA / "seeking.json",
    encoder: str = "multilingual-e5-small",
    seed: int = 7,
) -> None:
    """Fit on made conversations and on the sample shop, and write the weights."""
    from retrieval.encoders.loading import load_encoder

    loaded = load_encoder(encoder, models)
    lines = (dstc9 / "kb.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry_of(json.loads(line)) for line in lines]
    stored = asyncio.run(_fitted(entries, loaded, seed))
    out.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(stored, indent=2))


async def _fitted(entries: Sequence[FaqEntry], encoder: Encoder, seed: int) -> dict[str, Any]:
    seen, unseen = await cases_of(entries, encoder, seed)
    shop = await shop_cases(encoder)
    model = fit([*seen, *shop])
    return {
        "fitted": f"python -m training.signals, {encoder.name}: {len(seen)} turns of made "
        f"conversations, {len(shop)} messages of the sample shop; figures on {len(unseen)} turns "
        "about other entities",
        "asks": model.asks,
        "found": model.found,
        "bias": model.bias,
        "figures": {
            "conversations": _rounded(by_signal(model, unseen)),
            "shop": _rounded(by_signal(model, shop)),
        },
    }


def _rounded(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {k: round(v, 4) for k, v in row.items()} for name, row in figures.items()}


if __name__ == "__main__":
    typer.run(main)
