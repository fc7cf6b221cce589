"""Tuning the encoder for intents: kept only if it wins, and it goes on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.encoders import Encoder
from tests.unit.test_encoder_training import EXAMPLES, encoder, folder
from training import intent_tuning, intents
from training.checking import Row
from training.intent_tuning import Options

__all__ = ["encoder", "folder"]  # the tiny encoder's fixtures
ROWS = [Row(text, label, line) for line, (text, label) in enumerate(EXAMPLES, start=2)]
EAGER = 2e-2


class Interrupted(Exception):
    """The process was killed."""


def test_an_interrupted_tuning_goes_on_where_it_stopped(encoder: Encoder, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    options = Options(minutes=5, place=place, learning_rate=EAGER)

    def killed(line: str) -> None:
        if "step 20 of" in line:
            raise Interrupted

    with pytest.raises(Interrupted):
        intent_tuning.choose(ROWS, encoder, options, killed)
    said: list[str] = []
    resumed = intent_tuning.choose(ROWS, encoder, options, said.append)
    whole = intent_tuning.choose(ROWS, encoder, Options(5, None, EAGER), lambda line: None)

    assert any("goes on at step 20" in line for line in said)
    assert resumed is not None
    assert whole is not None
    assert resumed.after == whole.after
    intent_tuning.clear(place)
    assert not place.exists()


def test_other_messages_are_not_tuned_from_an_old_checkpoint(
    encoder: Encoder, tmp_path: Path
) -> None:
    options = Options(minutes=5, place=tmp_path, learning_rate=EAGER)
    intent_tuning.choose(ROWS, encoder, options, lambda line: None)
    said: list[str] = []
    intent_tuning.choose(ROWS[::-1], encoder, options, said.append)
    assert not any("goes on" in line for line in said)


def test_a_tuned_encoder_is_kept_with_its_head_only_if_it_wins(
    encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "head"
    figures = intents.train(ROWS, encoder, out, tuning=Options(5, None, EAGER))
    card = json.loads((out / intents.CARD).read_text())

    before, after = card["tuning"]["before"]["accuracy"], card["tuning"]["after"]["accuracy"]
    assert figures["tuned"] is (out / intents.TUNED).is_dir()
    assert card["encoder"].startswith(f"{encoder.name}+") is figures["tuned"]
    assert figures["accuracy"] == after or not figures["tuned"]
    assert after > before or not figures["tuned"]
    assert intents.explained(out, "how much is the tent", encoder)["intents"]


def test_too_few_messages_are_not_tuned_on(encoder: Encoder) -> None:
    said: list[str] = []
    few = [ROWS[0], ROWS[60], ROWS[100]]
    assert intent_tuning.choose(few, encoder, Options(5), said.append) is None
    assert "too few messages" in said[-1]
