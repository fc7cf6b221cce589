from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from answering import preparing
from core.errors import ConfigurationError
from retrieval.encoders import Encoder, load_encoder
from retrieval.encoders.e5 import unpack_q4

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models_dir() -> Path:
    folder = ROOT / ".deskhand" / "models"
    preparing.prepare_encoder(folder, print)
    return folder


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> Encoder:
    return load_encoder(preparing.ENCODER, models_dir, "cpu")


def test_four_bit_blocks_are_unpacked_low_nibbles_first():
    block = np.float16(0.5).tobytes() + bytes(0x98 if n == 0 else 0x88 for n in range(16))
    values = unpack_q4(block)
    assert values.shape == (32,)
    assert values[0] == 0.0  # (8 - 8) * 0.5
    assert values[16] == 0.5  # (9 - 8) * 0.5: the high nibble of the first byte


@pytest.mark.models
def test_vectors_have_unit_length_and_one_row_a_text(encoder: Encoder):
    vectors = encoder.encode_queries(["hello", "我的包裹在哪里？", "x " * 3_000])
    assert vectors.shape == (3, encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert encoder.encode_queries([]).shape == (0, encoder.dimensions)


@pytest.mark.models
def test_a_paraphrase_is_nearer_than_something_else(encoder: Encoder):
    asked = encoder.encode_queries(["how long do I have to send something back"])
    answers = encoder.encode_passages(["What is your return policy?", "Do you sell gift cards?"])
    right, wrong = (asked @ answers.T)[0]
    assert right > wrong + 0.02


@pytest.mark.models
def test_the_same_question_in_chinese_and_english_is_near(encoder: Encoder):
    chinese = encoder.encode_queries(["退货需要多长时间？", "你们卖礼品卡吗？"])
    english = encoder.encode_queries(["How long does a return take?", "Do you sell gift cards?"])
    similar = chinese @ english.T
    assert similar[0, 0] > similar[0, 1]
    assert similar[1, 1] > similar[1, 0]


@pytest.mark.models
def test_a_text_in_a_batch_has_the_vector_that_it_has_alone(encoder: Encoder):
    texts = ["short", "a much longer text that the others are padded to, with some more words"]
    together = encoder.encode_passages(texts)
    alone = np.vstack([encoder.encode_passages([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.models
def test_queries_and_passages_are_told_apart(encoder: Encoder):
    query, passage = encoder.encode_queries(["returns"]), encoder.encode_passages(["returns"])
    assert 0.5 < float((query @ passage.T).item()) < 0.999


def test_an_encoder_that_is_nowhere_is_named(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "modules.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="mine"):
        load_encoder("mine", tmp_path, "cpu")


def ready(folder: Path, made_from: str) -> Path:
    """Make a model the way the store does, with one small file."""

    def build(place: Path) -> None:
        (place / "weights").write_text(made_from)

    return preparing.ensure(folder, "model", made_from, build)


def test_a_prepared_model_is_not_made_again(tmp_path: Path):
    first = ready(tmp_path, "v1")
    stamp = (first / "weights").stat().st_mtime_ns

    assert ready(tmp_path, "v1") == first

    assert (first / "weights").stat().st_mtime_ns == stamp
    assert [model.name for model in preparing.stored(tmp_path)] == ["model"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "weights").unlink(),
        lambda folder: (folder / "weights").write_text("v"),
        lambda folder: (folder / preparing.READY).write_text('{"made_from": "v1"'),
        lambda folder: (folder / preparing.READY).unlink(),
    ],
    ids=["a file is gone", "a file is cut", "the seal is cut", "the seal is gone"],
)
def test_a_broken_model_is_found_and_made_again(tmp_path: Path, harm):
    folder = ready(tmp_path, "v1")
    harm(folder)
    assert not preparing.stored(tmp_path)

    ready(tmp_path, "v1")

    assert (folder / "weights").read_text() == "v1"
    assert [model.name for model in preparing.stored(tmp_path)] == ["model"]


def test_a_model_made_from_something_older_is_made_again(tmp_path: Path):
    ready(tmp_path, "v1")
    folder = ready(tmp_path, "v2")
    assert (folder / "weights").read_text() == "v2"
    assert json.loads((folder / preparing.READY).read_text())["made_from"] == "v2"


def test_a_build_that_fails_leaves_nothing_half_done(tmp_path: Path):
    folder = ready(tmp_path, "v1")

    def build(place: Path) -> None:
        (place / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigurationError, match="full"):
        preparing.ensure(tmp_path, "model", "v2", build)

    assert (folder / "weights").read_text() == "v1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "model"]


def test_a_wheel_that_is_not_installed_is_named():
    with pytest.raises(ConfigurationError, match="no-such-wheel"):
        preparing.wheel_file("no_such_wheel", ".bin")
