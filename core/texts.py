"""What Deskhand says by itself, by key and language; staff may change each text per base."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from core.types import KnowledgeBase

__all__ = ["KEYS", "KnowledgeBase", "guess_locale", "shipped", "text"]

KEYS = (
    "greeting",
    "thanks_reply",
    "goodbye_reply",
    "hand_off",
    "waiting_notice",
    "deadline",
    "failed",
    "refuse",
    "feedback_reply",
    "complaint_reply",
    "resolved",
    "unreadable",
    "clarify",
    "noted",
)
"""All system texts."""

_KANA = re.compile("[\u3040-\u30ff]")
_HAN = re.compile("[\u4e00-\u9fff]")


@cache
def shipped() -> dict[str, dict[str, str]]:
    """Return the product's own texts: `shipped()[locale][key]`."""
    return json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))


def text(base: KnowledgeBase, key: str, locale: str) -> str:
    """Return a system text in a language, else in the base's, else in English.

    Staff's own wording in a further language is preferred to ours only in that language.
    """
    language = locale.split("-")[0].lower()
    for wanted in (language, base.locale, "en"):
        own = base.texts.get(wanted, {}).get(key)
        ours = shipped().get(wanted, {}).get(key)
        if own or ours:
            return own or ours or ""
    raise KeyError(key)


def guess_locale(said: str, fallback: str) -> str:
    """Return the language that the script of a text shows, without a model."""
    if _KANA.search(said):
        return "ja"
    if _HAN.search(said):
        return "zh"
    return fallback
