"""The reply model's prompt: one function for training and serving, so that they never differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.types import Author, Utterance

INSTRUCTION = (
    "You are a support assistant. Answer the customer in one or two short sentences, using only "
    "facts from the sources. Say yes or no first where that is the question."
)
"""Constant and first, so that a server keeps its prefix cached."""

PROMPT_TOKENS = 900
"""What a prompt may take: the small model's context is 2,048, and prefill is most of the cost."""
MESSAGE_TOKENS = 300
HISTORY_TOKENS = 160
SOURCES = 3

_LANGUAGES = {
    "de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "tr": "Turkish", "zh": "Chinese",
}  # fmt: skip
_CONTROL = re.compile(r"<\|[^<>|]{0,60}\|>|</?s>|\[/?INST\]|<</?SYS>>|[\x00-\x08\x0b-\x1f\x7f]")
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
_EMPHASIS = re.compile(r"(\*{1,3}|`+)(?=\S)(.+?)(?<=\S)\1")


class Source(Protocol):
    """What a reply may rest on; a `FaqEntry` is one."""

    @property
    def question(self) -> str:
        """What customers ask."""
        ...

    @property
    def answer(self) -> str:
        """The approved answer."""
        ...


@dataclass(frozen=True)
class ChatMessage:
    """One message to a chat model; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """What a generator gets; each renders it with its own model's chat template.

    Attributes:
        messages: What is said to the model.
        adapter: Name of the live adapter that writes; the model's own where it is empty.
    """

    messages: tuple[ChatMessage, ...]
    adapter: str = ""


def build(
    message: str,
    sources: Sequence[Source],
    history: Sequence[Utterance] = (),
    language: str = "en",
) -> Prompt:
    """Return the prompt for a reply to a message, grounded on sources.

    Args:
        message: What the customer said in this turn.
        sources: The entries to rest on, best first; the first three are used.
        history: What was said before, oldest first; the latest that fit are used.
        language: ISO 639-1 code of the language to answer in.
    """
    said = cut(as_data(message), MESSAGE_TOKENS)
    before = _history(history)
    room = PROMPT_TOKENS - sum(map(estimate_tokens, (INSTRUCTION, said, before)))
    parts = [_sources(sources[:SOURCES], room), before, f"Customer: {said}"]
    if language in _LANGUAGES:
        parts.append(f"Answer in {_LANGUAGES[language]}.")
    content = "\n\n".join(part for part in parts if part)
    return Prompt((ChatMessage("system", INSTRUCTION), ChatMessage("user", content)))


def as_data(text: str) -> str:
    """Return a text without what a chat template would take for its own control tokens."""
    while (cleaned := _CONTROL.sub(" ", text)) != text:  # "<|im_<|x|>start|>" hides one in another
        text = cleaned
    return text.strip()


def plain(markdown: str) -> str:
    """Return limited CommonMark as the literal text that a reply is written in."""
    text = _LINK.sub(_link, markdown)
    return _EMPHASIS.sub(r"\2", text)


def _link(link: re.Match[str]) -> str:
    label, target = link[1], link[2]
    says_it = label == target.removeprefix("mailto:").removeprefix("tel:")
    return label if says_it or not target else f"{label} ({target})"


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few.

    A byte-pair vocabulary made for English takes some four letters a token there and up to two
    tokens a character in other scripts.
    """
    ascii_only = sum(character < "\x80" for character in text)
    return ascii_only // 3 + 2 * (len(text) - ascii_only) + 1


def cut(text: str, tokens: int) -> str:
    """Return the beginning of a text that fits into so many tokens, ending at a word."""
    if estimate_tokens(text) <= tokens:
        return text
    used = 0.0
    for end, character in enumerate(text):
        used += 1 / 3 if character < "\x80" else 2
        if used > tokens - 2:
            head = text[:end]
            return (head.rsplit(" ", 1)[0] if " " in head else head).rstrip() + " …"
    return text


def _sources(sources: Sequence[Source], room: int) -> str:
    """Return the sources' block; the best is given its room first."""
    blocks: list[str] = []
    for number, source in enumerate(sources, start=1):
        question = cut(as_data(plain(source.question)), 80)
        left = room - estimate_tokens(question) - 12
        if left < 20 and blocks:
            break
        answer = cut(as_data(plain(source.answer)), max(left, 40))
        blocks.append(f"[{number}] {question}\n{answer}")
        room = left - estimate_tokens(answer)
    return "Sources:\n" + "\n".join(blocks) if blocks else "Sources: none"


def _history(history: Sequence[Utterance]) -> str:
    """Return the latest messages that fit, oldest first."""
    lines: list[str] = []
    room = HISTORY_TOKENS
    for utterance in reversed(history):
        speaker = "Customer" if utterance.author is Author.CUSTOMER else "Assistant"
        line = f"{speaker}: {cut(as_data(utterance.text), 60)}"
        room -= estimate_tokens(line)
        if room < 0:
            break
        lines.append(line)
    return "Earlier:\n" + "\n".join(reversed(lines)) if lines else ""
