"""How well the entry that answers is found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from answering.politeness import question_part
from answering.reading import Reading, best_reading
from core.types import Author, FaqEntry, Utterance
from retrieval.encoders.protocol import Encoder
from retrieval.index import Change, KnowledgeIndex, texts_of
from retrieval.rewriting import Context, candidates, must_lean, new_words, points_back

DEPTH = 10


@dataclass(frozen=True)
class Query:
    """A question with what was said before it, and the ids of the entries that answer it."""

    id: str
    text: str
    history: tuple[Utterance, ...]
    relevant: frozenset[str]


def build_index(entries: Sequence[FaqEntry], encoder: Encoder) -> KnowledgeIndex:
    """Return the index of entries."""
    index = KnowledgeIndex(encoder.dimensions)
    texts = [text for entry in entries for text in texts_of(entry)]
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
    )


def search(
    index: KnowledgeIndex, encoder: Encoder, query: Query, locale: str, limit: int = DEPTH
) -> list[str]:
    """Return the ids of what is found, best first; follow-ups are made stand-alone."""
    text = question_part(query.text) or query.text
    before = [u.text for u in query.history if u.author is Author.CUSTOMER]
    context = Context(
        before[-1] if before else "",
        index.mentioned([u.text for u in query.history]),
    )
    readings = candidates(text, context)
    vectors = encoder.encode_queries(readings)
    found = [
        Reading(reading, index.search(reading, vector, locale=locale, limit=limit), ())
        for reading, vector in zip(readings, vectors, strict=True)
    ]
    leaning = must_lean(text) or points_back(text, context)
    best = best_reading(found, must_lean=leaning, fresh=new_words(text, context))
    return [passage.entry.id for passage in best.passages]


def evaluate(
    entries: Sequence[FaqEntry],
    queries: Sequence[Query],
    encoder: Encoder,
    language_of: Callable[[str], str],
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Return recall@1, recall@5, mrr@5, ndcg@10 and milliseconds per query.

    Queries without a relevant entry are left out.
    """
    index = build_index(entries, encoder)
    asked = [query for query in queries if query.relevant]
    ranks: list[list[int]] = []
    begun = time.perf_counter()
    for number, query in enumerate(asked, start=1):
        ids = search(index, encoder, query, language_of(query.text))
        ranks.append([place for place, entry_id in enumerate(ids) if entry_id in query.relevant])
        tell(number)
    seconds = time.perf_counter() - begun
    sizes = [len(query.relevant) for query in asked]
    count = max(len(asked), 1)
    return {
        "recall@1": sum(recall(r, n, 1) for r, n in zip(ranks, sizes, strict=True)) / count,
        "recall@5": sum(recall(r, n, 5) for r, n in zip(ranks, sizes, strict=True)) / count,
        "mrr@5": sum(1 / (r[0] + 1) for r in ranks if r and r[0] < 5) / count,
        "ndcg@10": sum(ndcg(r, n, 10) for r, n in zip(ranks, sizes, strict=True)) / count,
        "ms per query": 1000 * seconds / count,
        "n": len(asked),
    }


def recall(ranks: Sequence[int], relevant: int, depth: int) -> float:
    """Return the share of the relevant that are among the first; of what can be there."""
    return sum(rank < depth for rank in ranks) / min(relevant, depth)


def ndcg(ranks: Sequence[int], relevant: int, depth: int) -> float:
    """Return the normalised discounted cumulative gain of binary relevance."""
    ideal = sum(1 / math.log2(place + 2) for place in range(min(relevant, depth)))
    return sum(1 / math.log2(rank + 2) for rank in ranks if rank < depth) / ideal
