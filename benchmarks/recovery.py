"""How long a customer waits when the worker that answers them is killed: `python -m
benchmarks.recovery`.

Two workers run; the one that has the turn in hand is stopped and killed, and the time from there to
the reply by the other is printed, some times over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from benchmarks.measuring import spread
from benchmarks.questions import QUESTIONS
from benchmarks.service import ROOT, say
from cli.commands import sample
from cli.embedded import Postgres, Valkey
from core.db import migrate
from tests.end_to_end.stack import Stack

WORKERS = ("worker", "another")


async def kill_holder(stack: Stack, conversation: str) -> str:
    """Wait until a worker has a conversation in hand, kill it, and return its name."""
    killed: list[str] = []

    async def is_held() -> bool:
        owner = await stack.value(
            "select lease_owner from conversation where key = %(key)s", key=conversation
        )
        for name in WORKERS:
            if owner and f":{stack.roles[name].process.pid}:" in owner:
                stack.roles[name].process.send_signal(signal.SIGSTOP)
                killed.append(name)
        return bool(killed)

    await stack.until(is_held, "claimed", 20.0)
    stack.kill(killed[0])
    return killed[0]


async def both_ready(stack: Stack) -> None:
    """Wait until both workers say that they are ready."""

    async def are_ready() -> bool:
        query = (
            "select count(*) from process where role = 'worker'"
            " and seen_at > now() - interval '2 seconds'"
        )
        return await stack.value(query) == len(WORKERS)

    await stack.until(are_ready, "two workers")


async def once(stack: Stack, text: str) -> float:
    """Return the seconds from a kill to the reply."""
    await both_ready(stack)
    name = f"recovery-{uuid4().hex[:8]}"
    await stack.say(name, text)
    victim = await kill_holder(stack, name)
    begun = time.perf_counter()
    await stack.settled()
    took = time.perf_counter() - begun
    if len(await stack.replies(name)) != 1:
        raise RuntimeError("not answered once")
    stack.start("worker", victim)
    return took


async def run(models: Path, times: int) -> list[float]:
    """Start the service with two workers and measure."""
    with tempfile.TemporaryDirectory(prefix="deskhand-recovery-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "models").symlink_to(models)
        with Postgres(folder) as postgres, Valkey(folder) as valkey:
            migrate.upgrade(postgres.url)
            await sample.load(postgres.url, say)
            settings = {"DESKHAND_REPLY_STYLE": "generated", "DESKHAND_REPLY_DEADLINE": "60"}
            async with Stack(folder, postgres.url, valkey.url, settings) as stack:
                stack.start("worker", "another")
                return [await once(stack, QUESTIONS[n % len(QUESTIONS)]) for n in range(times)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / ".deskhand" / "models")
    parser.add_argument("--times", type=int, default=6)
    given = parser.parse_args(arguments)
    print(json.dumps(spread(asyncio.run(run(given.models.absolute(), given.times)))))


if __name__ == "__main__":
    main()
