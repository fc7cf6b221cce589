"""One fit on a fresh copy of the base: what a session, a search and an ensemble have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from answering.generators import adapted
from answering.generators.rendering import render
from answering.languages import language_of, same_language
from core.errors import ConfigurationError, InvalidInput
from training.replies import cleaning, methods
from training.replies.cleaning import Lesson, Report
from training.replies.loop import (
    Curve,
    Job,
    Progress,
    Watch,
    evaluate,
    planned_steps,
    read_head,
    train,
)
from training.replies.objective import ActionHead, Encoded, Learner, encode
from training.replies.protocol import Method, Shape
from training.replies.recipe import Measured, Outcome, Recipe

LONGEST_TOKENS = 640
"""Longer examples are left out: a batch costs what its longest costs."""
LONGEST_REPLY_TOKENS = 200
"""More than what a reply may have when it is served teaches to be cut off."""


def _no_curve(_step: int, _figures: dict[str, float]) -> None:
    """Nobody looks."""


def _no_watch(_step: int, _reply: float, _action: float) -> None:
    """Nobody prunes."""


@dataclass(frozen=True)
class Bench:
    """A base model, and encoded examples to train and to validate on.

    Attributes:
        base: A transformers folder.
        base_name: Its public name.
        start: An adapter to go on from, or None.
        pad: The padding token's id.
        opening: The first tokens of every prompt.
    """

    base: Path
    base_name: str
    training: Sequence[Encoded]
    validation: Sequence[Encoded]
    pad: int
    opening: tuple[int, ...] = ()
    start: Path | None = None

    def method(self, recipe: Recipe) -> Method:
        """Return the method: of the adapter to go on from, else the recipe's."""
        return methods.of_folder(self.start) if self.start else methods.named(recipe.method)

    def fit(
        self,
        recipe: Recipe,
        out: Path,
        progress: Progress,
        *,
        key: str = "",
        curve: Curve = _no_curve,
        watch: Watch = _no_watch,
    ) -> Outcome:
        """Train into a folder; see `loop.train`."""
        torch.manual_seed(recipe.seed)
        method = self.method(recipe)
        model = self._load()
        hidden = int(model.config.hidden_size)
        head = None
        if recipe.action_weight:
            head = (read_head(self.start, hidden) if self.start else None) or ActionHead(hidden)
        shape = Shape(
            rank=recipe.rank,
            dropout=recipe.dropout,
            last_layers=recipe.last_layers,
            steps=planned_steps(len(self.training), recipe),
            opening=self.opening,
        )
        tuned = method.resume(model, self.start) if self.start else method.add(model, shape)
        job = Job(tuned, method, self.base_name, head, key, curve, watch)
        return train(job, self.training, self.validation, out, recipe, self.pad, progress)

    def measure(self, folder: Path) -> Measured:
        """Return the validation losses of an adapter as it stands.

        Raises:
            InvalidInput: It is none for this base.
        """
        model = self._load()
        head = read_head(folder, int(model.config.hidden_size))
        try:
            tuned = adapted.put_on(model, folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InvalidInput(
                f"{folder} holds something else than an adapter of this model ({error}); give "
                "another --out",
                field="out",
            ) from error
        return evaluate(Learner(tuned, head), self.validation, self.pad)

    def _load(self) -> Any:
        return load_base(self.base)


def load_base(folder: Path) -> Any:
    """Return the untuned model in fp32.

    On the CPUs tried, without bf16 matrix units, a step took 7.6 core-seconds, in bf16 12.4.

    Raises:
        ConfigurationError: The folder has no weights, or they cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigurationError(
            f"the reply model in {folder} cannot be loaded: {error}"
        ) from error
    return model


def load_tokenizer(folder: Path) -> Any:
    """Return a model's tokenizer.

    Raises:
        ConfigurationError: There is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{folder} has no tokenizer: {error}") from error


def encoded(
    lessons: Sequence[Lesson], tokenizer: Any, report: Report, longest: int = LONGEST_TOKENS
) -> list[Encoded]:
    """Return lessons as token ids; those that are too long are left out and named."""
    made: list[Encoded] = []
    for lesson in lessons:
        example = lesson.example
        language = "en" if same_language(example.reply, "en") else language_of(example.reply)
        item = encode(example, tokenizer, render, language, lesson.decision)
        if len(item.ids) > longest or item.reply_tokens > LONGEST_REPLY_TOKENS:
            report.leave_out(lesson.where or "a pair", cleaning.TOO_LONG)
        else:
            made.append(item)
    return made


def opening_of(examples: Sequence[Encoded]) -> tuple[int, ...]:
    """Return the first tokens of the prompts, as many as a prefix may want."""
    return examples[0].ids[:64] if examples else ()
