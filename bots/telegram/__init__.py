"""Telegram's Bot API, by long polling or webhook.

settings.py names what it takes, parsing.py is pure, wire.py holds the client and its errors,
sending.py lays out what is sent, polling.py and webhook.py bring events in, channel.py joins them.
"""

from bots.telegram.channel import Telegram
from bots.telegram.settings import TelegramSettings

__all__ = ["Telegram", "TelegramSettings"]
