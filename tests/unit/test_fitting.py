"""A fitted head is kept, and found again only by the examples it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from answering import fitting
from answering.fitting import IntentModel, labelled
from answering.intents import QUESTION, IntentClassifier


def vector(text: str) -> np.ndarray:
    rng = np.random.default_rng(abs(hash(text)) % 2**32)
    drawn = rng.normal(size=16).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


async def vectors(wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
    return {text: vector(text) for text in wanted}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    fit = IntentClassifier.fit

    def counting(
        given: np.ndarray, labels: Sequence[str], *, texts: Sequence[str]
    ) -> IntentClassifier:
        counted.append(len(labels))
        return fit(given, labels, texts=texts)

    monkeypatch.setattr(fitting.IntentClassifier, "fit", counting)
    return counted


async def fitted(store: Path, own: tuple[tuple[str, str], ...]) -> IntentModel:
    model = IntentModel(store)
    model.own = own
    await model.fit(["How long does delivery take?"], vectors)
    return model


async def test_the_same_examples_are_fitted_once(tmp_path: Path, fits: list[int]):
    own = (("where is it", "order_status"), ("track my parcel", "order_status"))
    first = await fitted(tmp_path, own)
    again = await fitted(tmp_path, own)

    assert len(fits) == 1
    told = [i.name for i in first.predict(vector("where is it"))]
    assert [i.name for i in again.predict(vector("where is it"))] == told


async def test_the_order_of_the_examples_does_not_matter(tmp_path: Path, fits: list[int]):
    own = (("where is it", "order_status"), ("track my parcel", "order_status"))
    await fitted(tmp_path, own)
    await fitted(tmp_path, own[::-1])

    assert len(fits) == 1


async def test_other_examples_are_fitted_anew(tmp_path: Path, fits: list[int]):
    await fitted(tmp_path, (("where is it", "order_status"),))
    await fitted(tmp_path, (("where is it", "shipping"),))

    assert len(fits) == 2


async def test_a_damaged_head_is_fitted_anew(tmp_path: Path, fits: list[int]):
    await fitted(tmp_path, ())
    (kept,) = tmp_path.glob("intents-*.npz")
    kept.write_bytes(b"PK\x03\x04 damaged")
    await fitted(tmp_path, ())

    assert len(fits) == 2


def test_what_customers_ask_of_any_business_is_in_scope_unless_the_base_says_otherwise():
    assert dict(labelled([], []))["where are you located"] == QUESTION
    assert dict(labelled([("where are you located", "stores")], []))["where are you located"] == (
        "stores"
    )
