"""The vectors that ship spare a first start all encoding of the sample."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from answering.intents import general_examples
from cli.commands import sample
from core.types import FaqEntry
from retrieval.index import texts_of


def digest(role: str, text: str) -> bytes:
    return hashlib.sha256(f"{role}: {text}".encode()).digest()


def test_every_text_of_the_sample_has_its_vector():
    _, vectors = sample.shipped_vectors()
    rows = [
        json.loads(line)
        for line in (Path(str(sample.FOLDER)) / "faq.jsonl").read_text("utf-8").splitlines()
    ]
    wanted = {
        digest("passage", text)
        for row in rows
        for text in texts_of(
            FaqEntry(
                id=row["id"],
                question=row["question"],
                answer=row["answer"],
                alternates=tuple(row["alternates"]),
                tags=tuple(row["tags"]),
                entity=row.get("entity"),
            )
        )
    }
    wanted |= {digest("query", text) for text, _ in general_examples()}
    wanted |= {digest("query", example.text) for example in sample.examples()}

    missing = wanted - set(vectors)
    assert not missing, f"{len(missing)} texts changed: run `python -m benchmarks.encode_sample`"
    assert all(abs(sum(v * v for v in vector) - 1.0) < 0.01 for vector in vectors.values())
