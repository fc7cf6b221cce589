"""A promoted model answers within seconds, in a real worker, and no message is lost meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from answering.intents import IntentClassifier
from core import model_store
from core.db.connect import Database
from core.model_store import ModelKind
from core.risk import Certificate, Thresholds
from retrieval.encoders import adapter
from tests.conftest import fresh_database
from tests.end_to_end.stack import Stack, running
from tests.services import Valkey

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

QUESTION = "How long do I have to send something back?"
SWITCH_SECONDS = 5.0
ASK_EVERY_SECONDS = 3.0


@dataclass
class Shop:
    """The product with its registry, and a customer who keeps asking."""

    stack: Stack
    database: Database
    folder: Path
    asked: list[str] = field(default_factory=list)

    async def trace(self, conversation: str) -> Mapping[str, Any]:
        """Return the trace of the reply in a conversation."""
        return await self.stack.value(
            """select r.trace from reply r join turn t on t.id = r.turn_id
                 join conversation c on c.id = t.conversation_id where c.key = %(key)s
                order by r.created_at desc limit 1""",
            key=conversation,
        )

    async def models(self) -> Mapping[str, str]:
        """Ask a question and return the models that answered."""
        name = f"switch-{len(self.asked)}"
        self.asked.append(name)
        await self.stack.say(name, QUESTION)
        await self.stack.settled()
        return (await self.trace(name))["models"]

    async def register(self, name: str, kind: ModelKind, **settings: object) -> None:
        await model_store.register(
            self.database, self.folder / name, kind, name=name, data_sha256="unknown",
            settings=settings, metrics={},
        )  # fmt: skip

    async def promoted(
        self, name: str, holds: Callable[[Mapping[str, str]], bool], seconds: float
    ) -> float:
        """Promote a version; return after how many seconds it answered."""
        begun = time.monotonic()
        await model_store.promote(self.database, name, why="a test")
        return await self.until(holds, begun, seconds)

    async def until(
        self, holds: Callable[[Mapping[str, str]], bool], begun: float, seconds: float
    ) -> float:
        while not holds(models := await self.models()):
            waited = time.monotonic() - begun
            assert waited < seconds, f"{models} after {waited:.1f} s\n{self.stack.log()}"
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def shop_database(server_url: str, shop_template_url: str) -> Iterator[str]:
    with fresh_database(server_url, shop_template_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    shop_database: str, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    data = tmp_path_factory.mktemp("data")
    (data / "models").mkdir()
    for prepared in models_dir.iterdir():  # its own folder of versions
        if prepared.name != "versions":
            (data / "models" / prepared.name).symlink_to(prepared)
    broker = Valkey()
    broker.start()
    try:
        async with Database(shop_database) as database:
            stack = Stack(data, shop_database, broker.url, {"DESKHAND_REPLY_STYLE": "verbatim"})
            async with running(stack):
                yield Shop(stack, database, tmp_path_factory.mktemp("trained"))
    finally:
        broker.stop()


async def test_thresholds_switch_while_customers_ask_and_every_message_gets_one_reply(shop: Shop):
    folder = shop.folder / "never"
    folder.mkdir()
    never = Thresholds(0.05, 0.1, 2.0, Certificate(None, 0))
    (folder / "thresholds.json").write_text(json.dumps(never.to_json()), encoding="utf-8")
    await shop.register("never", ModelKind.CALIBRATION)
    asking = [f"crowd-{i}" for i in range(24)]

    async def crowd() -> None:
        for name in asking:
            await shop.stack.say(name, QUESTION)

    said, taken = await asyncio.gather(
        crowd(),
        shop.promoted("never", lambda m: m.get("calibration") == "never", 2 * SWITCH_SECONDS),
    )
    await shop.stack.settled()
    replies = [await shop.stack.replies(name) for name in asking]

    assert said is None
    assert [len(reply) for reply in replies] == [1] * len(asking)
    (after,) = await shop.stack.replies(shop.asked[-1])
    assert after["decision"] != "answer"  # nobody is that sure
    print(f"thresholds switched after {taken:.2f} s, the question's own time included")

    begun = time.monotonic()
    await model_store.rollback(shop.database, ModelKind.CALIBRATION, why="too timid")
    await shop.until(lambda m: "calibration" not in m, begun, SWITCH_SECONDS)
    (back,) = await shop.stack.replies(shop.asked[-1])
    assert back["decision"] == "answer"


async def test_an_intent_head_is_named_in_the_trace_of_what_it_told(shop: Shop):
    folder = shop.folder / "head"
    folder.mkdir()
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    head = IntentClassifier.fit(vectors, ["refund", "delivery"] * 20)
    state: dict[str, Any] = dict(head.state())
    np.savez(folder / "intents.npz", **state)
    await shop.register("head", ModelKind.INTENTS)

    await shop.promoted("head", lambda m: m.get("intents") == "head", SWITCH_SECONDS)

    told = {intent["name"] for intent in (await shop.trace(shop.asked[-1]))["intents"]}
    assert told & {"refund", "delivery", "out_of_scope"}
    await model_store.rollback(shop.database, ModelKind.INTENTS, why="random")


async def test_another_encoder_answers_once_all_is_encoded_and_a_rollback_is_instant(shop: Shop):
    rng = np.random.default_rng(2)
    layer = "encoder.layer.11.attention.self.query"
    factors = {
        f"{layer}.lora_A.weight": rng.normal(scale=0.02, size=(1, 384)).astype(np.float16),
        f"{layer}.lora_B.weight": rng.normal(scale=0.02, size=(384, 1)).astype(np.float16),
    }
    shipped = (await shop.models())["encoder"]
    adapter.write(adapter.Adapter(factors, 1, 1, shipped), shop.folder / "tuned")
    await shop.register("tuned", ModelKind.ENCODER)

    begun = time.monotonic()
    await model_store.promote(shop.database, "tuned", why="a test")
    answered: list[str] = []

    async def is_switched() -> bool:
        answered.append((await shop.models())["encoder"])
        await asyncio.sleep(ASK_EVERY_SECONDS)  # customers ask now and then, the rest is for it
        return answered[-1] != shipped

    await shop.stack.until(is_switched, "switched", 450.0)

    print(f"the encoder switched after {time.monotonic() - begun:.1f} s; {len(answered)} asked")
    assert answered[0] == shipped  # the old one answered meanwhile
    models = await shop.models()
    assert models["encoder"] != shipped
    count = "select count(*) from embedding where encoder = %(name)s"
    assert await shop.stack.value(count, name=models["encoder"]) > 100
    begun = time.monotonic()
    await model_store.rollback(shop.database, ModelKind.ENCODER, why="a test")
    await shop.until(lambda m: m["encoder"] == shipped, begun, SWITCH_SECONDS)
