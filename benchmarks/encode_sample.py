"""Makes the vectors that ship with the sample shop: `python -m benchmarks.encode_sample`.

To be run when a text of the sample, a general intent example or the default encoder changes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from answering.loading import load_pipeline
from cli.commands import sample
from core.settings import Settings
from core.types import FaqEntry, KnowledgeBase, KnowledgeBaseId


class Recorder:
    """A vector cache that knows nothing and keeps everything."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Sequence[float]] = {}

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return what was kept."""
        return {digest: self.kept[digest] for digest in hashes if digest in self.kept}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors."""
        self.kept.update(vectors)


def entries() -> list[FaqEntry]:
    """Return the sample's entries."""
    lines = (Path(str(sample.FOLDER)) / "faq.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        FaqEntry(
            id=row["id"],
            question=row["question"],
            answer=row["answer"],
            alternates=tuple(row["alternates"]),
            tags=tuple(row["tags"]),
            locale=row["locale"],
            entity=row.get("entity"),
            status="published",
        )
        for row in rows
    ]


async def main() -> None:
    """Encode everything once and write the file."""
    pipeline = load_pipeline(Settings(), lambda: None)
    recorder = Recorder()
    examples = [(example.text, example.label) for example in sample.examples()]
    await pipeline.refresh(
        KnowledgeBase(KnowledgeBaseId(1), "default"),
        entries(),
        removed=(),
        intents=examples,
        vectors=recorder,
    )
    await asyncio.to_thread(pipeline.close)
    ordered = sorted(recorder.kept.items())
    save_file(
        {
            "hashes": np.frombuffer(b"".join(h for h, _ in ordered), np.uint8).reshape(-1, 32),
            "vectors": np.array([vector for _, vector in ordered], np.float16),
        },
        str(Path(str(sample.FOLDER)) / sample.VECTORS),
        metadata={"encoder": pipeline.encoder_name},
    )
    print(f"{len(ordered)} vectors")


if __name__ == "__main__":
    asyncio.run(main())
