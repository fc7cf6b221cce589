"""The reply model without a service around it: replies per second with 16 under way.

`python -m benchmarks.bare --models DIR` prints one JSON object. The prompts are those that the
service makes of the same questions, so that the two can be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

from answering.engine import Told
from answering.generators.protocol import ContinuousGenerator, Generated
from answering.loading import load_pipeline
from answering.pipeline import Pipeline
from answering.prompting import Prompt
from answering.saying import NEW_TOKENS
from benchmarks.encode_sample import Recorder, entries
from benchmarks.questions import QUESTIONS
from cli.commands import sample
from core.settings import Settings
from core.types import KnowledgeBase, KnowledgeBaseId, Question, ReplyStyle

AT_ONCE = 16


async def prompts(pipeline: Pipeline) -> list[Prompt]:
    """Return the prompts that the pipeline makes of the questions."""
    base = KnowledgeBase(KnowledgeBaseId(1), "default", style=ReplyStyle.GENERATED)
    known = Recorder()
    known.kept.update(sample.shipped_vectors()[1])
    examples = [(example.text, example.label) for example in sample.examples()]
    await pipeline.refresh(base, entries(), removed=(), intents=examples, vectors=known)
    seen: list[Prompt] = []
    generate = pipeline.engine.generate

    async def recording(
        prompt: Prompt, seconds: float, new_tokens: int, on_text: Told | None = None
    ) -> Generated:
        seen.append(prompt)
        return await generate(prompt, seconds, new_tokens, on_text)

    pipeline.engine.generate = recording  # type: ignore[method-assign]
    for text in QUESTIONS:
        await pipeline.answer(Question(base, (text,)))
    return seen


def rate(
    generator: ContinuousGenerator, wanted: list[Prompt], total: int, new_tokens: int = NEW_TOKENS
) -> dict[str, Any]:
    """Keep 16 under way until so many are done; return replies and tokens per second."""
    waiting = enumerate(itertools.islice(itertools.cycle(wanted), total))
    done: list[Generated] = []
    begun = time.perf_counter()
    while len(done) < total:
        while generator.running < AT_ONCE and (following := next(waiting, None)) is not None:
            generator.start(*following, new_tokens)
        done.extend(generator.step().values())
    took = time.perf_counter() - begun
    return {
        "replies_per_second": round(total / took, 2),
        "mean_new_tokens": round(sum(one.new_tokens for one in done) / total, 1),
        "mean_prompt_tokens": round(sum(one.prompt_tokens for one in done) / total, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--total", type=int, default=96)
    given = parser.parse_args()
    pipeline = load_pipeline(Settings(data_dir=given.models.absolute().parent), lambda: None)
    wanted = asyncio.run(prompts(pipeline))
    generator = pipeline.engine.generator
    pipeline.engine.close()  # its thread is done: the model is ours alone
    if not isinstance(generator, ContinuousGenerator):
        raise SystemExit("the reply model's backend does not batch continuously")
    rate(generator, wanted, AT_ONCE)  # warm
    print(json.dumps(rate(generator, wanted, given.total)))
    generator.close()


if __name__ == "__main__":
    main()
