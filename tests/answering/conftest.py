"""The sample shop on the real models, loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from answering import preparing
from answering.engine import Engine
from answering.generators.loading import load_generator
from answering.pipeline import Pipeline
from cli.commands import sample
from core.types import KnowledgeBase, KnowledgeBaseId
from retrieval.encoders import load_encoder
from training.evaluation.samples import sample_entries, sample_examples, sample_texts

MODELS = Path(__file__).parents[2] / ".deskhand" / "models"


class ShippedVectors:
    """The vectors that come with the sample; counts what had to be encoded besides."""

    def __init__(self) -> None:
        _, self._vectors = sample.shipped_vectors()
        self.encoded = 0

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        return {digest: self._vectors[digest] for digest in hashes if digest in self._vectors}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        self.encoded += len(vectors)
        self._vectors |= {digest: list(vector) for digest, vector in vectors.items()}


@pytest.fixture(scope="session")
def shop() -> KnowledgeBase:
    return KnowledgeBase(KnowledgeBaseId(1), "default", texts=sample_texts())


@pytest.fixture(scope="session")
def vectors() -> ShippedVectors:
    return ShippedVectors()


@pytest.fixture(scope="session")
def pipeline(shop: KnowledgeBase, vectors: ShippedVectors) -> Iterator[Pipeline]:
    preparing.prepare_encoder(MODELS, print)
    encoder = load_encoder(preparing.ENCODER, MODELS, "cpu")
    generator = load_generator(preparing.REPLY_MODEL, MODELS, device="cpu")
    made = Pipeline(Engine(encoder, generator).start())
    asyncio.run(made.refresh(shop, sample_entries(), intents=sample_examples(), vectors=vectors))
    yield made
    made.close()
