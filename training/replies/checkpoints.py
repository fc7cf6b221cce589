"""What a training needs to go on after an interruption as if there had been none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before stays until this one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{FILE}.new"
    try:
        torch.save(state, unfinished)
        os.replace(unfinished, folder / FILE)
    finally:
        unfinished.unlink(missing_ok=True)


def load(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the state of a training that was interrupted; None where it was another one.

    Args:
        folder: Where.
        key: Of data and recipe: a state of others does not fit.
    """
    try:
        state: Any = torch.load(folder / FILE, weights_only=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, ValueError):
        return None  # cut short by the interruption itself: begin anew
    return state if isinstance(state, dict) and state.get("key") == key else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def chance() -> dict[str, Any]:
    """Return the state of torch's chance, which draws the dropout."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_chance(state: dict[str, Any]) -> None:
    """Let chance go on from there."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
