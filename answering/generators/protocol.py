"""What every generator can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from answering.prompting import Prompt


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model was done."""
    LENGTH = "length"
    """It reached `max_new_tokens`: the last sentence may be cut."""
    ERROR = "error"


@dataclass(frozen=True)
class Generated:
    """What a model wrote for one prompt.

    Attributes:
        text: Without special tokens, stripped; empty on an error.
        error: Why this prompt alone failed.
    """

    text: str
    finish: Finish
    prompt_tokens: int = 0
    new_tokens: int = 0
    error: str | None = None


class Generator(Protocol):
    """Writes replies, greedily, so that the same prompt gives the same reply.

    Plain blocking functions, called on one thread at a time.
    """

    name: str
    """Model, adapter and number format, as the trace shows them."""

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone.

        Raises:
            TransientError: The model is away (a server); all prompts may be tried again.
        """
        ...

    def close(self) -> None:
        """Free the model or its connections."""
        ...


@runtime_checkable
class ContinuousGenerator(Protocol):
    """A generator that takes in new prompts while others run: the engine steps it.

    `generate` may be called only while nothing that was started runs.
    """

    name: str

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...

    def start(self, request_id: int, prompt: Prompt, max_new_tokens: int) -> None:
        """Take in a prompt; its first token comes with the next step.

        Raises:
            InvalidInput: The prompt is empty or longer than the model's context.
        """
        ...

    def step(self) -> Mapping[int, Generated]:
        """Run one step of all that was started; return those that ended in it."""
        ...

    def drop(self, request_id: int) -> None:
        """Stop a generation that nobody waits for any more."""
        ...

    @property
    def running(self) -> int:
        """How many were started and have not ended."""
        ...
