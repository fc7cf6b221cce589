"""The lane of a reply model on a server: it needs no thread of ours, and holds nothing up."""

from __future__ import annotations

import asyncio

from answering.engine.jobs import Monotonic, Told, as_ours
from answering.engine.writing import Pace
from answering.generators.protocol import Generated, RemoteGenerator
from answering.prompting import Prompt
from core.errors import DeskhandError, Unavailable


class Asking:
    """Prompts under way to a server, each within its deadline, a bounded number of them.

    Args:
        limit: How many may be under way; the generator itself sends only so many at once.
        pace: Is told how long each took.
        clock: Of the engine.
    """

    def __init__(self, limit: int, pace: Pace, clock: Monotonic) -> None:
        self._limit = limit
        self._pace = pace
        self._clock = clock
        self._underway: set[asyncio.Task[Generated]] = set()

    async def generate(
        self,
        generator: RemoteGenerator,
        prompt: Prompt,
        seconds: float,
        new_tokens: int,
        told: Told | None,
    ) -> Generated:
        """Return what the server writes; a caller who leaves ends the request.

        Raises:
            Unavailable: Too much is under way, the server does not answer, or the time is over.
        """
        if len(self._underway) >= self._limit:
            raise Unavailable("too much waits for the reply model's server", retry_after=1.0)
        if seconds <= 0:
            raise Unavailable("the time for a reply is over")
        task = asyncio.ensure_future(generator.reply(prompt, new_tokens, told))
        self._underway.add(task)
        begun = self._clock()
        try:
            async with asyncio.timeout(seconds):
                written = await task
        except TimeoutError as error:
            raise Unavailable("the time for a reply is over") from error
        except DeskhandError:
            raise
        except Exception as error:
            raise as_ours(error) from error
        finally:
            task.cancel()
            self._underway.discard(task)
        self._pace.note(self._clock() - begun)
        return written

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._underway)
