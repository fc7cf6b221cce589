"""What every generator can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
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

    def start(
        self,
        request_id: int,
        prompt: Prompt,
        max_new_tokens: int,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Take in a prompt; its first token comes with the next step.

        Args:
            request_id: The caller's own.
            prompt: What to reply to.
            max_new_tokens: The longest reply.
            told: Called in `step` with the whole text so far, every few tokens.

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


@runtime_checkable
class RemoteGenerator(Protocol):
    """A generator on a server, asked from the event loop: it takes no thread of the models."""

    name: str

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone."""
        ...

    def close(self) -> None:
        """Free the connections."""
        ...

    async def reply(
        self, prompt: Prompt, max_new_tokens: int, told: Callable[[str], None] | None = None
    ) -> Generated:
        """Return what the server writes.

        Args:
            prompt: What to reply to.
            max_new_tokens: The longest reply.
            told: Called with the whole text so far.

        Raises:
            TransientError: The server is away, too slow or broken.
            ConfigurationError: The key, the model or the adapter is refused.
        """
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """A generator that writes with several adapters; a prompt names the one it wants."""

    def ready_adapter(self, folder: Path) -> Path:
        """Return what `add_adapter` takes of an adapter's folder; may take seconds, any thread.

        Raises:
            ConfigurationError: The folder holds no adapter of this model.
        """
        ...

    def add_adapter(self, name: str, place: Path) -> None:
        """Let prompts name an adapter; what runs is not disturbed. On the models' thread.

        Args:
            name: What prompts call it.
            place: From `ready_adapter`.

        Raises:
            ConfigurationError: It cannot be loaded.
        """
        ...

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter, which nobody names any more. On the models' thread."""
        ...
