"""Tasks of the answering worker: turns, and questions to the models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core import turns
from core.db import requests
from core.db.connect import Database
from core.errors import DeskhandError, InvalidInput
from core.types import ConversationId, KnowledgeBaseId, Passage
from workers.app import ANSWER_QUERY, ANSWER_TURN, task
from workers.process import Loop

log = logging.getLogger(__name__)


class Searcher(Protocol):
    """Finds passages in a knowledge base."""

    async def search(self, base_id: KnowledgeBaseId, text: str, limit: int) -> list[Passage]:
        """Return the best passages, best first."""
        ...


@dataclass(frozen=True)
class AnsweringProcess:
    """What the tasks of this process work with."""

    loop: Loop
    answering: turns.Answering
    searcher: Searcher


_process: list[AnsweringProcess] = []


def serve(process: AnsweringProcess) -> None:
    """Let the tasks of this process work with these services."""
    _process[:] = [process]


@task(ANSWER_TURN)
def answer(conversation_id: str) -> None:
    """Answer what is open in a conversation; a doorbell rung twice finds nothing to do."""
    (process,) = _process
    _run(process, turns.answer(process.answering, ConversationId(UUID(conversation_id))))


@task(ANSWER_QUERY)
def answer_query(request_id: str) -> None:
    """Answer a question to the models, if its caller still waits."""
    (process,) = _process
    _run(process, _answer_query(process, UUID(request_id)))


def _run(process: AnsweringProcess, work: Any) -> None:
    try:
        process.loop.run(work)
    except DeskhandError as error:  # the database is away: the sweeper rings again
        log.warning("Task put off", extra={"action": "task_put_off", "reason": str(error)})


async def _answer_query(process: AnsweringProcess, request_id: UUID) -> None:
    database = process.answering.database
    async with database.transaction() as conn:
        claimed = await requests.claim(conn, request_id)
    if claimed is None:
        return
    kind, payload = claimed
    try:
        answered = await _answers(process, kind, payload)
    except InvalidInput as error:
        await _reply(database, request_id, None, str(error))
    except Exception:
        log.exception("Query failed", extra={"action": "query_failed", "kind": kind})
        await _reply(database, request_id, None, "The worker could not answer; see its log.")
    else:
        await _reply(database, request_id, answered, None)


async def _answers(
    process: AnsweringProcess, kind: str, payload: Mapping[str, Any]
) -> Mapping[str, Any]:
    if kind == "search":
        found = await process.searcher.search(
            KnowledgeBaseId(payload["base_id"]), payload["text"], payload["limit"]
        )
        return {
            "passages": [
                {
                    "entry_id": passage.entry.id,
                    "question": passage.entry.question,
                    "answer": passage.entry.answer,
                    "locale": passage.entry.locale,
                    "score": round(passage.score, 4),
                    "confidence": round(passage.confidence, 4),
                }
                for passage in found
            ]
        }
    raise InvalidInput(f"This worker does not know requests of the kind {kind!r}.")


async def _reply(
    database: Database, request_id: UUID, answer: Mapping[str, Any] | None, error: str | None
) -> None:
    async with database.transaction() as conn:
        await requests.answer(conn, request_id, answer, error)
