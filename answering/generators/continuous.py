"""A whole batch at once, on a generator that is stepped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from answering.generators.protocol import ContinuousGenerator, Finish, Generated
from answering.prompting import Prompt
from core.errors import InvalidInput


def own_ids() -> Iterator[int]:
    """Return negative request ids without end, so that they never meet the engine's own."""
    number = 0
    while True:
        number -= 1
        yield number


def generate(
    generator: ContinuousGenerator,
    ids: Iterator[int],
    prompts: Sequence[Prompt],
    max_new_tokens: int,
) -> list[Generated]:
    """Return one result a prompt, in order; a bad prompt fails alone."""
    results: dict[int, Generated] = {}
    taken = [next(ids) for _ in prompts]
    for request_id, prompt in zip(taken, prompts, strict=True):
        try:
            generator.start(request_id, prompt, max_new_tokens)
        except InvalidInput as error:
            results[request_id] = Generated("", Finish.ERROR, error=str(error))
    while not all(request_id in results for request_id in taken):
        results.update(generator.step())
    return [results[request_id] for request_id in taken]
