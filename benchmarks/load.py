"""Customers: send messages at a steady rate, or wait for each reply before the next."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from uuid import uuid4

import aiohttp


class Customers:
    """Talks to a gateway over its HTTP API.

    Args:
        url: Of the gateway.
        token: Of the API.
    """

    def __init__(self, url: str, token: str) -> None:
        self._session = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(limit=200),
        )

    async def __aenter__(self) -> Customers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, conversation: str, text: str) -> float:
        """Send a message and return the seconds until it was acknowledged."""
        begun = time.perf_counter()
        async with self._session.post(
            "/v1/messages",
            json={
                "id": uuid4().hex,
                "conversation": conversation,
                "sender": {"id": conversation},
                "text": text,
            },
        ) as response:
            await response.read()
            if response.status != 202:
                raise RuntimeError(f"{response.status} for a message")
        return time.perf_counter() - begun

    async def steadily(self, rate: float, seconds: float, texts: Sequence[str]) -> list[float]:
        """Send messages of ever new conversations at a steady rate; return the acknowledge times.

        Messages leave when they are due, whether or not earlier ones were acknowledged, so that a
        slow gateway cannot slow its own load down.
        """
        begun = time.perf_counter()
        sending: list[asyncio.Task[float]] = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            name = f"load-{uuid4().hex}"
            sending.append(asyncio.create_task(self.send(name, texts[number % len(texts)])))
        return await asyncio.gather(*sending)

    async def ask(self, conversation: str, text: str) -> tuple[float, str]:
        """Send a message, follow the events, and return the seconds to the reply, and its text."""
        path = f"/v1/conversations/{conversation}/events"
        begun = time.perf_counter()
        await self.send(conversation, text)
        async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=120)) as events:
            async for author, said in _messages(events):
                if author == "bot":
                    return time.perf_counter() - begun, said
        raise RuntimeError("the events ended without a reply")

    async def metrics(self) -> str:
        """Return the page of metrics."""
        async with self._session.get("/metrics") as response:
            return await response.text()


async def _messages(events: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, str]]:
    name = ""
    async for raw in events.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:") and name in ("", "message"):
            message = json.loads(line.removeprefix("data:"))
            if "author" in message:
                yield message["author"], message["text"]
        elif not line:
            name = ""
