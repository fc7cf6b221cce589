"""How well follow-ups are made stand-alone: do they find what people's own rewrites find?

The sets have no passages, so a follow-up's right rewrite is looked for among all rewrites of the
set: the raw message misses what it leaves out, people's own rewrite always finds itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from core.errors import InvalidInput
from core.types import Author, FaqEntry, Utterance
from retrieval.encoders.protocol import Encoder
from retrieval.fusion import fuse
from retrieval.lexical import LexicalIndex, fold
from retrieval.rewriting import standalone

Vectors = NDArray[np.float32]

DEPTH = 5
POOL = 100
"""How many rewrites each of the two searches brings in."""
SPOKEN = "|user|:"
CAST = Path("2019/data/evaluation")


@dataclass(frozen=True)
class FollowUp:
    """A message in its conversation, and how a person made it stand alone.

    Attributes:
        said: What was said before, by anybody, oldest first.
        has_answers: The replies stand in it too, and the last of it is one.
    """

    id: str
    message: str
    said: tuple[str, ...]
    rewrite: str
    has_answers: bool = False

    @property
    def history(self) -> tuple[Utterance, ...]:
        """What was said before, with who said it."""
        last = len(self.said) - 1
        return tuple(
            Utterance(
                Author.BOT if self.has_answers and (last - at) % 2 == 0 else Author.CUSTOMER, text
            )
            for at, text in enumerate(self.said)
        )


@dataclass(frozen=True)
class Finder:
    """Finds rewrites by meaning and words, as the knowledge index does.

    Attributes:
        texts: The rewrites, each once.
        vectors: Of them, shape (texts, hidden).
        places: Where each stands in `texts`.
        everything: A mask that leaves none out.
    """

    texts: Sequence[str]
    vectors: Vectors
    lexical: LexicalIndex
    places: Mapping[str, int]
    everything: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sequence[str], encoder: Encoder) -> Finder:
        """Return a finder of texts."""
        once = list(dict.fromkeys(texts))
        lexical = LexicalIndex()
        for text in once:
            lexical.put(FaqEntry(text, text, ""))
        places = {text: number for number, text in enumerate(once)}
        return cls(once, encoder.encode_passages(once), lexical, places, lexical.mask(once))

    def find(self, query: str, vector: Vectors) -> list[str]:
        """Return the best texts, best first."""
        cosines = self.vectors @ vector
        near = [self.texts[int(i)] for i in np.argsort(-cosines)[:POOL]]
        worded = [key for key, _ in self.lexical.search(query, POOL, self.everything)]
        pool = list(dict.fromkeys([*near, *worded]))
        words = self.lexical.score(query, pool)
        scores = [
            fuse(float(cosines[self.places[t]]), float(w)) for t, w in zip(pool, words, strict=True)
        ]
        return [pool[i] for i in np.argsort(-np.asarray(scores), kind="stable")[:DEPTH]]


def evaluate(
    follow_ups: Sequence[FollowUp],
    encoder: Encoder,
    tell: Callable[[int], None] = lambda done: None,
    by_model: Sequence[str | None] = (),
) -> dict[str, float]:
    """Return recall@1 and recall@5 of the raw, our and people's wording of each follow-up.

    First messages are in the index and not among the queries.

    Args:
        follow_ups: The messages of a set.
        encoder: Of what is searched.
        tell: Told after each search how many are done.
        by_model: What a large model made of each of `leaning`; None where the rules must do.
    """
    asked = leaning(follow_ups)
    finder = Finder.of([f.rewrite for f in follow_ups], encoder)
    begun = time.perf_counter()
    ours = [standalone(f.message, f.said) for f in asked]
    seconds = time.perf_counter() - begun
    ways = {
        "raw": [f.message for f in asked],
        "rules": ours,
        "people": [f.rewrite for f in asked],
    }
    if by_model:
        ways["model"] = [text or rule for text, rule in zip(by_model, ours, strict=True)]
    figures: dict[str, float] = {}
    if by_model:
        figures["model_fell_back"] = sum(text is None for text in by_model) / len(by_model)
    done = 0
    for name, queries in ways.items():
        vectors = encoder.encode_queries(queries)
        found: list[list[str]] = []
        for query, vector in zip(queries, vectors, strict=True):
            found.append(finder.find(query, vector))
            done += 1
            tell(done)
        for depth in (1, DEPTH):
            hits = [f.rewrite in texts[:depth] for f, texts in zip(asked, found, strict=True)]
            figures[f"{name}_recall@{depth}"] = sum(hits) / max(len(asked), 1)
    changed = [f for f in asked if fold(f.message) != fold(f.rewrite)]
    figures["leaning"] = len(changed) / max(len(asked), 1)
    figures["ms per rewrite"] = 1000 * seconds / max(len(asked), 1)
    figures["n"] = len(asked)
    return figures


def leaning(follow_ups: Sequence[FollowUp]) -> list[FollowUp]:
    """Return the messages before which something was said."""
    return [f for f in follow_ups if f.said]


def canard(folder: Path) -> Iterator[FollowUp]:
    """Yield CANARD's rows: `*.jsonl` with History, Question, Rewrite.

    Raises:
        InvalidInput: A file or field is missing.
    """
    for path in _files(folder, "*.jsonl"):
        for number, row in _rows(path):
            yield FollowUp(
                f"{path.stem}:{number}",
                _field(row, "Question", path, number),
                tuple(map(str, row.get("History") or ())),
                _field(row, "Rewrite", path, number),
                has_answers=True,
            )


def trec_cast(folder: Path) -> Iterator[FollowUp]:
    """Yield the turns of TREC CAsT 2019's evaluation topics with their resolved form.

    Raises:
        InvalidInput: A file is missing.
    """
    topics = next(iter(_files(folder / CAST, "evaluation_topics_v1.0.json")))
    resolved = next(iter(_files(folder / CAST, "*annotated_resolved*.tsv")))
    lines = [line.split("\t", 1) for line in resolved.read_text(encoding="utf-8").splitlines()]
    people = {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}
    for topic in json.loads(topics.read_text(encoding="utf-8")):
        said: list[str] = []
        for turn in topic["turn"]:
            key, message = f"{topic['number']}_{turn['number']}", str(turn["raw_utterance"])
            if key in people:
                yield FollowUp(key, message, tuple(said), people[key])
            said.append(message)


def mtrag(folder: Path) -> Iterator[FollowUp]:
    """Yield MTRAG's retrieval questions with people's rewrites; only customers' turns are known.

    Raises:
        InvalidInput: A file is missing.
    """
    for path in _files(folder, "**/*_rewrite.jsonl"):
        before = path.with_name(path.name.replace("_rewrite", "_questions"))
        turns = {str(row["_id"]): _turns(row) for _, row in _rows(before)}
        for _, row in _rows(path):
            key = str(row["_id"])
            if turns.get(key):
                *said, message = turns[key]
                yield FollowUp(key, message, tuple(said), _turns(row)[-1])


KINDS: Mapping[str, Callable[[Path], Iterator[FollowUp]]] = {
    "canard": canard,
    "trec_cast": trec_cast,
    "mtrag": mtrag,
}


def _turns(row: Mapping[str, Any]) -> list[str]:
    return [turn.strip() for turn in str(row["text"]).split(SPOKEN) if turn.strip()]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise InvalidInput(f"{folder} holds no {pattern}: give the folder of the set.")
    return found


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{path} line {number}: this is no JSON.") from error
            if isinstance(row, dict):
                yield number, cast("Mapping[str, Any]", row)


def _field(row: Mapping[str, Any], name: str, path: Path, number: int) -> str:
    if not isinstance(row.get(name), str) or not row[name].strip():
        raise InvalidInput(f"{path} line {number}: {name} is missing.", field=name)
    return str(row[name])
