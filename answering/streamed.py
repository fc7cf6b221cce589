"""Showing the finished sentences of a reply while the model still writes the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from answering.grounding import Checked, split_sentences
from core.errors import DeskhandError, LostClaim
from core.ports import Show

log = logging.getLogger(__name__)

Check = Callable[[str], Awaitable[Checked]]
"""Checks the finished sentences so far, as if they were the whole reply."""


class Stream:
    """Takes the text so far from the engine's thread and shows what passed the check.

    What is shown is always the beginning of what the check leaves of the whole: a sentence that
    fails is not shown, and what the check lets through only with more text waits for that.

    Args:
        show: Shows one sentence.
        check: Run on all finished sentences each time one more is finished.
    """

    def __init__(self, show: Show, check: Check) -> None:
        self._show = show
        self._check = check
        self._loop = asyncio.get_running_loop()
        self._fresh = asyncio.Event()
        self._text = ""
        self._is_over = False
        self._finished = 0
        self._shown: list[str] = []

    @property
    def shown(self) -> str:
        """What the customer sees already."""
        return " ".join(self._shown)

    def heard(self, text: str) -> None:
        """Take in the whole text so far; may be called on any thread."""
        self._loop.call_soon_threadsafe(self._take, text)

    def _take(self, text: str) -> None:
        self._text = text
        self._fresh.set()

    async def run(self) -> None:
        """Show sentences until `end` is called.

        Raises:
            LostClaim: Nobody wants the reply any more.
        """
        while not self._is_over:
            await self._fresh.wait()
            self._fresh.clear()
            # The last sentence may go on, and comes with the whole reply soon enough.
            finished = split_sentences(self._text)[:-1]
            if self._is_over or len(finished) <= self._finished:
                continue
            self._finished = len(finished)
            await self._offer(" ".join(finished))

    async def _offer(self, finished: str) -> None:
        try:
            checked = (await self._check(finished)).text
            if not checked.startswith(self.shown):
                return
            for sentence in split_sentences(checked[len(self.shown) :]):
                await self._show(sentence)
                self._shown.append(sentence)
        except LostClaim:
            raise
        except DeskhandError as error:  # the reply as a whole is still wanted
            self._is_over = True
            log.warning(
                "Sentence not shown", extra={"action": "sentence_not_shown", "reason": str(error)}
            )

    def end(self) -> None:
        """Show nothing more; a sentence on its way is let through."""
        self._is_over = True
        self._fresh.set()
