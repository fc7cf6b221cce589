"""Labelled files: what is refused and what is warned of, with its line, and what is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from answering.intents import OUT_OF_SCOPE, Rehearsed
from core.errors import InvalidInput
from training import checking, intents
from training.checking import Row
from training.intent_tuning import is_better

HIDDEN = 24
WORDS = {
    "refund": ["money back please", "refund my order", "I want my money back now"],
    "parcel": ["where is my parcel", "track the parcel", "parcel is late"],
    "opening": ["when do you open", "opening hours", "are you open on Sunday"],
}


class Encoder:
    """Puts a text near the axis of the intent whose words it has; counts what it encodes."""

    name = "made-up"
    dimensions = HIDDEN

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        return np.stack([self._vector(text) for text in texts])

    encode_passages = encode_queries

    def _vector(self, text: str) -> NDArray[np.float32]:
        seed = sum(map(ord, text))
        vector = np.random.default_rng(seed).normal(size=HIDDEN) * 0.1 + 1.0
        for axis, label in enumerate(WORDS):
            if label in text or any(text.startswith(t[:8]) for t in WORDS[label]):
                vector[axis] += 2.0
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def rows(copies: int = 6) -> list[Row]:
    made = [
        (f"{text} {number}", label)
        for number in range(copies)
        for label, texts in WORDS.items()
        for text in texts
    ]
    return [Row(text, label, line) for line, (text, label) in enumerate(made, start=2)]


def file(folder: Path, content: str | bytes) -> Path:
    path = folder / "T.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"line 1: the file is empty"),
        (b"text,label\n", r"line 2: there is no row"),
        (b"text,kind\nhello,a\n", r"line 1: the column 'label' is missing"),
        (b"text,label\nhello,a\n,b\n", r"line 3: text is empty"),
        (b'text,label\n"two\nlines",a\nhello,\n', r"line 4: label is empty"),
        (b"text,label\nhello,a\nM\xfcller,b\n", r"line 3: the byte 0xfc is not UTF-8"),
        ("text,label\nhello,a\n".encode("utf-16"), r"line 1: this is UTF-16"),
        (b"text,label\nhello,a\nhel\x00lo,b\n", r"line 3: there is a NUL"),
        (b'text,label\nhello,a\n"never closed,b\n', r"line \d: unexpected end of data"),
        (b"text,label\n" + b"x" * 9_000 + b",a\n", r"line 2: text has 9,000 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, content: bytes, says: str):
    with pytest.raises(InvalidInput, match=says):
        checking.read_rows(file(tmp_path, content))


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checking, "LARGEST_BYTES", 20)
    with pytest.raises(InvalidInput, match="Train on a sample") as refused:
        checking.read_rows(file(tmp_path, "text,label\nhello there,a\n"))
    assert refused.value.code == "too_large"


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checking, "MOST_ROWS", 2)
    with pytest.raises(InvalidInput, match="line 4: there are more than 2 rows"):
        checking.read_rows(file(tmp_path, "text,label\na,x\nb,y\nc,z\n"))


def test_one_label_teaches_nothing(tmp_path: Path):
    path = file(tmp_path, "text,label\nhello,greeting\nhi,greeting\n")
    with pytest.raises(InvalidInput, match="line 2: all 2 rows have the label 'greeting'"):
        checking.check_labels(checking.read_rows(path), path)


def test_rows_remember_their_line_and_what_they_were_made_of(tmp_path: Path):
    path = file(tmp_path, 'text,label,origin\n"a\nb",x,0\nc,y,\n')
    assert checking.read_rows(path) == [Row("a\nb", "x", 3, "0"), Row("c", "y", 4)]


def test_repeated_texts_and_texts_under_two_labels_are_named():
    some = [Row("Refund me", "a", 2), Row("refund  me.", "a", 3), Row("REFUND ME!", "b", 4)]
    found = {f.kind: f for f in checking.look_through(some)}
    assert found["duplicate"].lines == (3, 2)
    assert "lines 2 and 4 are the same text under 'a' and 'b'" in found["conflict"].message


def test_an_intent_with_few_examples_is_named_by_its_first_line():
    some = [Row(f"text {n}", "many", n) for n in range(2, 6)] + [Row("one", "lonely", 9)]
    (found,) = checking.look_through(some)
    assert found.lines == (9,)
    assert "'lonely' has 1 example;" in found.message


def test_texts_of_the_test_file_in_the_training_file_are_named():
    (found,) = checking.leaking([Row("where is it", "a", 7)], [Row("Where is it?", "b", 3)])
    assert "line 3 of the test file is line 7" in found.message
    assert "there labelled 'a'" in found.message


def test_a_label_that_held_out_examples_speak_against_is_doubted():
    some = [Row(f"text {n}", "a" if n < 14 else "b", n) for n in range(2, 24)]
    told = np.asarray([row.label for row in some])
    own = np.full(len(some), 0.9)
    told[3], own[3] = "b", 0.01
    best = np.where(own < 0.5, 0.97, own)
    (found,) = checking.doubtful(some, Rehearsed(np.arange(len(some)), told, own, best))
    assert found.kind == "mislabelled"
    assert found.lines == (5,)


def test_intents_that_are_mixed_up_are_named_together():
    some = [Row(f"text {n}", "a" if n < 12 else "b", n) for n in range(2, 22)]
    told = np.asarray([row.label for row in some])
    told[:4] = "b"
    half = np.full(len(some), 0.5)
    (found,) = checking.doubtful(some, Rehearsed(np.arange(len(some)), told, half, half))
    assert found.kind == "overlap"
    assert "'a' and 'b' are mixed up in 4 of 20" in found.message


def test_of_many_findings_the_first_are_shown():
    many = [checking.Finding("duplicate", f"line {n}") for n in range(30)]
    shown = list(checking.in_lines(many, most=2))
    assert shown[-1] == "duplicate: and 28 more (--json lists them all)"
    assert len(shown) == 3


def test_a_trained_head_is_found_again_with_its_card(tmp_path: Path):
    figures = intents.train(rows(), Encoder(), tmp_path / "head")

    card = json.loads((tmp_path / "head" / intents.CARD).read_text())
    assert figures["accuracy"] > 0.9
    assert card["metrics"]["accuracy"] == figures["accuracy"]
    assert len(card["data_sha256"]) == 64
    assert set(intents.load(tmp_path / "head").labels) == set(WORDS)
    assert not list((tmp_path / "head").glob(".*"))


def test_each_text_is_encoded_once(tmp_path: Path):
    encoder = Encoder()
    intents.train(rows(), encoder, tmp_path / "head")
    assert len(encoder.encoded) == len(set(encoder.encoded))


def test_a_head_explains_itself_by_its_nearest_examples(tmp_path: Path):
    intents.train(rows(), Encoder(), tmp_path / "head")
    told = intents.explained(tmp_path / "head", "track the parcel please", Encoder())

    assert told["intents"][0]["name"] == "parcel"
    assert told["nearest"][0]["label"] == "parcel"
    assert "parcel" in told["nearest"][0]["text"]
    assert sum(near["weight"] for near in told["nearest"]) == pytest.approx(1.0)


def test_a_head_is_not_read_with_another_encoder(tmp_path: Path):
    intents.train(rows(), Encoder(), tmp_path / "head")
    other = Encoder()
    other.name = "another"
    with pytest.raises(InvalidInput, match="reads vectors of made-up, not of another"):
        intents.explained(tmp_path / "head", "hello", other)


def test_a_full_disk_leaves_the_head_that_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    head = tmp_path / "head"
    intents.train(rows(), Encoder(), head)
    before = {path.name: path.read_bytes() for path in head.iterdir()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if intents.CARD in path.name:
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InvalidInput, match="No space left on device"):
        intents.train(rows(7), Encoder(), head)
    assert {path.name: path.read_bytes() for path in head.iterdir()} == before


def test_rows_made_of_one_message_have_one_origin():
    some = [
        Row("given", "a", 2, "0"),
        Row("givne", "a", 3, "0"),
        Row("other", "a", 4),
        Row("Other!", "a", 5),
    ]
    assert intents.origins_of(some) == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("won", "lost", "is_kept"), [(0, 0, False), (5, 4, False), (9, 3, True), (3, 9, False)]
)
def test_tuning_is_kept_only_where_it_clearly_wins(won: int, lost: int, is_kept: bool):
    assert is_better(won, lost) is is_kept


def test_out_of_scope_may_have_few_examples():
    some = [Row("who won the match", OUT_OF_SCOPE, 2)]
    assert checking.look_through(some) == []
