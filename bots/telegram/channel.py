"""One Telegram bot as a channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import APIRouter
from telegram import Message, Update
from telegram.constants import ChatAction
from telegram.error import TelegramError

from bots.telegram import sending, wire
from bots.telegram.parsing import Identity, Ignored, Parsed, is_private, parse
from bots.telegram.polling import Patience, keep_webhook, poll_updates
from bots.telegram.sending import NO_PREVIEW, Post
from bots.telegram.settings import TelegramSettings
from bots.telegram.webhook import webhook_routes
from core.errors import InvalidInput, PermanentError, Unavailable, UncertainError
from core.ports import Receiver
from core.types import (
    Delivery,
    Incoming,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    IncomingMove,
    Limits,
)

log = logging.getLogger(__name__)

UNKNOWN = Identity(id=0, username="")


class Telegram:
    """Telegram's Bot API, by long polling or webhook.

    Args:
        settings: Of this bot.
        patience: How long its loops pause after trouble.

    Raises:
        ConfigurationError: There is no token.
    """

    name = "telegram"
    limits = Limits(per_chat=20, window_seconds=60.0)
    working_seconds = 4.0  # Telegram shows it for 5

    def __init__(self, settings: TelegramSettings, patience: Patience | None = None) -> None:
        self.settings = settings
        self._patience = patience or Patience()
        self._client = wire.Client.of(settings)
        self._bot = self._client.bot
        self._me: Identity | None = None
        self._learning = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Learn who the bot is, in the background: the platform may be away just now."""
        await self._client.open()
        self._in_background(self._try_to_learn())

    async def close(self) -> None:
        """End what goes on beside, and close connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def routes(self, receiver: Receiver) -> APIRouter:
        """Return `POST /telegram/webhook`; closed with 403 where no secret is set."""

        async def take_in(update: Update) -> None:
            await self.take_in(update, receiver)

        secret = self.settings.webhook_secret
        return webhook_routes(self._bot, secret, take_in, receiver)

    # --- in ------------------------------------------------------------------------------------

    async def poll(self, receiver: Receiver, stop: asyncio.Event) -> None:
        """Take in updates until `stop` is set; with a webhook, keep that registered instead."""
        if self.settings.webhook_url is not None:
            await keep_webhook(self._bot, self.settings, receiver, stop, self._patience)
        else:
            take_in = partial(self.take_in, receiver=receiver)
            await poll_updates(self._bot, take_in, receiver, stop, self._patience)

    async def take_in(self, update: Update, receiver: Receiver) -> None:
        """Hand an update to the receiver; on return it is stored, or is nothing for us.

        Raises:
            Unavailable: It could not be stored now.
        """
        parsed = await self._parse(update)
        try:
            match parsed:
                case Incoming():
                    await receiver.receive(parsed)
                case IncomingFeedback():
                    await receiver.give_feedback(parsed)
                case IncomingEdit() | IncomingDeletion() | IncomingMove():
                    await receiver.change(parsed)
                case Ignored(reason):
                    receiver.ignored(reason)
                case None:
                    receiver.rejected("an update that cannot be read")
        except InvalidInput as error:  # asking for it again would not make it better
            receiver.rejected(str(error))
        if update.callback_query is not None:
            sign = "✓" if isinstance(parsed, IncomingFeedback) else None
            self._in_background(self._end_press(update.callback_query.id, sign))

    async def _parse(self, update: Update) -> Parsed | None:
        me = self._me or (UNKNOWN if is_private(update) else await self._learn())
        try:
            return parse(update, me)
        except Exception:  # one odd update must not hold up the others
            log.exception(
                "Update could not be read",
                extra={"action": "update_unreadable", "update_id": update.update_id},
            )
            return None

    async def _end_press(self, query_id: str, sign: str | None) -> None:
        """End the waiting that a pressed button shows; Telegram forgets a press after 150 s."""
        with suppress(TelegramError):
            await self._bot.answer_callback_query(query_id, text=sign)

    async def _learn(self) -> Identity:
        """Return who the bot is; groups need its name.

        Raises:
            Unavailable: Telegram does not tell now.
        """
        async with self._learning:
            if self._me is None:
                try:
                    user = await self._bot.get_me()
                except TelegramError as error:
                    raise Unavailable(
                        "Telegram does not tell who the bot is.", retry_after=1.0
                    ) from error
                reads_all = bool(user.can_read_all_group_messages)
                self._me = Identity(user.id, user.username or "", reads_all)
            return self._me

    async def _try_to_learn(self) -> None:
        with suppress(Unavailable):
            await self._learn()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    # --- out -----------------------------------------------------------------------------------

    def parts(self, delivery: Delivery) -> int:
        """Return into how many messages a delivery is split."""
        return len(sending.posts(delivery))

    async def send(self, delivery: Delivery, part: int) -> str:
        """Send one part of a delivery and return Telegram's message id."""
        post = sending.posts(delivery)[part]
        try:
            sent = await self._post(delivery, part, post)
        except (TelegramError, TimeoutError) as error:
            raise wire.translated(error, delivery.chat) from error
        return str(sent.message_id)

    async def _post(self, delivery: Delivery, part: int, post: Post) -> Message:
        async with asyncio.timeout(wire.CALL_SECONDS):
            try:
                return await self._send_message(delivery, part, post)
            except TelegramError as error:
                if not wire.is_formatting(error):
                    raise
                # Refused, so surely not sent: the words matter more than their looks.
                log.warning(
                    "Message sent again without its formatting",
                    extra={"action": "formatting_refused", "delivery_id": delivery.id},
                )
                return await self._send_message(delivery, part, Post(post.plain, post.plain))

    async def _send_message(self, delivery: Delivery, part: int, post: Post) -> Message:
        try:
            chat = int(delivery.chat)
        except ValueError as error:
            raise PermanentError(f"{delivery.chat} is no Telegram chat.") from error
        return await self._bot.send_message(
            chat,
            post.text,
            entities=post.entities or None,
            message_thread_id=int(delivery.thread) if delivery.thread else None,
            reply_parameters=sending.reply_parameters(delivery, part),
            reply_markup=post.buttons,
            link_preview_options=NO_PREVIEW,
        )

    async def find_sent(self, delivery: Delivery, part: int) -> str | None:
        """Never knows: no method of the Bot API reads a chat back."""
        raise UncertainError("Telegram cannot tell whether it was sent; see the chat.")

    async def show_working(self, chat: str, thread: str | None) -> None:
        """Show "typing" for a few seconds; a message ends it."""
        with suppress(TelegramError, ValueError):
            await self._bot.send_chat_action(
                int(chat), ChatAction.TYPING, message_thread_id=int(thread) if thread else None
            )
