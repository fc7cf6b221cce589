"""One tuning of the encoder from files to an adapter that is kept only if it finds more.

What is measured are questions about entries that training has not seen, against all entries,
before and after, each question with itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError, InvalidInput
from core.types import FaqEntry
from retrieval.encoders import adapter as adapters
from retrieval.encoders.adapter import Adapter
from retrieval.encoders.protocol import Encoder, Vectors
from retrieval.index import bare
from training.encoder import lora
from training.encoder.data import Mixture, kept
from training.encoder.loop import Recipe, Training, Tuned
from training.encoder.pairs import EntryPairs, Pair, own_pairs
from training.evaluation.report import read_jsonl

CHECKPOINT = "checkpoint.pt"
RECORD = "training.json"
HELD_OUT = 0.2
FEWEST_HELD_OUT = 20
"""Questions that are measured with; of fewer a difference says nothing."""
RESAMPLES = 2000
HASHED_BATCHES = 100
"""Batches whose texts stand for what was trained on, in the hash of the data."""
DEPTH = 10

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """What is trained on and measured with.

    Attributes:
        mixture: The batches.
        entries: What the held-out questions are searched in.
        held_out: Questions whose entries training does not see.
        sources: What it was made of, for the record.
    """

    mixture: Mixture
    entries: Sequence[FaqEntry]
    held_out: Sequence[Pair]
    sources: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def data_sha256(self) -> str:
        """A hash of what is trained on and measured with, whatever file it came from."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.id}\n{entry.question}\n{entry.answer}\n".encode())
        for step in range(1, HASHED_BATCHES + 1):
            batch = self.mixture.batch(step)
            digest.update("\n".join((*batch.queries, *batch.passages)).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What tuning brought, on held-out questions.

    Attributes:
        mrr_before: Mean reciprocal rank among the first ten, with the encoder as it was.
        mrr_after: The same with the adapter.
        gain_low: Lower end of the 95% interval of the paired difference.
        gain_high: Its upper end.
        questions: How many were measured with.
        name: Of the tuned encoder.
    """

    steps: int
    seconds: float
    mrr_before: float
    mrr_after: float
    recall_at_1_before: float
    recall_at_1_after: float
    gain_low: float
    gain_high: float
    questions: int
    name: str
    adapter_bytes: int


def read_pairs(place: Path) -> list[Pair]:
    """Return the pairs of a JSON Lines file: what was said, and what answers it.

    A line has `text` or `turns` (the last of them is taken), `relevant`, and perhaps `not`, which
    are lists of entry ids.

    Raises:
        InvalidInput: A line is wrong; names it.
    """
    rows = read_jsonl(place, ("relevant",))
    return [_pair(row, f"{place} row {number}") for number, row in enumerate(rows, start=1)]


def material(
    entries: Sequence[FaqEntry], pairs: Sequence[Pair], encoder: Encoder,
    keep: Sequence[str], seed: int, progress: Progress,
) -> Material:  # fmt: skip
    """Return what a base's own entries and pairs give.

    Raises:
        InvalidInput: There are too few questions to train on, or to measure with.
    """
    known = {entry.id for entry in entries}
    strangers = [pair for pair in pairs if not pair.relevant & known]
    if strangers:
        progress(f"left out: {len(strangers)} pairs whose entries are not in the FAQ, such as "
                 f"{strangers[0].text[:60]!r}")  # fmt: skip
    every = _unique([*own_pairs(entries), *(pair for pair in pairs if pair.relevant & known)])
    hidden = _hidden(entries, seed)
    held_out = [pair for pair in every if pair.relevant & hidden]
    questions = {bare(entry.question) for entry in entries}
    # An entry's own question finds it whatever the encoder does: it measures nothing.
    measured = [pair for pair in held_out if bare(pair.text) not in questions]
    said = {bare(pair.text) for pair in held_out}
    training = [pair for pair in every
                if not pair.relevant & hidden and bare(pair.text) not in said]  # fmt: skip
    if len(measured) < FEWEST_HELD_OUT:
        raise InvalidInput(
            f"there are {len(measured)} questions to measure with and {FEWEST_HELD_OUT} are "
            "needed: give the entries other wordings (alternates), or --pairs",
            field="pairs",
        )
    trained = [entry for entry in entries if entry.id not in hidden]
    source = EntryPairs(trained, training, encoder.encode_queries)
    return Material(
        Mixture([(source, 1.0)], kept(keep, encoder), seed),
        entries, measured, {"entries": len(entries), "pairs": len(training)},
    )  # fmt: skip


def run(
    what: Material, encoder: Encoder, recipe: Recipe, out: Path, progress: Progress,
    *, checkpoint_every: int = 50,
) -> Outcome:  # fmt: skip
    """Tune an adapter and write it to `out` with `training.json`, if it finds more than before.

    An interrupted run goes on at its last checkpoint, which lies in `out`.

    Raises:
        InvalidInput: The tuned encoder finds no more than the given one; nothing is written.
        ConfigurationError: The disk is full or cannot be written; what stood in `out` is left.
    """
    try:
        return _run(what, encoder, recipe, out, progress, checkpoint_every)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        why = "the disk is full: free some space" if full else str(error)
        raise ConfigurationError(
            f"{out} cannot be written; what stood there stays: {why}"
        ) from error


def _run(
    what: Material, encoder: Encoder, recipe: Recipe, out: Path, progress: Progress,
    checkpoint_every: int,
) -> Outcome:  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    place = out / CHECKPOINT
    training = Training(encoder, recipe)
    if place.exists():
        training.resume(place)
        progress(f"goes on after step {training.done} of {place}")
    before = reciprocal_ranks(encoder, what)
    progress(f"{recipe.steps} steps; {len(before)} held-out questions, MRR {before.mean():.3f}")
    begun = time.monotonic()
    _steps(training, what.mixture, recipe, place, checkpoint_every, progress)
    tuned = training.tuned()
    after = reciprocal_ranks(tuned.encoder, what)
    low, high = _interval(after - before, recipe.seed)
    progress(f"MRR {before.mean():.3f} -> {after.mean():.3f}, difference {low:+.3f} to {high:+.3f}")
    if after.mean() <= before.mean():
        place.unlink(missing_ok=True)
        raise InvalidInput(
            f"the tuned encoder finds no more than before (MRR {before.mean():.3f} -> "
            f"{after.mean():.3f}) and is not written: give more --pairs, or a smaller --lr",
            field="pairs",
        )
    outcome = Outcome(
        recipe.steps, round(time.monotonic() - begun, 1),
        float(before.mean()), float(after.mean()),
        float((before == 1).mean()), float((after == 1).mean()),
        low, high, len(before), tuned.encoder.name, write(tuned.adapter, out),
    )  # fmt: skip
    _record(out, what, recipe, outcome, tuned)
    place.unlink(missing_ok=True)
    return outcome


def write(adapter: Adapter, out: Path) -> int:
    """Write an adapter, and return the size of its weights in bytes.

    Raises:
        InvalidInput: It is larger than what may ship.
    """
    size = sum(values.nbytes for values in adapter.weights.values())
    if size > lora.LIMIT_BYTES:
        raise InvalidInput(
            f"the adapter has {size / 1e6:.1f} MB and may have {lora.LIMIT_BYTES / 1e6:.1f}: give "
            "a smaller --rank",
            field="rank",
        )
    return adapters.write(adapter, out)


def reciprocal_ranks(encoder: Encoder, what: Material) -> NDArray[np.float64]:
    """Return for each held-out question 1 / the place of its first right entry, 0 beyond ten.

    An entry is found by its question or by the question with its answer. Its alternates are not
    searched, since they are among the questions.
    """
    asked = encoder.encode_queries([pair.text for pair in what.held_out])
    titles = _encoded(encoder, [entry.question for entry in what.entries])
    wholes = encoder.encode_passages([f"{e.question}\n{e.answer}" for e in what.entries])
    scores = np.maximum(asked @ titles.T, asked @ wholes.T)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    ids = [entry.id for entry in what.entries]
    return np.asarray(
        [
            next((1 / place for place, number in enumerate(row, start=1)
                  if ids[number] in pair.relevant), 0.0)
            for row, pair in zip(best, what.held_out, strict=True)
        ]
    )  # fmt: skip


def _encoded(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    unique = list(dict.fromkeys(texts))
    place = {text: number for number, text in enumerate(unique)}
    return encoder.encode_passages(unique)[[place[text] for text in texts]]


def _steps(
    training: Training, mixture: Mixture, recipe: Recipe, place: Path,
    checkpoint_every: int, progress: Progress,
) -> None:  # fmt: skip
    begun, first = time.monotonic(), training.done
    while training.done < recipe.steps:
        training.step(mixture.batch(training.done + 1))
        done = training.done
        if done % 10 == 0:
            left = (time.monotonic() - begun) / (done - first) * (recipe.steps - done)
            progress(f"step {done}/{recipe.steps} loss {np.mean(training.losses[-10:]):.3f}, "
                     f"{left / 60:.0f} min left")  # fmt: skip
        if done % checkpoint_every == 0 and done < recipe.steps:
            training.save(place)


def _interval(differences: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the 95% interval of the mean of paired differences, by bootstrap."""
    rng = np.random.default_rng(seed)
    count = len(differences)
    means = [differences[rng.integers(count, size=count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _hidden(entries: Sequence[FaqEntry], seed: int) -> frozenset[str]:
    """Return the ids of entries that only measure: whole entities, where there are several."""
    entities = sorted({entry.entity for entry in entries if entry.entity})
    units = entities if len(entities) >= 10 else sorted(entry.id for entry in entries)
    random.Random(seed).shuffle(units)
    chosen = set(units[: max(1, round(HELD_OUT * len(units)))])
    return frozenset(e.id for e in entries if (e.entity if len(entities) >= 10 else e.id) in chosen)


def _unique(pairs: Iterable[Pair]) -> list[Pair]:
    """Return pairs with those of one text joined: each of their entries answers it."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        key = bare(pair.text)
        if (other := found.get(key)) is None:
            found[key] = pair
        else:
            relevant = other.relevant | pair.relevant
            found[key] = Pair(other.text, relevant, (other.refuted | pair.refuted) - relevant)
    return [pair for key, pair in found.items() if key]


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    turns = row.get("turns") or ()
    text = row.get("text") or (turns[-1].get("text") if turns else None)
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"{where}: `text` or `turns` is needed, and has a text.", field="text")
    return Pair(text.strip(), _ids(row, "relevant", where), _ids(row, "not", where))


def _ids(row: Mapping[str, Any], name: str, where: str) -> frozenset[str]:
    ids = row.get(name) or []
    if not isinstance(ids, list):
        raise InvalidInput(f"{where}: `{name}` is a list of entry ids.", field=name)
    return frozenset(str(entry_id) for entry_id in ids)


def _record(out: Path, what: Material, recipe: Recipe, outcome: Outcome, tuned: Tuned) -> None:
    """Write how the adapter was made, without paths of the machine that made it."""
    record = {
        "base": tuned.adapter.base,
        "data_sha256": what.data_sha256,
        "sources": dict(what.sources),
        "settings": asdict(recipe),
        "metrics": asdict(outcome),
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
