"""Fitting the intent head on labelled messages, and keeping it as a folder."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from answering.intents import (
    HEAD,
    OUT_OF_SCOPE,
    IntentClassifier,
    Near,
    in_words,
    load_head,
)
from core.errors import InvalidInput
from retrieval.encoders.protocol import Encoder, Vectors
from training import checking, intent_tuning
from training.checking import Finding, Row
from training.intent_tuning import Choice, Options, Say

CARD = "intents.json"
EXAMPLES = "examples.json"
"""The messages that a head was fitted on, by which it explains itself."""
TUNED = "encoder"
"""Folder of the encoder's adapter, where one was tuned for this head."""
CHECKPOINTS = ".tuning"
HELD_OUT = 5
"""Every fifth message is kept for the figures; the head that is written is fitted on all."""
FEWEST = 2


@dataclass(frozen=True)
class Fitted:
    """A head, the encoder whose vectors it reads, and what was found on the way."""

    classifier: IntentClassifier
    encoder: Encoder
    choice: Choice | None
    findings: tuple[Finding, ...]


class Remembering:
    """An encoder that encodes each query once: heads are fitted on many parts of the same texts."""

    def __init__(self, encoder: Encoder) -> None:
        self.inner = encoder
        self.name = encoder.name
        self.dimensions = encoder.dimensions
        self._queries: dict[str, Any] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what customers say, shape (texts, hidden)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._queries]
        if new:
            self._queries.update(zip(new, self.inner.encode_queries(new), strict=True))
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        return np.stack([self._queries[text] for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what is searched, shape (texts, hidden); not remembered."""
        return self.inner.encode_passages(texts)


def fit(
    rows: Sequence[Row],
    encoder: Encoder,
    *,
    tuning: Options | None = None,
    unlabelled: Sequence[str] = (),
    seed: int = 7,
    say: Say = lambda line: None,
) -> Fitted:
    """Return a head fitted on labelled messages.

    Args:
        rows: Labelled messages; the label `out_of_scope` is reserved for what is none of them.
        encoder: Whose vectors the head reads.
        tuning: Tries to tune the encoder for these messages; None leaves it as it is.
        unlabelled: Messages whose labels are guessed, where that helps on held-out ones, and
            which tell how many are out of scope.
        seed: Of the parts that are held out.
        say: Is told what is going on.

    Raises:
        InvalidInput: There are fewer than two labels.
    """
    if len({row.label for row in rows}) < FEWEST:
        raise InvalidInput("At least two different labels are needed.", field="label")
    findings = checking.look_through(rows)
    used = encoder if isinstance(encoder, Remembering) else Remembering(encoder)
    choice = intent_tuning.choose(rows, used.inner, tuning, say, seed=seed) if tuning else None
    if choice is not None and choice.tuned is not None:
        used = Remembering(choice.tuned.encoder)
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    origins = origins_of(rows)
    vectors = used.encode_queries(texts)
    others = used.encode_queries(list(unlabelled)) if unlabelled else None
    if others is not None:
        vectors, texts, labels, origins = _with_guessed(
            vectors, texts, labels, origins, others, unlabelled, seed, say
        )
    classifier, rehearsed = IntentClassifier.rehearsed(
        vectors, labels, texts=texts, named=_called(labels, used), origins=origins, seed=seed
    )
    if others is not None:
        classifier = classifier.for_traffic(others, unlabelled)
    findings += checking.doubtful(rows, rehearsed)
    return Fitted(classifier, used, choice, tuple(findings))


def train(
    rows: Sequence[Row],
    encoder: Encoder,
    out: Path,
    *,
    tuning: Options | None = None,
    unlabelled: Sequence[str] = (),
    seed: int = 7,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Fit the head on labelled messages, write it, and return the figures on held-out ones.

    The figures are of a head that did not see the fifth it is measured on. What stood in the
    folder is replaced by complete files only: a full disk leaves it as it was.

    Args:
        rows: Labelled messages.
        encoder: Whose vectors the head reads.
        out: A folder; is made.
        tuning: As for `fit`.
        unlabelled: As for `fit`.
        seed: As for `fit`.
        say: As for `fit`.

    Raises:
        InvalidInput: There are fewer than two labels, or the folder cannot be written.
    """
    encoder = Remembering(encoder)
    made = fit(rows, encoder, tuning=tuning, unlabelled=unlabelled, seed=seed, say=say)
    if made.choice is not None and made.choice.tuned is not None:
        figures = asdict(made.choice.after)  # all messages were seen since: no others are honest
    else:
        figures = _held_out(rows, encoder, seed)
    card = {
        "encoder": made.encoder.name,
        "data_sha256": intent_tuning.digest(rows),
        "settings": {
            "encoder": made.encoder.name,
            "examples": len(rows),
            "labels": len({row.label for row in rows}),
            "out_of_scope_share": made.classifier.share,
            "unlabelled": len(unlabelled),
            "seed": seed,
        },
        "metrics": figures,
        "tuning": intent_tuning.as_figures(made.choice) if made.choice else None,
    }
    _write(out, made, rows, card)
    if tuning is not None:
        intent_tuning.clear(tuning.place)
    return {
        "out": str(out),
        "labels": len({row.label for row in rows}),
        **figures,
        "tuned": bool(made.choice and made.choice.tuned),
        "warnings": [asdict(finding) for finding in made.findings],
    }


def load(folder: Path) -> IntentClassifier:
    """Return the classifier that `train` wrote."""
    return load_head(folder)


def explained(folder: Path, text: str, encoder: Encoder) -> dict[str, Any]:
    """Return what a head that `train` wrote says about a text, and the examples behind it.

    Raises:
        InvalidInput: The folder holds no head of this encoder.
    """
    try:
        classifier = load_head(folder)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        texts: list[str] = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"{folder} holds no head that can be read ({error}); make one by `deskhand train "
            "intents`.",
            field="head",
        ) from error
    encoder = _tuned(folder, encoder)
    if card.get("encoder") != encoder.name:
        raise InvalidInput(
            f"{folder} reads vectors of {card.get('encoder')}, not of {encoder.name}: train it "
            "anew, or give --encoder.",
            field="encoder",
        )
    (vector,) = encoder.encode_queries([text])
    intents = classifier.predict(vector[None], [text])[0]
    return {
        "text": text,
        "intents": [asdict(intent) for intent in intents[:5]],
        "nearest": [_near(near, texts) for near in classifier.explain(vector)],
    }


def origins_of(rows: Sequence[Row]) -> list[int]:
    """Return the row that each was made of; repeated texts are made of the first."""
    first: dict[str, int] = {}
    return [
        first.setdefault(row.origin or checking.normal(row.text), i) for i, row in enumerate(rows)
    ]


def _near(near: Near, texts: Sequence[str]) -> dict[str, Any]:
    text = texts[near.row] if near.row < len(texts) else ""
    return {"text": text, "label": near.label, "cosine": near.cosine, "weight": near.weight}


def _tuned(folder: Path, encoder: Encoder) -> Encoder:
    if not (folder / TUNED).is_dir():
        return encoder
    from retrieval.encoders import adapter
    from training.encoder import lora

    return lora.apply(encoder, adapter.read(folder / TUNED))


def _called(labels: Sequence[str], encoder: Encoder) -> dict[str, Any]:
    """Return the vectors of what the intents are called."""
    kinds = sorted(set(labels) - {OUT_OF_SCOPE})
    vectors = encoder.encode_queries([in_words(kind) or kind for kind in kinds])
    return dict(zip(kinds, vectors, strict=True))


def _with_guessed(
    vectors: Any, texts: list[str], labels: list[str], origins: list[int], others: Any,
    unlabelled: Sequence[str], seed: int, say: Say,
) -> tuple[Any, list[str], list[str], list[int]]:  # fmt: skip
    from training.semi_supervised import extend

    found = extend(vectors, labels, others, seed=seed)
    if found is None:
        say("Guessed labels of the unlabelled messages do not help; they are left out")
        return vectors, texts, labels, origins
    say(f"{len(found.places)} unlabelled messages are added with guessed labels ({found.way})")
    return (
        np.concatenate([vectors, others[found.places]]),
        [*texts, *(unlabelled[int(i)] for i in found.places)],
        [*labels, *found.labels],
        [*origins, *[-1] * len(found.places)],
    )


def _held_out(rows: Sequence[Row], encoder: Encoder, seed: int) -> dict[str, Any]:
    """Return the figures of a fifth, told by a head that was fitted on the rest."""
    origins = np.asarray(origins_of(rows))
    given = np.unique(origins)
    tested = np.random.default_rng(seed).permutation(given)[::HELD_OUT]
    test = tested[np.isin(tested, np.flatnonzero(origins == np.arange(len(rows))))]
    rest = [rows[i] for i in np.flatnonzero(~np.isin(origins, tested)).tolist()]
    if len({row.label for row in rest}) < FEWEST or not len(test):
        return {}
    labels = [row.label for row in rest]
    asked = [rows[int(i)] for i in test]
    classifier = IntentClassifier.fit(
        encoder.encode_queries([row.text for row in rest]),
        labels,
        texts=[row.text for row in rest],
        named=_called(labels, encoder),
        origins=origins_of(rest),
        seed=seed,
    )
    texts = [row.text for row in asked]
    vectors = encoder.encode_queries(texts)
    return asdict(classifier.evaluate(vectors, [row.label for row in asked], texts))


def _write(out: Path, made: Fitted, rows: Sequence[Row], card: dict[str, Any]) -> None:
    """Write all files beside their places, then rename them, the card last."""
    head = io.BytesIO()
    np.savez_compressed(head, **made.classifier.state())  # pyright: ignore[reportArgumentType]
    card = {**card, "head_sha256": hashlib.sha256(head.getvalue()).hexdigest()}
    contents: dict[str, bytes] = {
        HEAD: head.getvalue(),
        EXAMPLES: json.dumps([row.text for row in rows], ensure_ascii=False).encode(),
        CARD: (json.dumps(card, indent=2) + "\n").encode(),
    }
    parts = {name: out / f".{name}.part" for name in contents}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            part.write_bytes(contents[name])
        _write_adapter(out / TUNED, made.choice)
        for name, part in parts.items():
            part.replace(out / name)
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written ({error.strerror or error}); what stood there still does.",
            field="out",
        ) from error
    finally:
        for part in parts.values():
            _discard(part)


def _write_adapter(folder: Path, choice: Choice | None) -> None:
    from retrieval.encoders import adapter

    if choice is not None and choice.tuned is not None:
        adapter.write(choice.tuned.adapter, folder)
        return
    for name in (adapter.WEIGHTS, adapter.CONFIG):  # of an earlier head that was tuned
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _discard(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # the folder itself could not be made
        return
