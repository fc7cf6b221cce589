"""Reply models behind one interface: `load_generator(name, models_dir, …)`."""

from __future__ import annotations

from answering.generators.loading import load_generator
from answering.generators.protocol import ContinuousGenerator, Finish, Generated, Generator

__all__ = ["ContinuousGenerator", "Finish", "Generated", "Generator", "load_generator"]
