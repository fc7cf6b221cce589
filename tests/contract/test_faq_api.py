"""/v1/faq and the staff's routes as programs see them: over real HTTP, on a real database."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from cli.formats import FORMATS
from cli.serving.tokens import bearer
from core.conversations import Desk
from core.db.connect import Database
from core.errors import Unavailable
from desk import conversations_api, faq_api
from tests.storage.served import AUTHORIZED, TOKEN, Stand, stand
from tests.storage.spine import Rings

REFUND = {"question": "How do refunds work?", "answer": "Within **5 days**."}


class Worker:
    """Answers searches as a worker does, or is away."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.away = False

    async def ask(self, kind: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((kind, payload))
        if self.away:
            raise Unavailable("No worker answered in time.", retry_after=2.0)
        passage = {
            "entry_id": "refunds",
            **REFUND,
            "locale": "en",
            "score": 0.9,
            "confidence": 0.8,
        }
        return {"passages": [passage]}


@dataclass
class Api:
    """A client with the token, and what stands behind the server."""

    http: httpx.AsyncClient
    worker: Worker
    stand: Stand

    async def create(self, **values: object) -> dict[str, Any]:
        response = await self.http.post("/v1/faq", json={**REFUND, **values})
        assert response.status_code == 201, response.text
        return response.json()

    async def converse(self, name: str) -> str:
        response = await self.http.post(
            "/v1/messages",
            json={
                "id": uuid4().hex,
                "conversation": name,
                "sender": {"id": "c1", "name": "Cleo"},
                "text": "Where is my parcel?",
            },
        )
        assert response.status_code == 202, response.text
        await self.stand.doorbell.settled()
        return response.json()["conversation_id"]


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    worker = Worker()
    authorize = bearer(SecretStr(TOKEN))
    desk = Desk(database, Rings(), 3600.0)
    routers = [
        faq_api.routes(database, worker, FORMATS, authorize),
        conversations_api.routes(desk, 30.0, authorize),
    ]
    async with (
        stand(database, routers=routers) as running,
        running.client(headers=AUTHORIZED) as http,
    ):
        yield Api(http, worker, running)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return response.json()["error"]


GUARDED = [
    ("GET", "/v1/faq"),
    ("POST", "/v1/faq"),
    ("GET", "/v1/faq/search?q=x"),
    ("GET", "/v1/faq/export"),
    ("POST", "/v1/faq/import?format=csv"),
    ("DELETE", "/v1/faq/x"),
    ("GET", "/v1/conversations"),
    ("POST", "/v1/conversations/x/take"),
    ("GET", "/v1/turns/failed"),
    ("GET", "/v1/deliveries/troubled"),
    ("PUT", "/v1/texts"),
]


async def test_without_the_token_nothing_is_shown_or_changed(api: Api) -> None:
    headers = {"Authorization": "Bearer wrong"}

    for method, path in GUARDED:
        assert error_of(await api.http.request(method, path, headers=headers), 401)


async def test_an_entry_is_created_read_changed_archived_and_restored(api: Api) -> None:
    created = await api.create(alternates=["refund?"], tags=["money"])
    assert (created["id"], created["status"], created["version"]) == (
        "how-do-refunds-work",
        "draft",
        1,
    )
    address = f"/v1/faq/{created['id']}"
    assert (await api.http.get(address)).json() == created

    published = await api.http.patch(address, json={"status": "published", "version": 1})
    assert published.json() == {
        **created,
        "status": "published",
        "version": 2,
        "updated_at": published.json()["updated_at"],
    }
    stale = await api.http.patch(address, json={"answer": "Never.", "version": 1})
    assert error_of(stale, 409)["field"] == "version"

    assert (await api.http.delete(address)).json()["status"] == "archived"
    assert (await api.http.get("/v1/faq")).json() == {"entries": [], "total": 0}
    assert (await api.http.get("/v1/faq?status=archived")).json()["total"] == 1

    restored = await api.http.post(f"{address}/restore", json={"version": 2})
    assert restored.json()["status"] == "published"
    revisions = (await api.http.get(f"{address}/revisions")).json()["revisions"]
    assert [(each["version"], each["action"]) for each in revisions] == [
        (4, "restore"),
        (3, "archive"),
        (2, "edit"),
        (1, "create"),
    ]
    assert revisions[-1]["entry"]["alternates"] == ["refund?"]


async def test_an_entry_may_be_sent_back_as_it_was_read(api: Api) -> None:
    created = await api.create()

    response = await api.http.patch(f"/v1/faq/{created['id']}", json={**created, "tags": ["new"]})

    assert (response.status_code, response.json()["tags"]) == (200, ["new"])


async def test_the_same_entry_sent_twice_is_there_once(api: Api) -> None:
    first = await api.create(id="refunds")
    again = await api.create(id="refunds")
    other = await api.http.post("/v1/faq", json={**REFUND, "id": "refunds", "answer": "No."})

    assert again == first
    assert error_of(other, 409)["code"] == "conflict"


WRONG_ENTRIES: list[tuple[dict[str, object], str]] = [
    ({"question": "  ", "answer": "a"}, "question"),
    ({"question": "q"}, "answer"),
    ({**REFUND, "anwser": "x"}, "anwser"),
    ({**REFUND, "status": "live"}, "status"),
    ({**REFUND, "alternates": "not a list"}, "alternates"),
    ({**REFUND, "answer": "[x](javascript:y)"}, "answer"),
    ({**REFUND, "question": "a\x00b"}, "question"),
    ({**REFUND, "valid_until": "tomorrow"}, "valid_until"),
]


async def test_a_wrong_entry_is_refused_with_the_field_at_fault(api: Api) -> None:
    for sent, field in WRONG_ENTRIES:
        response = await api.http.post("/v1/faq", json=sent)
        assert error_of(response, 422)["field"] == field

    assert (await api.http.get("/v1/faq?status=all")).json()["total"] == 0


SENSELESS = [
    ("GET", "/v1/faq/nothing", 404),
    ("DELETE", "/v1/faq/nothing", 404),
    ("GET", "/v1/faq/nothing/revisions", 404),
    ("GET", "/v1/faq?base=nowhere", 404),
    ("GET", "/v1/faq/a%00b", 422),
    ("GET", "/v1/faq?text=%00", 422),
    ("GET", "/v1/faq?limit=0", 422),
    ("GET", "/v1/faq?offset=-1", 422),
    ("GET", "/v1/faq?offset=99999999999999", 422),
    ("GET", "/v1/faq?status=live", 422),
    ("GET", "/v1/faq/export?format=doc", 422),
    ("GET", "/v1/faq/search?q=%20", 422),
    ("GET", "/v1/faq/search", 422),
    ("POST", "/v1/faq/import", 422),
    ("GET", "/v1/conversations/nothing", 404),
    ("GET", "/v1/conversations/a%00b", 422),
    ("GET", "/v1/conversations?holder=nobody", 422),
    ("POST", f"/v1/turns/{uuid4()}/replay", 422),
    ("POST", f"/v1/deliveries/{uuid4()}/resend", 404),
    ("POST", "/v1/deliveries/x/resend", 422),
]


async def test_what_is_not_there_or_makes_no_sense_is_refused(api: Api) -> None:
    for method, path, status in SENSELESS:
        assert error_of(await api.http.request(method, path), status)["message"], path


async def test_pages_of_a_list_hold_every_entry_once(api: Api) -> None:
    ids = {(await api.create())["id"] for _ in range(5)}

    pages = [
        (await api.http.get("/v1/faq", params={"limit": 2, "offset": offset})).json()
        for offset in (0, 2, 4)
    ]

    assert {entry["id"] for page in pages for entry in page["entries"]} == ids
    assert {page["total"] for page in pages} == {5}


async def test_an_export_is_taken_back_by_the_import_without_loss(api: Api) -> None:
    await api.create(id="a", tags=["x|y"], valid_until="2025-12-31")
    await api.create(id="b", question="可以退货吗？", locale="zh", status="published")
    before = (await api.http.get("/v1/faq")).json()["entries"]
    unchanged = {"created": 0, "updated": 0, "unchanged": 2, "rejected": [], "rejected_total": 0}

    for ending in FORMATS:
        exported = await api.http.get("/v1/faq/export", params={"format": ending})
        assert f'filename="faq.{ending}"' in exported.headers["content-disposition"]
        raw = await api.http.post(
            "/v1/faq/import",
            content=exported.content,
            headers={"Content-Type": exported.headers["content-type"]},
        )
        form = await api.http.post(
            "/v1/faq/import", files={"file": (f"mine.{ending}", exported.content)}
        )
        assert (
            raw.json()
            == form.json()
            == {**unchanged, "ignored": [], "warned": [], "imported": True}
        )

    assert (await api.http.get("/v1/faq")).json()["entries"] == before


async def test_an_import_names_bad_rows_and_takes_the_rest_unless_it_is_strict(api: Api) -> None:
    table = b"question,answer,valid_from,valid_until\nA?,a,,\nB?,b,2025-02-01,2025-01-01\n"
    reason = "valid_until 2025-01-01 is before valid_from; swap them or clear one."

    strict = await api.http.post(
        "/v1/faq/import?strict=true", files={"file": ("faq.csv", io.BytesIO(table))}
    )
    assert error_of(strict, 422)["message"] == f"faq.csv line 3: {reason} Nothing was imported."
    assert strict.json()["report"]["imported"] is False
    assert (await api.http.get("/v1/faq")).json()["total"] == 0

    lenient = await api.http.post("/v1/faq/import?format=csv", content=table)
    assert lenient.json()["rejected"] == [{"line": 3, "reason": reason}]
    assert lenient.json()["created"] == 1
    assert (await api.http.get("/v1/faq")).json()["entries"][0]["status"] == "published"


async def test_a_file_that_cannot_be_read_changes_nothing(api: Api) -> None:
    response = await api.http.post(
        "/v1/faq/import?format=json", content=b'[{"question": "A?", "answer": "a"},\n{'
    )

    assert "line 2: not JSON" in error_of(response, 422)["message"]
    assert (await api.http.get("/v1/faq")).json()["total"] == 0


async def test_a_search_asks_a_worker_and_says_so_when_there_is_none(api: Api) -> None:
    found = await api.http.get("/v1/faq/search", params={"q": "refund?", "limit": 3})

    assert found.json()["passages"][0]["entry_id"] == "refunds"
    kind, payload = api.worker.asked[0]
    assert (kind, payload["text"], payload["limit"]) == ("search", "refund?", 3)

    api.worker.away = True
    away = await api.http.get("/v1/faq/search", params={"q": "refund?"})
    assert error_of(away, 503)["code"] == "unavailable"
    assert away.headers["retry-after"] == "2"


async def test_an_agent_takes_speaks_releases_and_resolves(api: Api) -> None:
    name = "order/17 a"
    conversation_id = await api.converse(name)
    address = "/v1/conversations/order%2F17%20a"

    unheld = await api.http.post(f"{address}/say", json={"agent": "ada", "text": "Hello"})
    assert error_of(unheld, 409)

    taken = await api.http.post(f"{address}/take", json={"agent": "ada"})
    assert (taken.json()["holder"], taken.json()["agent"]) == ("agent", "ada")
    assert taken.json()["id"] == taken.json()["conversation_id"] == conversation_id
    assert error_of(await api.http.post(f"{address}/take", json={"agent": "bob"}), 409)

    for _ in range(2):
        said = await api.http.post(
            f"/v1/conversations/{conversation_id}/say",
            json={"agent": "ada", "text": "I look into it.", "id": "s1"},
        )
        assert said.status_code == 200
    messages = (await api.http.get(f"{address}/messages")).json()["messages"]
    assert [each["text"] for each in messages if each["author"] == "agent"] == ["I look into it."]

    listed = (await api.http.get("/v1/conversations?holder=agent&channel=api")).json()
    assert [each["name"] for each in listed["conversations"]] == [name]
    assert (await api.http.get("/v1/conversations?holder=bot")).json() == {"conversations": []}

    released = await api.http.post(f"{address}/release", json={"agent": "ada"})
    assert released.json()["holder"] == "bot"
    resolved = await api.http.post(f"{address}/resolve", json={"agent": "ada"})
    assert resolved.json()["holder"] == "resolved"
    assert (await api.http.get(address)).json()["holder"] == "resolved"


async def test_who_acts_must_be_named(api: Api) -> None:
    await api.converse("c")

    for sent in ({}, {"agent": " "}, {"agent": "a\x00"}, {"agent": "a" * 201}):
        assert error_of(await api.http.post("/v1/conversations/c/take", json=sent), 422)


async def test_dead_letters_are_listed(api: Api) -> None:
    assert (await api.http.get("/v1/turns/failed")).json() == {"turns": []}
    assert (await api.http.get("/v1/deliveries/troubled")).json() == {"deliveries": []}


async def test_a_system_text_is_changed_and_brought_back(api: Api) -> None:
    changed = await api.http.put(
        "/v1/texts", json={"locale": "en", "key": "greeting", "text": "Ahoy!"}
    )
    assert changed.json()["texts"]["en"] == {"greeting": "Ahoy!"}
    assert changed.json()["shipped"]["en"]["greeting"] != "Ahoy!"

    back = await api.http.put("/v1/texts", json={"locale": "en", "key": "greeting", "text": None})
    assert "greeting" not in back.json()["texts"].get("en", {})

    wrong = await api.http.put("/v1/texts", json={"locale": "en", "key": "greting", "text": "x"})
    assert "is greeting meant?" in error_of(wrong, 422)["message"]


async def test_a_file_may_be_larger_than_a_message(api: Api) -> None:
    table = "question,answer,id\n" + "".join(f"Q{n}?,{'a' * 7_000},{n}\n" for n in range(200))

    response = await api.http.post("/v1/faq/import?format=csv", content=table, timeout=60)

    assert len(table) > 1_200_000
    assert response.json()["created"] == 200


async def test_questions_that_an_entry_does_not_answer_are_kept_and_given_back(api: Api) -> None:
    created = await api.create(not_for=["Can I refund a friend's order?"])

    read = (await api.http.get(f"/v1/faq/{created['id']}")).json()

    assert read["not_for"] == ["Can I refund a friend's order?"]
    revisions = (await api.http.get(f"/v1/faq/{created['id']}/revisions")).json()["revisions"]
    assert revisions[0]["entry"]["not_for"] == ["Can I refund a friend's order?"]


async def test_an_entry_cannot_both_ask_a_question_and_refuse_it(api: Api) -> None:
    response = await api.http.post("/v1/faq", json={**REFUND, "not_for": ["how do refunds work"]})

    assert response.status_code == 422
    assert response.json()["error"]["field"] == "not_for"
