"""What is promoted joins what is there: general intents stay, chances keep their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering.engine import Engine
from answering.pairing import NoEncoder, Pair, encoding_part, release, replying_part
from answering.promoted import (
    BaseModels,
    Promotions,
    calibrated,
    joined,
    read_head,
    read_thresholds,
    suits,
)
from core.db.models import ModelVersion
from core.errors import ConfigurationError
from core.risk import Certificate, Thresholds
from core.types import FaqEntry, Intent, KnowledgeBaseId, ModelKind, Passage

THRESHOLDS = Thresholds(0.05, 0.1, 0.6, Certificate(None, 0))


class Halving:
    """A calibrator that believes half of what it is told."""

    def chance(self, signals: Mapping[str, float], entry: str = "") -> float:
        return signals["confidence"] / 2


def passages(*confidences: float) -> list[Passage]:
    return [Passage(FaqEntry(f"e{i}", "q", "a"), c, c) for i, c in enumerate(confidences)]


def test_a_head_that_knows_no_greetings_shares_what_the_general_intents_leave():
    general = [Intent("question", 0.6), Intent("thanks", 0.3), Intent("out_of_scope", 0.1)]
    head = [Intent("refund", 0.9), Intent("out_of_scope", 0.1)]

    both = joined(general, head)

    assert [(i.name, round(i.probability, 4)) for i in both] == [
        ("refund", 0.63), ("thanks", 0.3), ("out_of_scope", 0.07),
    ]  # fmt: skip
    assert sum(i.probability for i in both) == pytest.approx(1.0)


def test_a_head_with_a_label_of_its_own_for_thanks_is_believed_about_them():
    general = [Intent("thanks", 0.9), Intent("question", 0.1)]
    head = [Intent("thanks", 0.2), Intent("refund", 0.8)]

    assert [i.name for i in joined(general, head)] == ["refund", "thanks"]


def test_before_the_first_fit_a_head_stands_alone():
    head = [Intent("refund", 1.0)]

    assert joined((), head) == head


def test_thresholds_without_a_calibrator_leave_the_chances_as_they_came():
    assert [p.confidence for p in calibrated(THRESHOLDS, passages(0.8, 0.4), (), {}, "en")] == [
        0.8,
        0.4,
    ]
    assert calibrated(THRESHOLDS, [], (), {}, "en") == []


def test_calibrated_chances_keep_order_and_proportion():
    timid = replace(THRESHOLDS, calibrator=Halving())  # type: ignore[arg-type]

    best, second = calibrated(timid, passages(0.8, 0.4), (), {}, "en")

    assert best.confidence == pytest.approx(0.4)
    assert second.confidence == pytest.approx(0.2)


def test_a_base_with_its_own_models_does_not_take_the_common_ones_and_gets_them_back():
    own, common = replace(THRESHOLDS, prior=0.7), replace(THRESHOLDS, prior=0.8)
    promotions = Promotions()
    mine, other = KnowledgeBaseId(1), KnowledgeBaseId(2)
    promotions.use_thresholds(None, common, "for-all")
    promotions.use_thresholds(mine, own, "for-one")

    began = promotions.of(mine)
    assert (began.thresholds, began.names) == (own, {"calibration": "for-one"})
    assert promotions.of(other).names == {"calibration": "for-all"}
    promotions.use_thresholds(mine, None, "")
    assert promotions.of(mine).names == {"calibration": "for-all"}
    assert began.thresholds is own  # a turn ends as it began
    promotions.use_thresholds(None, None, "")
    assert promotions.of(mine) == BaseModels()


def test_thresholds_for_a_laxer_rate_than_staff_tolerate_now_do_not_lower_the_shipped_one():
    lax = BaseModels(thresholds=Thresholds(0.2, 0.1, 0.3, Certificate(None, 0)))

    assert lax.answer_from(0.6, 0.2, "en") == 0.3
    assert lax.answer_from(0.6, 0.05, "en") == 0.6
    assert BaseModels().answer_from(0.6, 0.05, "en") == 0.6


def test_a_version_suits_the_encoder_that_it_was_made_on():
    version = ModelVersion(1, "v", ModelKind.INTENTS, {}, "unknown", settings={"encoder": "e5"})

    assert suits(version, "e5")
    assert not suits(version, "e5+1234")
    assert suits(ModelVersion(1, "v", ModelKind.INTENTS, {}, "unknown"), "anything")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 rubbish"])
def test_a_head_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "intents.npz").write_bytes(content)

    with pytest.raises(ConfigurationError, match="holds no intent head"):
        read_head(tmp_path)


def test_thresholds_that_cannot_be_read_are_named(tmp_path: Path):
    (tmp_path / "thresholds.json").write_text("[]", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="holds no thresholds"):
        read_thresholds(tmp_path)


class Encoder:
    dimensions = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return np.ones((len(texts), 1), np.float32)

    encode_passages = encode_queries


class Generator:
    name = "replies"
    is_closed = False

    def generate(self, prompts: Sequence[Any], max_new_tokens: int) -> list[Any]:
        return []

    def close(self) -> None:
        self.is_closed = True


async def test_a_new_encoder_runs_beside_the_reply_model_that_is_loaded():
    generator = Generator()
    old = Engine(Encoder("old"), generator).start()  # type: ignore[arg-type]
    new = Pair(Engine(Encoder("new")).start(), replying_part(old))

    release(old, [new])

    assert (new.encoder.name, new.generator) == ("new", generator)
    assert not generator.is_closed
    assert isinstance(old.encoder, NoEncoder)  # its memory is free
    assert (await new.encode(["hello"])).shape == (1, 1)
    release(new, [])
    assert generator.is_closed


async def test_a_new_reply_model_runs_beside_the_encoder_that_is_loaded():
    old_generator, generator = Generator(), Generator()
    old = Engine(Encoder("e5"), old_generator).start()  # type: ignore[arg-type]
    replying = Engine(NoEncoder(), generator).start()  # type: ignore[arg-type]
    new = Pair(encoding_part(old), replying)

    release(old, [new])

    assert old_generator.is_closed
    assert (await new.encode(["hello"])).shape == (1, 1)
    assert not generator.is_closed
    release(new, [])
    assert generator.is_closed
