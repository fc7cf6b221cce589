"""The frozen evaluation on stored labels: what finds or tells less than what serves is refused."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering.intents import IntentClassifier
from core import faq, model_store
from core.db import labels as rows
from core.db.connect import Database
from core.db.inboxes import base_named
from core.db.labels import Label
from core.errors import Conflict
from core.model_store import ModelKind
from core.settings import Settings
from training import registering
from training.evaluation import frozen

THINGS = [
    "kettle", "lamp", "sofa", "carpet", "mirror", "shelf", "blanket", "cushion", "clock", "vase",
    "desk", "stool", "curtain", "basket", "candle", "mug", "plate", "bowl", "fork", "spoon",
]  # fmt: skip
ASPECTS = {
    "refund": "get money back for the {}",
    "repair": "mend a broken {}",
    "colour": "choose another shade of {}",
}
HIDDEN = 128


class WordEncoder:
    """A vector of the words of a text; `blur` mixes in what all texts have alike.

    Attributes:
        encoded: How many texts it had to encode.
    """

    dimensions = HIDDEN

    def __init__(self, name: str, blur: float = 0.0) -> None:
        self.name = name
        self._blur = blur
        self.encoded = 0

    def encode_queries(self, texts: Sequence[str]) -> Any:
        self.encoded += len(texts)
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)

    encode_passages = encode_queries

    def _vector(self, text: str) -> Any:
        # "xkettle" has the vector of "kettle": what the encoder alone knows to be the same
        words = [self._word(word.strip("?.,!").removeprefix("x")) for word in text.lower().split()]
        own = np.sum(words, axis=0)
        own = own if not self._blur else self._word(str(len(text) % 3))
        vector = own / np.linalg.norm(own) + 2 * self._word("") / np.linalg.norm(self._word(""))
        return vector / np.linalg.norm(vector)  # in a narrow cone, as e5's are

    def _word(self, word: str) -> Any:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=HIDDEN)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> dict[str, WordEncoder]:
    """The encoders by the name of their folder; `shipped` is the one in the settings."""
    made = {
        "shipped": WordEncoder("shipped"),
        "blurred": WordEncoder("blurred", blur=1.0),
        "alike": WordEncoder("alike"),
    }
    monkeypatch.setattr(frozen, "load_encoder", lambda *_: made["shipped"])
    monkeypatch.setattr(frozen, "read_encoder", lambda folder, _: made[folder.name])
    return made


@pytest.fixture
async def labels(database: Database) -> list[Label]:
    """A base with an entry for each thing and aspect, and staff's labels on questions."""
    made: list[Label] = []
    for thing in THINGS:
        for intent, aspect in ASPECTS.items():
            question = f"How can I {aspect.format(thing)}?"
            entry = await faq.create(
                database, {"question": question, "answer": "So.", "status": "published"}, author="a"
            )
            words = f"how can i {aspect.format(thing)} please".split()
            asked = " ".join(f"x{word}" for word in words)
            made.append(Label(asked, entry_id=entry.id, intent=intent))
    async with database.transaction() as conn:
        await rows.put(conn, (await base_named(conn, "default")).id, made)
    return made


async def registered(
    database: Database, folder: Path, name: str, kind: ModelKind, **settings: object
) -> None:
    place = folder / name
    place.mkdir(exist_ok=True)
    if kind is ModelKind.ENCODER:
        (place / "config.json").write_text("{}", encoding="utf-8")
        (place / "name").write_text(name, encoding="utf-8")
    await model_store.register(
        database, place, kind, name=name, data_sha256="unknown", settings=settings, metrics={}
    )


async def test_an_encoder_that_finds_less_is_refused_and_its_vectors_of_the_entries_are_kept(
    database: Database,
    labels: list[Label],
    encoders: dict[str, WordEncoder],
    tmp_path: Path,
):
    for name in ("blurred", "alike"):
        await registered(database, tmp_path, name, ModelKind.ENCODER)
    settings = Settings(data_dir=tmp_path / "data")

    with pytest.raises(Conflict, match=r"blurred is not promoted: on 60 labels of staff .*at 95%"):
        await registering.promote(database, settings, "blurred")
    outcome = await registering.promote(database, settings, "alike")

    assert outcome.verdict is not None
    assert outcome.verdict.old == outcome.verdict.new
    assert outcome.verdict.old > 0.9
    serving = await model_store.serving(database, ModelKind.ENCODER)
    assert serving is not None
    assert serving.name == "alike"
    assert serving.settings["evaluation"]["cases"] == len(labels)
    assert len(serving.settings["evaluation"]["sha256"]) == 64
    before = encoders["alike"].encoded
    await frozen.measure(database, settings, serving, serving, None)
    assert encoders["alike"].encoded - before <= 8 * len(labels)  # the questions alone, twice


async def test_a_head_that_tells_less_is_refused_and_one_that_tells_more_serves(
    database: Database,
    labels: list[Label],
    encoders: dict[str, WordEncoder],
    tmp_path: Path,
):
    texts = [label.text.replace("xplease", "xkindly") for label in labels]
    intents = [str(label.intent) for label in labels]
    vectors = encoders["shipped"].encode_queries(texts)
    wrong = {"refund": "repair", "repair": "colour", "colour": "refund"}
    for name, told in (("good", intents), ("mixed-up", [wrong[i] for i in intents])):
        (tmp_path / name).mkdir()
        state: dict[str, Any] = dict(IntentClassifier.fit(vectors, told).state())
        np.savez(tmp_path / name / "intents.npz", **state)
        await registered(database, tmp_path, name, ModelKind.INTENTS, encoder="shipped")
    settings = Settings(data_dir=tmp_path / "data")

    better = await registering.promote(database, settings, "good", base="default")
    with pytest.raises(Conflict, match="worse than good"):
        await registering.promote(database, settings, "mixed-up", base="default")

    assert better.verdict is not None
    assert better.verdict.new > better.verdict.old  # no base had these intents before
    assert better.verdict.new > 0.9


async def test_a_head_of_another_encoder_is_refused(
    database: Database,
    labels: list[Label],
    encoders: dict[str, WordEncoder],
    tmp_path: Path,
):
    (tmp_path / "foreign").mkdir()
    vectors = encoders["shipped"].encode_queries(THINGS * 2)
    state: dict[str, Any] = dict(IntentClassifier.fit(vectors, ["a", "b"] * len(THINGS)).state())
    np.savez(tmp_path / "foreign" / "intents.npz", **state)
    await registered(database, tmp_path, "foreign", ModelKind.INTENTS, encoder="another")

    with pytest.raises(Conflict, match="was made on the encoder another"):
        await registering.promote(database, Settings(data_dir=tmp_path / "data"), "foreign")
