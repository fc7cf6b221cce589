"""Putting conversations to the pipeline: one way of answering, or several beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from cli.commands.eval import common

if TYPE_CHECKING:
    from core.settings import Settings
    from core.types import FaqEntry
    from training.evaluation.leaving_out import Fold
    from training.evaluation.replies import Case, Result

MOST_VARIANTS = 8
VERIFIER = "verifier"
"""The scorer's name in the engine, where one is loaded."""
JUDGED_WITHIN = 60.0


@dataclass(frozen=True)
class Variant:
    """A way to answer; the name tells what it has that others have not."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Answered:
    """What was said: with all entries there, and to the same questions without them."""

    present: Sequence[Result]
    absent: Sequence[Result] = ()


@dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
        entries: The base; None is the sample shop.
        cases: The conversations.
        folds: Parts of the base to take away, with the questions that nothing answers then.
    """

    entries: Sequence[FaqEntry] | None
    cases: Sequence[Case]
    folds: Sequence[Fold] = ()


@dataclass
class Vectors:
    """Vectors that are known; what is encoded for one variant is not encoded for the next."""

    encoder: str = ""
    known: dict[bytes, Sequence[float]] = field(default_factory=dict[bytes, Sequence[float]])

    def of(self, encoder: str) -> Vectors:
        """Return these for the encoder that made them, and those that ship for another one."""
        if self.encoder != encoder:
            from cli.commands import sample

            shipped, vectors = sample.shipped_vectors()
            # What ships with the product (examples of small talk) is known for every base.
            self.encoder, self.known = encoder, dict(vectors) if shipped == encoder else {}
        return self

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        return {digest: self.known[digest] for digest in hashes if digest in self.known}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors while the command runs."""
        self.known |= vectors


def variants_of(settings: Settings, options: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Return every combination of the options given, the first of each first.

    Args:
        settings: What holds where an option is not given.
        options: Values of settings by their name.

    Raises:
        InvalidInput: They are more than MOST_VARIANTS.
    """
    from core.errors import InvalidInput

    given = {name: list(dict.fromkeys(values)) for name, values in options.items() if values}
    made = [
        Variant(
            ", ".join(f"{name}={value}" for name, value in zip(given, values, strict=True)
                      if len(given[name]) > 1) or "as set",
            settings.model_copy(update=dict(zip(given, values, strict=True))),
        )
        for values in product(*given.values())
    ]  # fmt: skip
    if len(made) > MOST_VARIANTS:
        raise InvalidInput(
            f"{len(made)} variants would take very long; give options for {MOST_VARIANTS} at most.",
            field="variants",
        )
    return made


async def answer(settings: Settings, asked: Asked, vectors: Vectors, label: str) -> Answered:
    """Return what the pipeline says to each conversation, with and without its entries."""
    from answering.verifier import Judge
    from core.types import KnowledgeBase, KnowledgeBaseId
    from training.evaluation import report, samples
    from training.evaluation.generation_scores import judged
    from training.evaluation.replies import run

    entries = asked.entries if asked.entries is not None else samples.sample_entries()
    is_sample = asked.entries is None
    own = samples.sample_examples() if is_sample else []
    texts = samples.sample_texts() if is_sample else {}
    pipeline = common.pipeline(settings)
    known = vectors.of(pipeline.encoder_name)

    async def put(number: int, held: Sequence[FaqEntry], cases: Sequence[Case]) -> list[Result]:
        base = KnowledgeBase(KnowledgeBaseId(number), "evaluated", entries[0].locale, texts=texts)
        await pipeline.refresh(base, held, intents=own, vectors=known)
        part = f"{label}, part {number} of {len(asked.folds)} left out" if number else label
        said = await run(pipeline, base, cases, held, report.progress(part, len(cases)))
        return await judged(said, held, judge) if VERIFIER in pipeline.engine.scorers else said

    def judge() -> Judge:
        return Judge(
            lambda pairs: pipeline.engine.score_pairs(VERIFIER, pairs, seconds=JUDGED_WITHIN)
        )

    try:
        present = await put(0, entries, asked.cases)
        absent: list[Result] = []
        for number, fold in enumerate(asked.folds, start=1):
            held = [entry for entry in entries if entry.id not in fold.removed]
            absent += await put(number, held, fold.cases)
        return Answered(present, absent)
    finally:
        await asyncio.to_thread(pipeline.close)


async def answer_all(
    settings: Settings, entries: Sequence[FaqEntry] | None, cases: Sequence[Case]
) -> list[Result]:
    """Return what the pipeline says to each case; without entries it runs on the sample shop."""
    return list((await answer(settings, Asked(entries, cases), Vectors(), "Replies")).present)
