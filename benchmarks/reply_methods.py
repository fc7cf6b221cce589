"""What each method of fine-tuning the reply model brings in the same few steps, and what it costs.

    python -m benchmarks.reply_methods --dstc9 FOLDER

FOLDER is grounded_dstc9_pairs. Every row trains the default model on the same pairs, a third of
them with sources that do not answer, and is measured on entries that none has seen: the loss of a
reply token, ROUGE-L of what it then writes, and, with lambda, how many decisions its action head
tells (answer, or hand off). The runs are short: they compare, and are no adapters to use.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from answering import preparing
from answering.generators.transformers_local import TransformersGenerator
from core.settings import Settings
from training.evaluation.generation import dstc9_cases, generated, rouge_l
from training.replies import ensemble
from training.replies.cleaning import Lesson, Report
from training.replies.data import Cleaning, ReplyExample, dstc9_examples
from training.replies.fitting import Bench, encoded, load_tokenizer, opening_of
from training.replies.methods import METHODS, named
from training.replies.recipe import Outcome, Recipe
from training.replies.session import contrasted

RATES = {
    "lora": 1e-3, "adalora": 3e-3, "prefix": 1e-2, "ia3": 1e-2, "bottleneck": 1e-3,
    "full": 5e-5, "last_layers": 2e-4,
}  # fmt: skip
"""As usual in the methods' papers; set before the runs and not tuned on them."""
LAMBDA = 0.3
EPSILON = 0.5


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    recipe: Recipe
    members: int = 1


def main() -> None:
    """Run all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dstc9", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    base = preparing.prepare_reply_base(Settings().models_dir, _say)
    bench = prepared(base, given.dstc9, given.pairs, given.cases)
    cases = dstc9_cases(given.dstc9, given.cases)
    _say(f"{len(bench.training)} pairs, {given.steps} steps of {given.batch}; validation "
         f"{len(bench.validation)} pairs, {len(cases)} replies")  # fmt: skip
    _say("| variant | loss before | loss | ROUGE-L | decisions right % | s | kB | served by |")
    _say("|---|---|---|---|---|---|---|---|")
    for variant in variants(Recipe(batch=given.batch, epochs=100, max_steps=given.steps, checks=2)):
        if not given.only or variant.name in given.only:
            _say(row(variant, bench, cases))


def prepared(base: Path, folder: Path, pairs: int, cases: int) -> Bench:
    """Return the pairs, a third of them contrasted, as token ids."""
    training = [Lesson(e) for e in dstc9_examples(folder, "train", Cleaning())[:pairs]]
    unseen = [Lesson(e) for e in dstc9_examples(folder, "val_unseen", Cleaning())[:cases]]
    tokenizer = load_tokenizer(base)
    report = Report()
    ids = encoded([*training, *contrasted(training, 0, share=0.5)], tokenizer, report)
    random.Random(0).shuffle(ids)
    return Bench(
        base=base,
        base_name=preparing.BASE_NAME,
        training=ids,
        validation=encoded([*unseen, *contrasted(unseen, 0, share=1.0)], tokenizer, report),
        pad=int(tokenizer.pad_token_id or tokenizer.eos_token_id),
        opening=opening_of(ids),
    )


def variants(plain: Recipe) -> list[Variant]:
    """Return the rows: all methods, then lambda, FGM and an ensemble on top of LoRA."""
    rows = [
        Variant(name, replace(plain, method=name, learning_rate=RATES[name])) for name in METHODS
    ]
    lora = rows[0].recipe
    return [
        *rows,
        Variant(f"lora, lambda {LAMBDA}", replace(lora, action_weight=LAMBDA)),
        Variant("lora, lambda 1", replace(lora, action_weight=1.0)),
        Variant(f"lora, FGM {EPSILON}", replace(lora, adversarial=EPSILON)),
        Variant("lora, ensemble of 2", lora, members=2),
    ]


def row(variant: Variant, bench: Bench, cases: Sequence[ReplyExample]) -> str:
    """Train a variant and return its line of the table."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        outcome = _fit(variant, bench, Path(place))
        seconds = time.monotonic() - began
        writer = TransformersGenerator(str(bench.base), variant.name, adapter=Path(place))
        replies = generated(writer, cases)
        writer.close()
    score = sum(rouge_l(reply, case.reply) for reply, case in zip(replies, cases, strict=True))
    right = "" if outcome.action_accuracy is None else f"{100 * outcome.action_accuracy:.1f}"
    served = "all" if named(variant.recipe.method).served_anywhere else "transformers"
    return (
        f"| {variant.name} | {outcome.loss_before:.3f} | {outcome.loss_best:.3f} | "
        f"{100 * score / len(cases):.1f} | {right} | {seconds:.0f} | "
        f"{outcome.adapter_bytes / 1000:.0f} | {served} |"
    )


def _fit(variant: Variant, bench: Bench, place: Path) -> Outcome:
    if variant.members > 1:
        return ensemble.fit(
            bench, variant.recipe, variant.members, place, _quiet, lambda _step, _figures: None
        )
    return bench.fit(variant.recipe, place, _quiet)


def _say(line: str) -> None:
    print(line, flush=True)


def _quiet(_line: str) -> None:
    """Only the table is printed."""


if __name__ == "__main__":
    main()
