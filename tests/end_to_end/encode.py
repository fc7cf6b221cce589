"""Encodes a database's entries as a worker does: `python -m tests.end_to_end.encode URL MODELS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from answering.loading import load_pipeline
from core.db.connect import Database
from core.settings import Settings
from workers.indexing import Indexer


async def encode(url: str, models_dir: Path) -> None:
    pipeline = load_pipeline(Settings(data_dir=models_dir.parent), lambda: None)
    async with Database(url, size=2) as database:
        await Indexer(database, pipeline, pipeline.encoder_name).refresh()
    await asyncio.to_thread(pipeline.close)


if __name__ == "__main__":
    asyncio.run(encode(sys.argv[1], Path(sys.argv[2])))
