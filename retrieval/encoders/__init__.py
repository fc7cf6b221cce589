"""Encoders behind one interface: `load_encoder(name_or_path, models_dir, device)`."""

from __future__ import annotations

from retrieval.encoders.loading import load_encoder
from retrieval.encoders.protocol import Encoder, Vectors

__all__ = ["Encoder", "Vectors", "load_encoder"]
