"""Large bases: a graph finds what comparing everything finds, also behind filters and edits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.types import FaqEntry
from retrieval import lexical
from retrieval.dense import DenseIndex
from retrieval.lexical import LexicalIndex

SIZE = 3_000
WIDTH = 32
BEST = 24

Matrix = NDArray[np.float32]


def unit(vectors: Matrix) -> Matrix:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((60, WIDTH))
    moved = centres[rng.integers(60, size=SIZE)] + 0.6 * rng.standard_normal((SIZE, WIDTH))
    return unit(moved.astype(np.float32))


def index_of(vectors: Matrix, exact_up_to: int) -> DenseIndex:
    index = DenseIndex(WIDTH, exact_up_to)
    for number, vector in enumerate(vectors):
        index.put(str(number), np.stack([vector, unit(vector + 0.1)]))
    while index.catch_up():
        pass
    return index


@pytest.fixture(scope="module")
def exact(vectors: Matrix) -> DenseIndex:
    return index_of(vectors, SIZE)


@pytest.fixture(scope="module")
def graph(vectors: Matrix) -> DenseIndex:
    return index_of(vectors, SIZE // 2)


def shared(
    graph: DenseIndex, exact: DenseIndex, vectors: Matrix, allowed: NDArray[np.bool_] | None = None
) -> float:
    """Return the share of the exact best that the graph finds, over some queries."""
    both = 0
    queries = vectors[::60]
    for query in queries:
        found = {key for key, _ in graph.search(query, BEST, allowed)}
        both += len(found & {key for key, _ in exact.search(query, BEST, allowed)})
    return both / (BEST * len(queries))


def test_a_graph_finds_what_an_exact_search_finds(
    graph: DenseIndex, exact: DenseIndex, vectors: Matrix
):
    assert shared(graph, exact, vectors) >= 0.98


@pytest.mark.parametrize("every", [2, 10, 100])
def test_a_filter_does_not_make_the_graph_miss(
    graph: DenseIndex, exact: DenseIndex, vectors: Matrix, every: int
):
    allowed = exact.mask([str(number) for number in range(0, SIZE, every)])

    assert shared(graph, exact, vectors, allowed) >= 0.98


def test_scores_do_not_jump_where_the_graph_begins(vectors: Matrix):
    border = 500
    below, above = index_of(vectors[:border], border), index_of(vectors[:border], border - 1)

    for query in vectors[:border:25]:
        assert dict(below.search(query, 5)) == pytest.approx(dict(above.search(query, 5)))


def test_what_was_removed_or_moved_is_no_longer_found_where_it_was(vectors: Matrix):
    index = index_of(vectors[:200], 100)
    index.remove("7")
    index.put("8", np.stack([vectors[150], vectors[150]]))

    assert "7" not in [key for key, _ in index.search(vectors[7], BEST)]
    assert {key for key, _ in index.search(vectors[150], 2)} == {"8", "150"}


def test_a_worn_graph_is_built_anew_and_answers_meanwhile(vectors: Matrix):
    index = index_of(vectors[:1_200], 100)
    for number in range(600):
        index.put(str(number), np.stack([vectors[1_200 + number]] * 2))
        found = index.search(vectors[1_200 + number], 1)
        assert found[0][0] == str(number)
    while index.catch_up():
        pass

    assert index.search(vectors[1_000], 1)[0][0] == "1000"


def test_common_words_find_nothing_beside_rare_ones_but_count_in_the_score(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lexical, "MOST_POSTINGS", 50)
    index = LexicalIndex()
    for number in range(300):
        index.put(FaqEntry(str(number), f"parking lot hotel{number:03d}", "yes"))

    found = dict(index.search("parking lot hotel042", BEST))

    assert set(found) == {"42"}
    assert found["42"] > index.score("lot hotel042 elsewhere", ["42"])[0]
    assert index.score("parking lot hotel042", ["7"])[0] > 0


def test_common_words_alone_still_find_something(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lexical, "MOST_POSTINGS", 50)
    index = LexicalIndex()
    for number in range(300):
        index.put(FaqEntry(str(number), "parking lot", "yes"))

    assert len(index.search("parking lot", BEST)) == BEST
