"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, TGI, Ollama, hosted ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from answering.generators.breaker import Breaker
from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from core.errors import ConfigurationError, DeskhandError, PermanentError, TransientError

REQUESTS_AT_ONCE = 16
"""The server does the batching; this bounds what one worker asks of it."""
TIMEOUT_SECONDS = 25.0
"""Below the default reply deadline, so that a turn can still fall back to the approved answer."""
CONNECT_SECONDS = 3.0

Told = Callable[[str], None]


class OpenAiGenerator:
    """A model behind `/chat/completions`; the server batches, we stream side by side.

    An adapter is a model's name on that server, as vLLM serves its LoRA modules.
    """

    def __init__(
        self, base_url: str, model: str, key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS, breaker: Breaker | None = None,
    ) -> None:  # fmt: skip
        """Prepare the connections; the server is not asked yet, since it may start after us.

        Args:
            base_url: Such as `http://host:8000/v1`.
            model: The model's name on that server.
            key: Sent as a bearer token.
            timeout_seconds: Of one reply, and the longest silence in it.
            breaker: Spares a server that is down, and us the waiting.
        """
        self.name = f"{model} at {httpx.URL(base_url).host}"
        self._url = base_url.rstrip("/") + "/"
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._seconds = timeout_seconds
        self._breaker = breaker or Breaker()
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def trouble(self) -> str | None:
        """Why the server is not asked now, None while it is."""
        reason = self._breaker.trouble
        return f"{self.name}: {reason}" if reason else None

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone. Blocks.

        Raises:
            TransientError: The server cannot be reached, is overloaded or broken.
            ConfigurationError: The key or the model's name is refused.
        """

        async def all_of_them() -> list[Generated]:
            async with self._connected() as client:
                return await asyncio.gather(
                    *(self._guarded(client, prompt, max_new_tokens, None) for prompt in prompts)
                )

        with ThreadPoolExecutor(1, thread_name_prefix="openai") as beside:  # a loop of its own
            return beside.submit(asyncio.run, all_of_them()).result()

    async def reply(
        self, prompt: Prompt, max_new_tokens: int, told: Told | None = None
    ) -> Generated:
        """Return what the server writes; `told` hears the text so far as it comes.

        Raises:
            TransientError: The server cannot be reached, is overloaded, broken or too slow.
            ConfigurationError: The key, the model or the adapter is refused.
        """
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to a loop
            self._client, self._loop = self._connected(), loop
        return await self._guarded(self._client, prompt, max_new_tokens, told)

    def close(self) -> None:
        """Close the connections."""
        client, loop, self._client = self._client, self._loop, None
        if client is not None and loop is not None and loop.is_running():
            with suppress(RuntimeError):  # the loop ended meanwhile, and its connections with it
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)

    def ready_adapter(self, folder: Path) -> Path:
        """Return the folder as it is: the server has adapters of its own."""
        return folder

    def add_adapter(self, name: str, place: Path) -> None:
        """Check that the server knows an adapter by this name. Blocks.

        Raises:
            ConfigurationError: It does not.
            TransientError: It cannot be asked now.
        """
        try:
            response = httpx.get(self._url + "models", headers=self._headers, timeout=10.0)
            _check(response, self._model)
            known = {str(model["id"]) for model in response.json()["data"]}
        except httpx.TransportError as error:
            raise TransientError(f"the reply model's server gave no answer: {error!r}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TransientError("the reply model's server lists no models") from error
        if name not in known:
            raise ConfigurationError(
                f"the reply model's server knows no adapter {name}: load it there under this name "
                "(vLLM: --lora-modules)"
            )

    def drop_adapter(self, name: str) -> None:
        """Do nothing: the server keeps its adapters."""

    def _connected(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            # Waiting for a free connection is no fault of the server: the deadline ends it.
            timeout=httpx.Timeout(self._seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=REQUESTS_AT_ONCE),
            follow_redirects=False,  # a redirect would carry the key to another host
        )

    async def _guarded(
        self, client: httpx.AsyncClient, prompt: Prompt, new_tokens: int, told: Told | None
    ) -> Generated:
        if not prompt.messages or new_tokens < 1:
            return Generated("", Finish.ERROR, error="an empty prompt, or no room for a reply")
        with self._breaker.asking() as asked:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._ask(client, prompt, new_tokens, told)
            except TimeoutError as error:
                asked.failed()
                raise TransientError("the reply model's server was too slow") from error
            except httpx.TransportError as error:
                asked.failed()
                raise TransientError(
                    f"the reply model's server gave no answer: {error!r}"
                ) from error
            except TransientError as error:
                asked.failed(error.retry_after, str(error))
                raise
            except ConfigurationError as error:
                if not prompt.adapter:  # an adapter that is unknown is no trouble of others
                    asked.failed(reason=str(error))
                raise
            except PermanentError as error:  # this prompt is refused, others may pass
                return Generated("", Finish.ERROR, error=str(error))

    async def _ask(
        self, client: httpx.AsyncClient, prompt: Prompt, new_tokens: int, told: Told | None
    ) -> Generated:
        model = prompt.adapter or self._model
        body = {
            "model": model,
            "messages": [{"role": said.role, "content": said.content} for said in prompt.messages],
            "max_tokens": new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with client.stream("POST", "chat/completions", json=body) as response:
            _check(response, model)
            if "text/event-stream" not in response.headers.get("content-type", ""):
                await response.aread()  # a server that does not stream answers as a whole
                return _parse(response)
            return await _read_stream(response.aiter_lines(), told)


async def _read_stream(lines: AsyncIterator[str], told: Told | None) -> Generated:
    """Return the reply of a stream of server-sent events.

    Raises:
        TransientError: It was cut, or says that something went wrong.
    """
    text, finish, tokens = "", "", (0, 0)
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        try:
            event: dict[str, Any] = json.loads(data)
            if "error" in event:
                raise TransientError(f"the reply model's server broke off: {event['error']}"[:200])
            if usage := event.get("usage"):
                tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            for choice in event.get("choices", ())[:1]:
                piece = choice.get("delta", {}).get("content") or ""
                finish = choice.get("finish_reason") or finish
                text += piece
                if piece and told is not None:
                    told(text.strip())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TransientError("the reply model's server sent no chat completion") from error
    if not finish:
        raise TransientError("the reply model's server cut the reply off")
    return Generated(text.strip(), Finish.LENGTH if finish == "length" else Finish.STOP, *tokens)


def _check(response: httpx.Response, model: str) -> None:
    """Raise what a status means to us.

    Raises:
        TransientError: 408, 429 or 5xx.
        ConfigurationError: 401, 403 or 404.
        PermanentError: Any other refusal, of this prompt.
    """
    status = response.status_code
    if status == 200:
        return
    failure: DeskhandError = PermanentError(f"the reply model's server refused it: {status}")
    if status in {408, 425, 429} or status >= 500:
        failure = TransientError(
            f"the reply model's server answered {status}", retry_after=_retry_after(response)
        )
    elif status in {401, 403}:
        failure = ConfigurationError(
            f"the reply model's server refused the key ({status}): check DESKHAND_REPLY_MODEL_KEY"
        )
    elif status == 404 or 300 <= status < 400:
        failure = ConfigurationError(
            f"the reply model's server does not know {model} there ({status}): check "
            "DESKHAND_REPLY_MODEL and DESKHAND_REPLY_MODEL_URL"
        )
    raise failure


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None


def _parse(response: httpx.Response) -> Generated:
    try:
        body: dict[str, Any] = response.json()
        choice = body["choices"][0]
        text = str(choice["message"]["content"] or "").strip()
        usage: dict[str, Any] = body.get("usage") or {}
        tokens = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TransientError("the reply model's server sent no chat completion") from error
    full = choice.get("finish_reason") == "length"
    return Generated(text, Finish.LENGTH if full else Finish.STOP, *tokens)
