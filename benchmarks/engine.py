"""The engine on this machine: `python -m benchmarks.engine --models DIR [--quick]`.

One reply alone, 16 at once through the engine and bare, transformers in bfloat16 on the same
prompts, two adapters live at once, the prefix cache, start and memory, all in one run. Quote ratios
within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from answering import preparing
from answering.engine import Engine
from answering.generators.apart import ApartGenerator
from answering.generators.loading import load_generator
from answering.generators.transformers_local import TransformersGenerator
from answering.pairing import NoEncoder
from answering.prompting import Prompt, build
from benchmarks.bare import rate
from core.types import FaqEntry

AT_ONCE = 16
NEW_TOKENS = 40
PATIENCE_SECONDS = 600.0
DETAILS = (
    "Orders above 60 euros are sent free of charge to France, Spain, Italy and Germany, and below "
    "that a parcel costs 4.95 euros. Parcels leave our warehouse on the day of the order if it is "
    "placed before 2 pm, and arrive within two to four working days. "
)
TOPICS = ("jackets", "shoes", "tents", "lamps", "bags", "maps", "stoves", "ropes")


def prompts() -> list[Prompt]:
    """Return prompts of some 300 tokens that differ from the first source on."""
    return [
        build(
            f"Please tell me all about sending {topic} to Spain, in full.",
            [FaqEntry("1", f"How are {topic} sent?", f"All about {topic}: {DETAILS * 3}")],
        )
        for topic in TOPICS
    ]


async def alone(engine: Engine, wanted: Sequence[Prompt], count: int) -> dict[str, float]:
    """Return how long a reply takes when nothing else runs, in seconds."""
    times: list[float] = []
    tokens: list[int] = []
    for prompt in itertools.islice(itertools.cycle(wanted), count):
        begun = time.perf_counter()
        written = await engine.generate(prompt, PATIENCE_SECONDS, NEW_TOKENS)
        times.append(time.perf_counter() - begun)
        tokens.append(written.new_tokens)
    return {
        "p50_seconds": round(statistics.median(times), 2),
        "slowest_seconds": round(max(times), 2),
        "mean_new_tokens": round(statistics.mean(tokens), 1),
    }


async def together(engine: Engine, wanted: Sequence[Prompt], total: int) -> float:
    """Return replies per second with 16 callers."""
    waiting = iter(itertools.islice(itertools.cycle(wanted), total))

    async def caller() -> None:
        for prompt in waiting:
            await engine.generate(prompt, PATIENCE_SECONDS, NEW_TOKENS)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return round(total / (time.perf_counter() - begun), 2)


async def prefixes(engine: Engine) -> dict[str, float]:
    """Return what the first token costs in seconds: new sources, and the same ones again."""

    async def first_token(prompt: Prompt) -> float:
        begun = time.perf_counter()
        await engine.generate(prompt, PATIENCE_SECONDS, 1)
        return time.perf_counter() - begun

    entry = FaqEntry("9", "What do you sell in winter?", f"Sledges and skis. {DETAILS * 3}")
    asked = [build(f"How is {thing} sent?", [entry]) for thing in ("a sledge", "a ski", "a glove")]
    new = await first_token(asked[0])
    again = [await first_token(prompt) for prompt in asked[1:]]
    return {"new_sources": round(new, 2), "same_sources": round(statistics.mean(again), 2)}


async def through_engine(engine: Engine, models: Path, total: int) -> dict[str, Any]:
    """Return the figures of the engine's own lanes."""
    wanted = prompts()
    await together(engine, wanted, AT_ONCE)  # warm
    figures: dict[str, Any] = {
        "alone": await alone(engine, wanted, max(total // 8, 3)),
        "engine_16_replies_per_second": await together(engine, wanted, total),
        "first_token_seconds": await prefixes(engine),
    }
    adapter = preparing.shipped_adapter()
    if adapter is not None:
        await engine.add_adapter("second", adapter)
        mixed = [replace(p, adapter=a) for p in wanted for a in ("", "second")]
        await together(engine, mixed, AT_ONCE)
        figures["two_adapters_16_replies_per_second"] = await together(engine, mixed, total)
        if isinstance(engine.generator, ApartGenerator):
            figures["host_mb_with_two_adapters"] = memory(engine.generator)
        await engine.keep_adapters(())
    return figures


def memory(generator: ApartGenerator) -> int:
    """Return the megabytes that the model's process alone holds."""
    return round(psutil.Process(generator.pid).memory_full_info().uss / 1e6)


def transformers(models: Path, total: int) -> dict[str, float]:
    """Return the same work on plain transformers in bfloat16, batches of 16 and alone."""
    folder = preparing.prepare_reply_base(models, lambda line: None)
    generator = TransformersGenerator(
        str(folder), "bf16", device="cpu", adapter=preparing.shipped_adapter(), dtype="bfloat16"
    )
    wanted = prompts() * 2
    generator.generate(wanted[:1], 4)  # warm
    begun = time.perf_counter()
    for _ in range(max(total // AT_ONCE, 1)):
        generator.generate(wanted, NEW_TOKENS)
    batched = max(total // AT_ONCE, 1) * AT_ONCE / (time.perf_counter() - begun)
    times: list[float] = []
    for prompt in wanted[: max(total // 16, 3)]:
        begun = time.perf_counter()
        generator.generate([prompt], NEW_TOKENS)
        times.append(time.perf_counter() - begun)
    generator.close()
    return {
        "replies_per_second_16": round(batched, 2),
        "p50_seconds_alone": round(statistics.median(times), 2),
    }


def measure(models: Path, total: int) -> dict[str, Any]:
    """Run all parts and return their figures."""
    begun = time.perf_counter()
    generator = load_generator(preparing.REPLY_MODEL, models, device="cpu")
    figures: dict[str, Any] = {"load_seconds": round(time.perf_counter() - begun, 2)}
    if not isinstance(generator, ApartGenerator):
        raise SystemExit("the CPU runtime openvino-genai is not installed")
    engine = Engine(NoEncoder(), generator).start()
    figures |= asyncio.run(through_engine(engine, models, total))
    engine.close()
    bare = rate(generator, prompts(), total, NEW_TOKENS)
    figures["bare_16"] = bare
    figures["host_mb"] = memory(generator)
    generator.close()
    plain = figures["transformers_bf16"] = transformers(models, total)
    ours = figures["engine_16_replies_per_second"]
    figures["share_of_bare"] = round(ours / bare["replies_per_second"], 2)
    figures["times_transformers_16"] = round(ours / plain["replies_per_second_16"], 2)
    one = figures["alone"]["p50_seconds"]
    figures["times_transformers_alone"] = round(plain["p50_seconds_alone"] / one, 2)
    return figures


def main() -> None:
    """Measure and print a table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="fewer replies, rougher figures")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = measure(given.models.absolute(), 32 if given.quick else 96)
    if given.json:
        print(json.dumps(figures))
        return
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
