"""Fields of log lines: logging itself raises when one has the name of its own attributes."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("core", "bots", "desk", "retrieval", "answering", "workers", "training", "cli")
TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def fields() -> Iterator[tuple[str, str]]:
    """Yield where a log line is given a field, and the field's name."""
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "extra":
                    names = node.value.keys if isinstance(node.value, ast.Dict) else ()
                    for name in names:
                        if isinstance(name, ast.Constant) and isinstance(name.value, str):
                            yield f"{path.relative_to(ROOT)}:{name.lineno}", name.value


def test_no_field_of_a_log_line_has_a_name_that_logging_refuses():
    found = list(fields())

    assert len(found) > 50
    assert [(where, name) for where, name in found if name in TAKEN] == []
