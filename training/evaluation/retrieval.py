"""How well the entry that answers is found."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from answering.understanding import Message, read, understand
from core.types import (
    Author,
    FaqEntry,
    KnowledgeBase,
    KnowledgeBaseId,
    Passage,
    Question,
    Utterance,
)
from retrieval.dense import Vector
from retrieval.encoders.protocol import Encoder
from retrieval.index import Change, KnowledgeIndex, texts_of
from training.dialogues import Noises, dialogues

DEPTH = 10


@dataclass(frozen=True)
class Query:
    """A question with what was said before it, and the ids of the entries that answer it."""

    id: str
    text: str
    history: tuple[Utterance, ...]
    relevant: frozenset[str]
    kind: str = ""


def build_index(entries: Sequence[FaqEntry], encoder: Encoder) -> KnowledgeIndex:
    """Return the index of entries."""
    index = KnowledgeIndex(encoder.dimensions)
    texts = list(dict.fromkeys(text for entry in entries for text in texts_of(entry)))
    vectors = dict(zip(texts, encoder.encode_passages(texts), strict=True))
    index.apply([Change(e, np.stack([vectors[t] for t in texts_of(e)])) for e in entries])
    return index


def query_of(row: Mapping[str, Any], number: int) -> Query:
    """Return the query of a line of a file."""
    turns = row.get("turns") or [{"speaker": "U", "text": row["text"]}]
    said = [
        Utterance(Author.CUSTOMER if t["speaker"] == "U" else Author.BOT, str(t["text"]))
        for t in turns
    ]
    return Query(
        str(row.get("id", number)),
        said[-1].text,
        tuple(said[:-1]),
        frozenset(map(str, row.get("relevant") or ())),
        str(row.get("kind", "")),
    )


def made_queries(
    entries: Sequence[FaqEntry], count: int, noise: Noises, seed: int = 29
) -> list[Query]:
    """Return the questions of conversations made by rule about entries (`training.dialogues`)."""
    made = dialogues(entries, count, random.Random(seed), noise)
    return [query_of(row, number) for number, row in enumerate(made, start=1)]


def search(
    index: KnowledgeIndex, encoder: Encoder, query: Query, locale: str, limit: int = DEPTH
) -> list[str]:
    """Return the ids of what is found, best first, as answering finds it.

    What was said before is followed: who is talked about, and what a follow-up leans on.
    """
    message = read(_question(query, locale), index, ())
    vectors = list(encoder.encode_queries(message.texts))
    return _found(index, query, message, vectors, locale, limit)


def _found(
    index: KnowledgeIndex,
    query: Query,
    message: Message,
    vectors: Sequence[Vector],
    locale: str,
    limit: int,
) -> list[str]:
    def find(text: str, vector: Vector, off_topic: float, *more: Any) -> list[Passage]:
        about, *gist = more
        return index.search(
            text, vector, locale=locale, limit=limit, about=about, gist=gist[0] if gist else None
        )

    understood = understand(
        message, vectors, _question(query, locale), predict=lambda vector, text: (), search=find
    )
    return [passage.entry.id for passage in understood.reading.passages]


def _question(query: Query, locale: str) -> Question:
    base = KnowledgeBase(KnowledgeBaseId(0), "evaluated", locale)
    return Question(base, (query.text,), history=query.history, locale=locale)


def evaluate(
    entries: Sequence[FaqEntry],
    queries: Sequence[Query],
    encoder: Encoder,
    language_of: Callable[[str], str],
    tell: Callable[[int], None] = lambda done: None,
    index: KnowledgeIndex | None = None,
    keep: Callable[[Query, Sequence[str], float], None] = lambda query, found, seconds: None,
) -> dict[str, float]:
    """Return recall@1, recall@5, mrr@5, ndcg@10, and milliseconds a query, encoding in and out.

    Queries without a relevant entry are left out. Where queries are of several kinds, the first
    three figures also stand for each of them (`recall@1 now`).

    Args:
        entries: The base.
        queries: What is asked of it.
        encoder: Encodes both.
        language_of: The language of a text.
        tell: Is told how many queries are done.
        index: The index of the entries, where it is built already.
        keep: Is given each query with the ids found, best first, and the seconds it took.
    """
    index = index or build_index(entries, encoder)
    asked = [query for query in queries if query.relevant]
    ranks: list[list[int]] = []
    seconds: list[float] = []
    begun = time.perf_counter()
    for number, query in enumerate(asked, start=1):
        locale = language_of(query.text)
        started = time.perf_counter()
        message = read(_question(query, locale), index, ())
        before = time.perf_counter()
        vectors = list(encoder.encode_queries(message.texts))
        encoded = time.perf_counter()
        ids = _found(index, query, message, vectors, locale, DEPTH)
        seconds.append(time.perf_counter() - encoded + before - started)
        ranks.append([place for place, entry_id in enumerate(ids) if entry_id in query.relevant])
        keep(query, ids, time.perf_counter() - started)
        tell(number)
    whole = time.perf_counter() - begun
    sizes = [len(query.relevant) for query in asked]
    figures = _figures(ranks, sizes)
    figures["ndcg@10"] = _mean([ndcg(r, n, 10) for r, n in zip(ranks, sizes, strict=True)])
    figures["ms per query"] = 1000 * whole / max(len(asked), 1)
    figures["ms after encoding, p50"] = 1000 * float(np.median(seconds)) if seconds else 0.0
    figures["n"] = len(asked)
    kinds = sorted({query.kind for query in asked if query.kind})
    for kind in kinds if len(kinds) > 1 else ():
        places = [i for i, query in enumerate(asked) if query.kind == kind]
        own = _figures([ranks[i] for i in places], [sizes[i] for i in places])
        figures |= {f"{name} {kind}": value for name, value in own.items()}
        figures[f"n {kind}"] = len(places)
    return figures


def _figures(ranks: Sequence[Sequence[int]], sizes: Sequence[int]) -> dict[str, float]:
    return {
        "recall@1": _mean([recall(r, n, 1) for r, n in zip(ranks, sizes, strict=True)]),
        "recall@5": _mean([recall(r, n, 5) for r, n in zip(ranks, sizes, strict=True)]),
        "mrr@5": _mean([1 / (r[0] + 1) if r and r[0] < 5 else 0.0 for r in ranks]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def recall(ranks: Sequence[int], relevant: int, depth: int) -> float:
    """Return the share of the relevant that are among the first; of what can be there."""
    return sum(rank < depth for rank in ranks) / min(relevant, depth)


def ndcg(ranks: Sequence[int], relevant: int, depth: int) -> float:
    """Return the normalised discounted cumulative gain of binary relevance."""
    ideal = sum(1 / math.log2(place + 2) for place in range(min(relevant, depth)))
    return sum(1 / math.log2(rank + 2) for rank in ranks if rank < depth) / ideal
