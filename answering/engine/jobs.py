"""What waits for the engine's thread, and how its callers are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from answering.generators.protocol import Generated
from answering.prompting import Prompt, estimate_tokens
from core.errors import DeskhandError, Unavailable
from retrieval.encoders.protocol import Scores, Vectors

T = TypeVar("T")

Told = Callable[[str], None]
"""Takes the whole text so far, on the engine's thread: it must return at once."""


class Monotonic(Protocol):
    """A clock that only goes forward, in seconds."""

    def __call__(self) -> float:
        """Return the time."""
        ...


@dataclass
class Encoding:
    """Texts to encode."""

    texts: list[str]
    expires_at: float
    future: Future[Vectors] = field(default_factory=Future[Vectors])


@dataclass
class Scoring:
    """Pairs of texts for one of the scorers."""

    name: str
    pairs: list[tuple[str, str]]
    expires_at: float
    future: Future[Scores] = field(default_factory=Future[Scores])


@dataclass
class Generation:
    """A reply to write."""

    prompt: Prompt
    new_tokens: int
    expires_at: float
    told: Told | None = None
    begun_at: float = 0.0
    future: Future[Generated] = field(default_factory=Future[Generated])

    @property
    def hears(self) -> Told | None:
        """What takes the text so far, as long as somebody waits for it; it never raises."""
        if self.told is None:
            return None
        told, future = self.told, self.future

        def tell(text: str) -> None:
            if not future.done():
                with suppress(Exception):  # a listener's mistake is not the model's
                    told(text)

        return tell


@dataclass
class Errand:
    """Something that only the thread that touches the models may do."""

    work: Callable[[], Any]
    expires_at: float
    future: Future[Any] = field(default_factory=Future[Any])


Job = Encoding | Scoring | Generation | Errand


def pair_tokens(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Return about how many tokens each pair has."""
    return [estimate_tokens(one) + estimate_tokens(other) for one, other in pairs]


def as_ours(error: Exception, whose: str = "the reply model") -> DeskhandError:
    """Return an error of this project for whatever a model raised."""
    if isinstance(error, DeskhandError):
        return error
    failed = Unavailable(f"{whose} failed: {type(error).__name__}")
    failed.__cause__ = error
    return failed


def resolve(future: Future[T], value: T) -> None:
    """Answer a caller."""
    with suppress(InvalidStateError):  # the caller left, or the watchdog was first
        future.set_result(value)


def fail(future: Future[Any], error: DeskhandError) -> None:
    """Fail a caller."""
    with suppress(InvalidStateError):  # the caller left, or the watchdog was first
        future.set_exception(error)
