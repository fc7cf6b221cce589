"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, TGI, Ollama, hosted ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from core.errors import ConfigurationError, DeskhandError, PermanentError, TransientError

REQUESTS_AT_ONCE = 16
"""The server does the batching; this bounds what one worker asks of it."""
TIMEOUT_SECONDS = 25.0
"""Below the default reply deadline, so that a turn can still fall back to the approved answer."""


class OpenAiGenerator:
    """A model behind `/chat/completions`; the server batches, we send side by side."""

    def __init__(
        self, base_url: str, model: str, key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:  # fmt: skip
        """Prepare the connections; the server is not asked yet, since it may start after us.

        Args:
            base_url: Such as `http://host:8000/v1`.
            model: The model's name on that server.
            key: Sent as a bearer token.
            timeout_seconds: Of one reply.
        """
        self.name = f"{model} at {httpx.URL(base_url).host}"
        self._model = model
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=3.0),
            limits=httpx.Limits(max_connections=REQUESTS_AT_ONCE),
            follow_redirects=False,  # a redirect would carry the key to another host
        )
        self._pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="openai")

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone.

        Raises:
            TransientError: The server cannot be reached, is overloaded or broken.
            ConfigurationError: The key or the model's name is refused.
        """
        futures = [self._pool.submit(self._one, prompt, max_new_tokens) for prompt in prompts]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _one(self, prompt: Prompt, max_new_tokens: int) -> Generated:
        if not prompt.messages or max_new_tokens < 1:
            return Generated("", Finish.ERROR, error="an empty prompt, or no room for a reply")
        body = {
            "model": self._model,
            "messages": [{"role": said.role, "content": said.content} for said in prompt.messages],
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": False,
        }
        try:
            response = self._client.post("chat/completions", json=body)
        except httpx.TransportError as error:
            raise TransientError(f"the reply model's server gave no answer: {error!r}") from error
        try:
            _check(response, self._model)
        except PermanentError as error:  # this prompt is refused, others may pass
            return Generated("", Finish.ERROR, error=str(error))
        return _parse(response)


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
