"""The engine: `Engine(encoder, generator, scorers=…).start()`, the only one to touch models."""

from __future__ import annotations

from answering.engine.engine import Engine
from answering.engine.jobs import Monotonic, Told

__all__ = ["Engine", "Monotonic", "Told"]
