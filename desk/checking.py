"""What the staff's routes check alike, before anything reaches the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator

from core.intake import SURROGATES

NAME_LIMIT_CHARACTERS = 200

Authorize = Callable[..., Awaitable[None]]
"""A dependency that raises 401 for a wrong or missing token."""


def _storable(text: str) -> str:
    if "\x00" in text or SURROGATES.search(text):
        raise ValueError("holds a NUL character or a lone surrogate; remove it")
    return text


Storable = Annotated[str, AfterValidator(_storable)]
"""A text that the database can hold."""

Base = Annotated[
    Storable, Query(max_length=NAME_LIMIT_CHARACTERS, description="The knowledge base.")
]
Words = Annotated[Storable | None, Query(max_length=500)]
ConversationName = Annotated[
    Storable,
    Path(
        max_length=NAME_LIMIT_CHARACTERS,
        description="A conversation_id, or the name under which its messages were sent.",
    ),
]
EntryId = Annotated[Storable, Path(max_length=NAME_LIMIT_CHARACTERS)]
