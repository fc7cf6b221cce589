"""Bringing updates in without a lost one: the loop that polls, and the one that keeps a webhook.

PTB's own `Updater` confirms updates before their handler is done; here the offset moves on only
when an update is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from telegram import Bot, Update
from telegram.constants import UpdateType
from telegram.error import BadRequest, Conflict, InvalidToken, TelegramError

from bots.telegram.settings import TelegramSettings
from bots.telegram.wire import POLL_SECONDS, TooManyRequests
from core.errors import TransientError
from core.ports import Receiver
from core.retrying import backoff

log = logging.getLogger(__name__)

ALLOWED_UPDATES = [
    UpdateType.MESSAGE,
    UpdateType.EDITED_MESSAGE,
    UpdateType.CALLBACK_QUERY,
    UpdateType.MESSAGE_REACTION,  # in groups only where the bot is an administrator
]
FAILURES_OF_NOTE = 3
"""A single dropped poll is no news."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """Pauses in seconds.

    Attributes:
        conflict: After a 409: somebody else polls, and two that retry fast only disturb each other.
        refused: After Telegram refused the token or the webhook, which only staff can change.
        longest: Of the growing pauses after other failures.
        webhook_check: Between two looks at the registered webhook.
    """

    conflict: float = 15.0
    refused: float = 60.0
    longest: float = 5.0
    webhook_check: float = 60.0


async def poll_updates(
    bot: Bot,
    take_in: Callable[[Update], Awaitable[None]],
    receiver: Receiver,
    stop: asyncio.Event,
    patience: Patience,
) -> None:
    """Take in updates until `stop` is set; whatever happens, go on."""
    loop = _Loop(receiver, stop, patience)
    polling = _Polling(bot, take_in)
    await loop.until_done(polling.drop_webhook)
    while not stop.is_set():
        await loop.attempt(polling.step)


async def keep_webhook(
    bot: Bot,
    settings: TelegramSettings,
    receiver: Receiver,
    stop: asyncio.Event,
    patience: Patience,
) -> None:
    """Register the webhook, and again if somebody else changed it, until `stop` is set."""
    loop = _Loop(receiver, stop, patience)
    url = settings.webhook_url or ""
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None

    async def register() -> None:
        await bot.set_webhook(url, allowed_updates=ALLOWED_UPDATES, secret_token=secret)

    async def check() -> None:
        if (await bot.get_webhook_info()).url != url:
            await register()

    await loop.until_done(register)  # always once: the registered secret cannot be read
    while not stop.is_set():
        await loop.pause(patience.webhook_check)
        if not stop.is_set():
            await loop.attempt(check)


class _Polling:
    """The offset, and what moves it."""

    def __init__(self, bot: Bot, take_in: Callable[[Update], Awaitable[None]]) -> None:
        self._bot = bot
        self._take_in = take_in
        self._offset: int | None = None

    async def drop_webhook(self) -> None:
        """Make polling possible; what waits for the webhook is kept."""
        await self._bot.delete_webhook(drop_pending_updates=False)

    async def step(self) -> None:
        """Fetch and take in what there is; asking for the next confirms what is stored."""
        updates = await self._bot.get_updates(
            offset=self._offset, timeout=POLL_SECONDS, allowed_updates=ALLOWED_UPDATES
        )
        await self._take_all(updates)

    async def _take_all(self, updates: Sequence[Update]) -> None:
        """Move the offset over what is stored, up to the first that is not.

        An update that fails by itself (a defect of ours) keeps the offset, but those behind it are
        taken in all the same; they come again and are recognised as duplicates.

        Raises:
            Exception: What kept the offset from moving on.
        """
        failed: Exception | None = None
        for update in updates:
            try:
                await self._take_in(update)
            except TransientError:
                raise  # the database is away: for the others too
            except Exception as error:
                failed = failed or error
            if failed is None:
                self._offset = update.update_id + 1
        if failed is not None:
            raise failed


class _Loop:
    """Attempts with pauses; tells staff of trouble once when it begins, and when it is over."""

    def __init__(self, receiver: Receiver, stop: asyncio.Event, patience: Patience) -> None:
        self._receiver = receiver
        self._stop = stop
        self._patience = patience
        self._failures = 0
        self._logged: str | None = None
        self._reported: str | None = "not known"  # what an earlier process left there

    async def until_done(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Attempt until it succeeds."""
        while not self._stop.is_set() and not await self.attempt(work):
            pass

    async def attempt(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Do something once, pausing after a failure; give it up when `stop` is set.

        Returns:
            Whether it was done.
        """
        try:
            if not await self._unless_stopped(work()):
                return False
        except Exception as error:  # the loop must outlive everything
            self._failures += 1
            trouble, seconds = self._judge(error)
            await self._tell(trouble, error)
            await self.pause(seconds)
            return False
        self._failures = 0
        await self._tell(None, None)
        return True

    async def pause(self, seconds: float) -> None:
        """Wait, or stop waiting when `stop` is set."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        doing = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
            return doing.done()
        finally:
            doing.cancel()  # nothing is lost: what was not confirmed comes again
            stopped.cancel()
            await asyncio.gather(doing, stopped, return_exceptions=True)

    def _judge(self, error: Exception) -> tuple[str | None, float]:
        """Return the trouble to show, if it is of note, and the pause."""
        growing = min(self._patience.longest, backoff(self._failures))
        match error:
            case Conflict():
                return (
                    "Telegram answers 409 Conflict: another program polls this bot, or has set a "
                    "webhook; stop it, or give this inbox its own bot.",
                    self._patience.conflict,
                )
            case InvalidToken():
                return (
                    "Telegram refuses the bot token; set a valid TELEGRAM_BOT_TOKEN.",
                    self._patience.refused,
                )
            case TooManyRequests():
                return None, error.seconds
            case BadRequest():
                return f"Telegram refuses: {error.message[:200]}", self._patience.refused
            case TelegramError():
                away = self._failures >= FAILURES_OF_NOTE
                return ("Telegram cannot be reached." if away else None), growing
            case TransientError():
                return str(error), error.retry_after or growing
            case _:
                name = type(error).__name__
                return f"An update cannot be taken in ({name}); see the log.", growing

    async def _tell(self, trouble: str | None, error: Exception | None) -> None:
        if error is not None and trouble is None:
            return  # not of note yet, and not well either
        if trouble != self._logged:
            self._log(trouble, error)
        if trouble != self._reported:
            with suppress(TransientError):  # the database may be what is away: told next time
                await self._receiver.report_trouble(trouble)
                self._reported = trouble

    def _log(self, trouble: str | None, error: Exception | None) -> None:
        expected = error is None or isinstance(error, TelegramError | TransientError)
        if trouble is None:
            log.info("Telegram is well again", extra={"action": "telegram_well"})
        else:
            log.error(
                trouble,
                exc_info=None if expected else error,
                extra={"action": "telegram_trouble"},
            )
        self._logged = trouble
