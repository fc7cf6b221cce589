"""`deskhand bench`: the whole service on this machine, with the embedded parts.

Prints a table and, with --json, one JSON object. Times are of this machine and this run; quote
ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks.load import Customers
from benchmarks.measuring import memory_mb, shares, spread, stage_seconds
from benchmarks.questions import QUESTIONS, wordings
from cli.commands import sample
from cli.embedded import Postgres, Valkey
from core.db import migrate
from tests.end_to_end.stack import TOKEN, Stack

ROOT = Path(__file__).parents[1]

WARM_UP = 8


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


async def replies(
    customers: Customers, conversations: int, turns: int, asked: Sequence[str] = QUESTIONS
) -> tuple[list[float], float, list[str]]:
    """Let conversations run side by side; return times to reply, replies per second, texts."""
    questions = itertools.cycle(asked)

    async def converse() -> list[tuple[float, str]]:
        # A new conversation for each question: the history would make later prompts longer.
        return [await customers.ask(f"c-{uuid4().hex}", next(questions)) for _ in range(turns)]

    begun = time.perf_counter()
    told = await asyncio.gather(*(converse() for _ in range(conversations)))
    took = time.perf_counter() - begun
    flat = list(itertools.chain.from_iterable(told))
    return [t for t, _ in flat], len(flat) / took, [text for _, text in flat]


OVERHEAD = """
    select extract(epoch from m.created_at - asked.created_at) * 1000
           - coalesce((r.trace -> 'milliseconds' ->> 'encode')::float, 0)
           - coalesce((r.trace -> 'milliseconds' ->> 'generate')::float, 0)
      from reply r
      join message m on m.id = r.message_id
      join lateral (select max(created_at) as created_at from message q
                     where q.turn_id = r.turn_id and q.author = 'customer') asked on true
     where m.created_at > %(since)s
"""


async def overhead(url: str, since: Any) -> list[float]:
    """Return seconds between storing a message and its reply that no model used, per reply."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        cursor = await conn.execute(OVERHEAD.encode(), {"since": since})
        return [float(row[0]) / 1000 for row in await cursor.fetchall()]


async def now(url: str) -> Any:
    """Return the database's clock."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        cursor = await conn.execute("select clock_timestamp()")
        row = await cursor.fetchone()
    return row[0] if row else None


async def style(url: str, name: str) -> None:
    """Let the base answer in a style from now on."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        await conn.execute("update knowledge_base set style = %(name)s", {"name": name})


async def measure(stack: Stack, *, quick: bool) -> dict[str, Any]:
    """Run all parts and return their figures."""
    seconds = 5.0 if quick else 20.0
    figures: dict[str, Any] = {}
    async with Customers(stack.url, TOKEN) as customers:
        say("Warming up")
        await replies(customers, 2, WARM_UP // 2)

        say("Replies: verbatim, one conversation")
        await style(stack.database_url, "verbatim")
        since = await now(stack.database_url)
        # Each text once: what was asked before is not encoded again.
        times, _, _ = await replies(customers, 1, 10 if quick else 60, wordings()[::7])
        figures["verbatim_1"] = spread(times)
        figures["overhead"] = spread(await overhead(stack.database_url, since))

        say("Replies: generated, one conversation")
        await style(stack.database_url, "generated")
        before = stage_seconds(await customers.metrics())
        times, rate, texts = await replies(customers, 1, 6 if quick else 30)
        figures["generated_1"] = {
            **spread(times),
            "replies_per_second": round(rate, 2),
            "mean_characters": round(sum(map(len, texts)) / len(texts)),
        }
        say("Replies: generated, 16 conversations at once")
        times, rate, _ = await replies(customers, 16, 1 if quick else 5)
        figures["generated_16"] = {**spread(times), "replies_per_second": round(rate, 2)}
        figures["stage_shares"] = shares(before, stage_seconds(await customers.metrics()))
        figures["memory_mb"] = memory_mb({n: r.process.pid for n, r in stack.roles.items()})

        say("Acknowledge times, worker stopped")
        await stack.settled()
        stack.stop("worker")
        figures["acknowledge_idle"] = spread(await customers.steadily(100, seconds, QUESTIONS))
        say("Acknowledge times, worker busy")
        await style(stack.database_url, "verbatim")
        stack.start("worker")
        await stack.ready()
        figures["acknowledge_busy"] = spread(await customers.steadily(100, seconds, QUESTIONS))
    return figures


async def publish_rate(count: int = 2000) -> float:
    """Return how many doorbells a second reach the broker from one thread."""
    from core.types import ConversationId
    from workers.publisher import Publisher

    publisher = Publisher()
    begun = time.perf_counter()
    for _ in range(count):
        await publisher.turn_now(ConversationId(uuid4()))
    return count / (time.perf_counter() - begun)


async def bare_backend(models: Path, *, quick: bool) -> dict[str, Any]:
    """Return what the reply model gives without a service around it, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bare", "--models", str(models)]
    command += ["--total", "32" if quick else "96"]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    printed, _ = await child.communicate()
    return json.loads(printed.splitlines()[-1])


async def run(models: Path, *, quick: bool) -> dict[str, Any]:
    """Start the service in a folder of its own, measure it, and end it."""
    from workers.app import configure

    with tempfile.TemporaryDirectory(prefix="deskhand-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "models").symlink_to(models)
        (folder / "metrics").mkdir()
        with Postgres(folder) as postgres, Valkey(folder) as valkey:
            migrate.upgrade(postgres.url)
            await sample.load(postgres.url, say)
            configure(valkey.url, ("slack",))
            say("Publish rate")
            rate = await publish_rate()
            say("The reply model by itself, 16 at once")
            bare = await bare_backend(models, quick=quick)
            settings = {
                "DESKHAND_DEBOUNCE": "0",
                "DESKHAND_REPLY_DEADLINE": "600",
                "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            }
            async with Stack(folder, postgres.url, valkey.url, settings) as stack:
                figures = await measure(stack, quick=quick)
            figures["publish_per_second"] = round(rate)
            figures["bare_backend_16"] = bare
            figures["share_of_bare_backend"] = round(
                figures["generated_16"]["replies_per_second"] / bare["replies_per_second"], 2
            )
            figures["machine"] = {"cores": os.cpu_count()}
            return figures


def table(figures: dict[str, Any]) -> str:
    """Return the figures as lines of Markdown."""
    lines = ["| figure | value |", "|---|---|"]
    for name, value in figures.items():
        shown = (
            ", ".join(f"{key} {one}" for key, one in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="deskhand bench", description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / ".deskhand" / "models")
    parser.add_argument("--quick", action="store_true", help="fewer messages, rougher figures")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    figures = asyncio.run(run(given.models.absolute(), quick=given.quick))
    print(json.dumps(figures) if given.json else table(figures))


if __name__ == "__main__":
    main()
