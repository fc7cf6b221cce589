"""Invented businesses with little FAQs, and what customers ask them in words of their own.

Written for this project (Apache-2.0). Most questions share few words with their entry, and to a
quarter of all none answers although they are about the same business: what a model must learn to
tell, and what the sample shop alone cannot show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from core.types import FaqEntry
from training.evaluation.report import read_jsonl

OWN = "businesses.jsonl"


@dataclass(frozen=True)
class Asked:
    """A question to one of several businesses, and the entry that answers it, if any."""

    base: str
    text: str
    entry: FaqEntry | None


def own_data() -> tuple[Mapping[str, list[FaqEntry]], list[Asked]]:
    """Return our own little FAQs of invented businesses, by name, and what customers ask them.

    Written for this project. Most questions share few words with their entry; to about a third of
    all none answers.
    """
    bases: defaultdict[str, list[FaqEntry]] = defaultdict(list)
    asked: list[Asked] = []
    place = Path(str(files("training") / "data" / OWN))
    for row in read_jsonl(place, ("base", "locale")):
        base, locale = row["base"], row["locale"]
        if "missing" in row:
            asked.append(Asked(base, row["missing"], None))
            continue
        entry = FaqEntry(f"{base}-{len(bases[base])}", row["question"], row["answer"],
                         locale=locale, status="published")  # fmt: skip
        bases[base].append(entry)
        asked += [Asked(base, text, entry) for text in row["asked"]]
    return bases, asked
