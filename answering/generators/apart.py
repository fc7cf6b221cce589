"""A continuous generator in a process of its own.

OpenVINO GenAI keeps Python's interpreter lock during a step (measured: of 20 steps with 16 prompts
under way, another thread of the process ran 21 times), so a worker that steps it could hardly claim
or commit anything meanwhile. Here the steps are another process's; ours only waits at a pipe.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from answering.generators import continuous
from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from core.errors import ConfigurationError, InvalidInput

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.005
"""What a step waits for an end; what else the engine has to do waits no longer than this."""
SILENT_SECONDS = 60.0
"""A host that says nothing for so long, with prompts under way, is stuck: it is ended."""
END_SECONDS = 5.0


class ApartGenerator:
    """A GGUF model on OpenVINO, hosted by a child process that ends with this one.

    Args:
        model: The file, with the adapter merged.
        name: Of model and adapter, for the trace.
        threads: CPU threads; 0 takes the cores that this process may use.
        exact: Full precision, so that a reply never depends on what else is in the batch.
        merged: Returns the file with another adapter merged; None where that cannot be made.

    Raises:
        ConfigurationError: The file cannot be loaded.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        threads: int = 0,
        *,
        exact: bool = False,
        merged: Callable[[Path], Path] | None = None,
    ) -> None:
        self.name = name
        self._merged = merged
        self._adapters: dict[str, Path] = {}
        self._command = [sys.executable, "-m", "answering.generators.apart_host", str(model)]
        self._command += [name, str(threads), "exact" if exact else "fast"]
        self._underway: dict[int, Callable[[str], None] | None] = {}
        self._own_ids = continuous.own_ids()
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._kept: deque[dict[str, Any]] = deque()
        self._heard_at = time.monotonic()
        self._host = self._start_host()

    def _start_host(self) -> subprocess.Popen[str]:
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        host = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )
        self._said = queue.Queue()
        self._kept.clear()
        threading.Thread(target=_listen, args=(host, self._said), daemon=True).start()
        first = self._said.get()
        if first is None or "error" in first:
            self._end(host)
            raise ConfigurationError(
                first["error"] if first else f"the reply model {self.name} could not be started"
            )
        self._heard_at = time.monotonic()
        return host

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone."""
        return continuous.generate(self, self._own_ids, prompts, max_new_tokens)

    def start(
        self,
        request_id: int,
        prompt: Prompt,
        max_new_tokens: int,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Hand over a prompt; one that is too long ends at once, with its error.

        Raises:
            InvalidInput: The prompt is empty, or its adapter is not loaded.
        """
        if not prompt.messages or max_new_tokens < 1:
            raise InvalidInput("an empty prompt, or no room for a reply", field="prompt")
        if prompt.adapter and prompt.adapter not in self._adapters:
            raise InvalidInput(f"the adapter {prompt.adapter} is not loaded", field="adapter")
        self._revive()
        if not self._underway:
            self._heard_at = time.monotonic()
        self._tell(
            {
                "start": request_id,
                "messages": [[message.role, message.content] for message in prompt.messages],
                "adapter": prompt.adapter,
                "new_tokens": max_new_tokens,
                "told": told is not None,
            }
        )
        self._underway[request_id] = told

    def ready_adapter(self, folder: Path) -> Path:
        """Return the file with an adapter merged into it, making it if need be.

        Raises:
            ConfigurationError: The folder holds none, or one of another model; or this model is a
                file that takes no adapter.
        """
        if self._merged is None:
            raise ConfigurationError(
                f"the reply model {self.name} is a file that takes no adapter; set "
                "DESKHAND_REPLY_MODEL to the model on which the adapter was trained"
            )
        return self._merged(folder)

    def add_adapter(self, name: str, place: Path) -> None:
        """Let the host load another model beside the first; it steps on afterwards.

        Raises:
            ConfigurationError: The file cannot be loaded.
            RuntimeError: The host died or is stuck.
        """
        self._revive()
        self._tell({"add": name, "place": str(place)})
        self._await_added(name)
        self._adapters[name] = place

    def _await_added(self, name: str) -> None:
        """Wait until the host says so; what it says of others meanwhile is kept for `step`."""
        before: list[dict[str, Any]] = []
        try:
            while True:
                said = self._said.get(timeout=SILENT_SECONDS)
                if said is None:
                    raise self._lost("ended")
                if said.get("added") == name:
                    break
                before.append(said)
        except queue.Empty:
            self._host.kill()
            raise self._lost("is stuck") from None
        for one in before:
            self._kept.append(one)
        self._heard_at = time.monotonic()
        if "error" in said:
            raise ConfigurationError(said["error"])

    def drop_adapter(self, name: str) -> None:
        """Let the host forget an adapter."""
        if self._adapters.pop(name, None) is not None:
            with suppress(RuntimeError):
                self._tell({"forget": name})

    def _revive(self) -> None:
        """Start the host again if it died, with the adapters that it had."""
        if self._host.poll() is None:
            return
        self._end(self._host)
        self._host = self._start_host()
        for name, place in self._adapters.items():
            self._tell({"add": name, "place": str(place)})
            self._await_added(name)

    def step(self) -> Mapping[int, Generated]:
        """Return what has ended, waiting some milliseconds for it.

        Raises:
            RuntimeError: The host died or is stuck; what was under way is lost.
        """
        ended: dict[int, Generated] = {}
        while self._kept:
            self._hear(self._kept.popleft(), ended)
        with suppress(queue.Empty):
            self._hear(self._said.get(timeout=POLL_SECONDS), ended)
            while True:
                self._hear(self._said.get_nowait(), ended)
        if self._underway and time.monotonic() - self._heard_at > SILENT_SECONDS:
            self._host.kill()
            raise self._lost("is stuck")
        return ended

    def _hear(self, said: dict[str, Any] | None, ended: dict[int, Generated]) -> None:
        if said is None:
            raise self._lost("ended")
        self._heard_at = time.monotonic()
        told = self._underway.get(said.get("so_far", 0))
        if told is not None:
            told(said["text"])
        request_id = said.get("done")
        if request_id in self._underway:
            del self._underway[request_id]
            ended[request_id] = Generated(
                said["text"],
                Finish(said["finish"]),
                said["prompt_tokens"],
                said["new_tokens"],
                said["error"],
            )

    def _lost(self, how: str) -> RuntimeError:
        self._underway.clear()
        self._end(self._host)  # closed pipes come before the end: the next start must see it gone
        return RuntimeError(f"the reply model's process {how}")

    def drop(self, request_id: int) -> None:
        """Stop a generation that nobody waits for any more."""
        if request_id in self._underway:
            del self._underway[request_id]
            with suppress(RuntimeError):
                self._tell({"drop": request_id})

    @property
    def pid(self) -> int:
        """The host's process, for measurements."""
        return self._host.pid

    @property
    def running(self) -> int:
        """How many were started and have not ended."""
        return len(self._underway)

    def close(self) -> None:
        """End the host."""
        self._underway.clear()
        self._end(self._host)

    def _tell(self, message: Mapping[str, Any]) -> None:
        assert self._host.stdin is not None
        try:
            self._host.stdin.write(json.dumps(message) + "\n")
            self._host.stdin.flush()
        except OSError as error:
            raise self._lost("ended") from error

    def _end(self, host: subprocess.Popen[str]) -> None:
        assert host.stdin is not None
        with suppress(OSError):
            host.stdin.close()  # the host ends when nobody can tell it anything any more
        try:
            host.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()


def _listen(host: subprocess.Popen[str], said: queue.Queue[dict[str, Any] | None]) -> None:
    assert host.stdout is not None
    with host.stdout:
        for line in host.stdout:
            said.put(json.loads(line))
    said.put(None)
