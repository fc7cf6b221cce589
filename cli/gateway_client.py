"""The running gateway as a command sees it: HTTP with the installation's API token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from core.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Unavailable
from core.settings import Settings

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104
"""Where a gateway is reached that listens on all addresses."""


@dataclass(frozen=True)
class Event:
    """One server-sent event; a message's name is empty."""

    name: str
    data: Mapping[str, Any]
    id: str = ""


class GatewayClient:
    """Calls /v1 of a running gateway; usable as a context manager.

    Args:
        settings: Of the installation: where the gateway listens, and the token.
        url: Another address of the gateway.
    """

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        if settings.api_token is None:
            raise ConfigurationError(
                f"There is no API token in {settings.data_dir / 'secrets'}; start `deskhand up` "
                "first, or set DESKHAND_API_TOKEN."
            )
        host = EVERYWHERE.get(settings.host, settings.host)
        self.url = (url or f"http://{host}:{settings.port}").rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {settings.api_token.get_secret_value()}"},
            timeout=httpx.Timeout(10.0, connect=3.0),
            trust_env=False,  # a proxy for the web does not know our gateway
        )

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a page.

        Raises:
            Unavailable: No gateway answers, or it lacks a part.
            InvalidInput: It refuses the request.
        """
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the answer's, as `get` does."""
        return self._call("POST", path, json=dict(body))

    def events(
        self, conversation: str, *, after: int = 0, quiet_seconds: float = 60.0
    ) -> Iterator[Event]:
        """Yield the events of a conversation until the gateway ends them.

        Args:
            conversation: Its id or name.
            after: The position after which its messages are wanted.
            quiet_seconds: Without even a heartbeat for so long, the gateway counts as gone.

        Raises:
            Unavailable: The gateway is gone.
        """
        timeout = httpx.Timeout(10.0, connect=3.0, read=quiet_seconds)
        path = f"/v1/conversations/{quote(conversation, safe='')}/events"
        try:
            with self._client.stream("GET", path, params={"after": after}, timeout=timeout) as got:
                if got.is_error:
                    got.read()
                    raise _error_of(got)
                yield from _parsed(got.iter_lines())
        except httpx.TransportError as error:
            raise self._away() from error

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._away() from error
        if response.is_error:
            raise _error_of(response)
        try:
            return response.json()
        except ValueError as error:
            raise Unavailable(f"What answers at {self.url} is no Deskhand gateway.") from error

    def _away(self) -> Unavailable:
        return Unavailable(f"No gateway answers at {self.url}; start it with `deskhand up`.")


def _error_of(response: httpx.Response) -> Exception:
    try:
        error = response.json()["error"]
        message, field = str(error["message"]), error.get("field")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, field = f"The gateway answers {response.status_code}.", None
    match response.status_code:
        case 401:
            return ConfigurationError(
                "The gateway refuses the API token; DESKHAND_API_TOKEN or DESKHAND_DATA_DIR must "
                "be the ones that it was started with."
            )
        case 404:
            return NotFound(message, field=field)
        case 409:
            return Conflict(message, field=field)
        case status if status >= 500:
            return Unavailable(message)
        case _:
            return InvalidInput(message, field=field)


def _parsed(lines: Iterator[str]) -> Iterator[Event]:
    name, data, position = "", list[str](), ""
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield Event(name, json.loads("\n".join(data)), position)
            name, data, position = "", [], ""
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            position = value
