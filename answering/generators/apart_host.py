"""The child of `apart.py`, `python -m answering.generators.apart_host`.

Its arguments are the model's file and name, the threads, and `exact` or `fast`.

Reads one JSON object a line (`start` with messages and new_tokens, `drop`; `add` and `forget` an
adapter), steps while anything is under way, and writes one a line: `ready` or `error` first, then
`step` after each step, `so_far` with a text that grows, `done` with the result, and `added`. It
ends when its standard input does, so it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from answering.generators.openvino_local import OpenVinoGenerator
from answering.generators.protocol import Finish, Generated
from answering.prompting import ChatMessage, Prompt
from core.errors import ConfigurationError, InvalidInput

READ_BYTES = 1 << 16


def main() -> int:
    """Serve until standard input ends."""
    model, name, threads, precision = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    try:
        generator = OpenVinoGenerator(Path(model), name, int(threads), exact=precision == "exact")
    except ConfigurationError as error:
        _say({"error": str(error)})
        return 1
    _say({"ready": True})
    inbox = Inbox(sys.stdin.fileno())
    while (told := inbox.read(wait=not generator.running)) is not None:
        for message in told:
            _take(generator, message)
        if generator.running:
            for request_id, result in generator.step().items():
                _say_done(request_id, result)
            _say({"step": True})
    return 0


class Inbox:
    """Whole lines of a pipe, as many as are there."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._rest = b""

    def read(self, *, wait: bool) -> list[dict[str, Any]] | None:
        """Return the messages that are there, waiting for one if need be; None at the end."""
        if not wait and not select.select([self._pipe], [], [], 0)[0]:
            return []
        read = os.read(self._pipe, READ_BYTES)
        if not read:
            return None
        return list(self._whole(read))

    def _whole(self, read: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + read).split(b"\n")
        return (json.loads(line) for line in lines)


def _take(generator: OpenVinoGenerator, message: dict[str, Any]) -> None:
    if "drop" in message:
        generator.drop(message["drop"])
    elif "add" in message:
        _say(_added(generator, message["add"], message["place"]))
    elif "forget" in message:
        generator.drop_adapter(message["forget"])
    else:
        _start(generator, message)


def _added(generator: OpenVinoGenerator, name: str, place: str) -> dict[str, Any]:
    try:
        generator.add_adapter(name, Path(place))
    except ConfigurationError as error:
        return {"added": name, "error": str(error)}
    return {"added": name}


def _start(generator: OpenVinoGenerator, message: dict[str, Any]) -> None:
    request_id = message["start"]
    messages = tuple(ChatMessage(role, content) for role, content in message["messages"])
    prompt = Prompt(messages, message["adapter"])
    told = partial(_say_so_far, request_id) if message["told"] else None
    try:
        generator.start(request_id, prompt, message["new_tokens"], told)
    except InvalidInput as error:
        _say_done(request_id, Generated("", Finish.ERROR, error=str(error)))
    except Exception as error:  # one odd prompt must not end the others
        _say_done(request_id, Generated("", Finish.ERROR, error=type(error).__name__))


def _say_so_far(request_id: int, text: str) -> None:
    _say({"so_far": request_id, "text": text})


def _say_done(request_id: int, result: Generated) -> None:
    _say(
        {
            "done": request_id,
            "text": result.text,
            "finish": result.finish,
            "prompt_tokens": result.prompt_tokens,
            "new_tokens": result.new_tokens,
            "error": result.error,
        }
    )


def _say(message: dict[str, Any]) -> None:
    try:
        print(json.dumps(message), flush=True)  # noqa: T201  the pipe to the parent
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more


if __name__ == "__main__":
    sys.exit(main())
