"""The table of methods: to add one, write its file and its line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from answering.generators import adapted
from core.errors import InvalidInput
from training.replies import adalora, bottleneck, full, ia3, last_layers, lora, prefix
from training.replies.protocol import Method

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        lora.METHOD,
        adalora.METHOD,
        prefix.METHOD,
        ia3.METHOD,
        bottleneck.METHOD,
        full.METHOD,
        last_layers.METHOD,
    )
}

_OF_KIND = {
    adapted.LORA: lora.METHOD,
    adapted.PREFIX: prefix.METHOD,
    "IA3": ia3.METHOD,
    adapted.BOTTLENECK: bottleneck.METHOD,
    adapted.WEIGHTS: full.METHOD,
}


def named(name: str) -> Method:
    """Return a method by its name; `last-layers` is the same as `last_layers`.

    Raises:
        InvalidInput: There is none of this name.
    """
    found = METHODS.get(name.replace("-", "_"))
    if found is None:
        raise InvalidInput(
            f"there is no method {name!r}; there are {', '.join(METHODS)}", field="method"
        )
    return found


def of_folder(folder: Path) -> Method:
    """Return the method that goes on with what a folder holds.

    Raises:
        InvalidInput: It holds no adapter, or one of a kind that is not known.
    """
    try:
        kind = adapted.kind_of(folder)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder} holds no adapter: {error}", field="adapter") from error
    if kind not in _OF_KIND:
        raise InvalidInput(f"{folder} holds an adapter of the kind {kind}, which cannot be trained "
                           "further here", field="adapter")  # fmt: skip
    return _OF_KIND[kind]
