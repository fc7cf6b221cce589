"""What the benchmarks ask the sample shop; none is a test conversation."""

import json
from pathlib import Path

from cli.commands import sample

QUESTIONS = (
    "How long do I have to send something back?",
    "Which payment methods do you take?",
    "Which countries do you ship to?",
    "How can I use a gift card?",
    "How do I get an invoice?",
    "Can I change my delivery address?",
    "How long is the warranty on the Otter bottle?",
    "How long does delivery to France take?",
)


def wordings() -> list[str]:
    """Return the English alternates of the sample's entries, each a text of its own."""
    lines = (Path(str(sample.FOLDER)) / "faq.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["locale"] == "en"]
    return [text for entry in entries for text in entry["alternates"]]
