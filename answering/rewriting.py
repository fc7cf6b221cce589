"""Follow-ups made stand-alone by a configured large model; the rules of `retrieval` stand behind.

What the model writes is another way to read the message: it is searched with, and never shown.
Where it is away, slow, or writes what nobody said, the readings made by rule stand.

Source: rewriting a question in its conversation by a language model: Elgohary et al., Can You
Unpack That? (EMNLP 2019); few words of instruction suffice a large one: Ye et al., Enhancing
Conversational Search (Findings of EMNLP 2023).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from answering.generators.protocol import Finish, Generated
from answering.prompting import ChatMessage, Prompt, as_data, cut
from answering.understanding import Message
from core.errors import DeskhandError
from core.types import Author, Utterance
from retrieval.entities import EntityIndex, gist
from retrieval.lexical import tokens

Write = Callable[[Prompt, float, int], Awaitable[Generated]]
"""Asks a model within so many seconds for at most so many new tokens, as `Engine.generate`."""

SECONDS = 2.0
"""A customer waits for nothing longer than this; the rules are there at once."""
NEW_TOKENS = 64
MESSAGES = 6
"""Earlier messages that the model sees, the latest ones."""
MOST_CHARACTERS = 300
OWN_WORDS_FROM = 0.6
"""So much of a rewrite must have been said: what a model adds beyond it is made up."""

INSTRUCTION = (
    "Rewrite the customer's last message as one question that can be understood without the "
    "conversation before it. Keep its language and its meaning. Put names in the place of words "
    "such as it, they, there or that one. Do not answer it. Write the question alone."
)

_LABEL = re.compile(
    r"^\W*(?:(?:rewritten |stand-?alone )?(?:question|message|query)|customer)\s*:\s*",
    re.IGNORECASE,
)
_QUOTES = " \t\"'“”„«»「」"


def prompt_of(message: str, history: Sequence[Utterance]) -> Prompt:
    """Return what a model is asked; the messages are data, cut to what a short prompt holds."""
    lines = [
        f"{'Customer' if said.author is Author.CUSTOMER else 'Assistant'}: "
        f"{cut(as_data(said.text), 120)}"
        for said in history[-MESSAGES:]
    ]
    conversation = "\n".join(lines)
    asked = cut(as_data(message), 200)
    return Prompt(
        (
            ChatMessage("system", INSTRUCTION),
            ChatMessage("user", f"Conversation:\n{conversation}\n\nLast message: {asked}"),
        )
    )


async def by_model(
    message: str, history: Sequence[Utterance], write: Write, seconds: float = SECONDS
) -> str | None:
    """Return a message as a question that stands alone; None where the rules must do.

    Args:
        message: What the customer says.
        history: What was said before, oldest first.
        write: Asks the model.
        seconds: The longest to wait.
    """
    if not history or not tokens(message):
        return None
    within = min(seconds, SECONDS)
    try:
        async with asyncio.timeout(within):
            written = await write(prompt_of(message, history), within, NEW_TOKENS)
    except (DeskhandError, TimeoutError):  # whatever is wrong is logged where replies are written
        return None
    if written.finish is not Finish.STOP:
        return None
    return usable(written.text, message, history)


def usable(written: str, message: str, history: Sequence[Utterance]) -> str | None:
    """Return what a model wrote as a question, None where it is anything but one of this talk."""
    lines = [line for line in written.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    text = _LABEL.sub("", lines[0]).strip(_QUOTES)
    words = tokens(text)
    if not words or len(text) > MOST_CHARACTERS:
        return None
    said = set(tokens(" ".join([message, *(u.text for u in history)])))
    if sum(word in said for word in words) < OWN_WORDS_FROM * len(words):
        return None
    return text


def may_need(message: Message, history: Sequence[Utterance]) -> bool:
    """Return whether a model is worth asking: something was said before, and something is asked."""
    return bool(history) and not message.is_polite_only and not message.parts


def with_reading(message: Message, text: str, entities: EntityIndex) -> Message:
    """Return a message read as it stands or as a model wrote it, in place of the rules' readings.

    Args:
        message: As `answering.understanding.read` returns it.
        text: What `by_model` returned.
        entities: Of the base, for the reading's gist.
    """
    readings = tuple(dict.fromkeys((message.readings[0], text)))
    asked = (*readings, *message.parts)
    return replace(message, readings=readings, gists=tuple(gist(said, entities) for said in asked))
