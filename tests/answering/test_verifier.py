"""The verifier's verdict: what is read, how signs weigh, what becomes of a refuted sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from answering import grounding, verifier
from answering.grounding import Judgement, Label
from answering.verifier import Combination, Judge, Source
from core.errors import ConfigurationError, Unavailable
from core.types import FaqEntry
from retrieval.encoders.protocol import Scores

PARKING = FaqEntry(
    "parking",
    "Is there parking?",
    "Yes, parking behind the house is free. Bicycles can be locked in the yard.",
)
SUPPORTED = (4.0, -2.0, -2.0)
CONTRADICTED = (-2.0, 4.0, -2.0)
WEIGHS_CHANCES = Combination(
    np.array([1.0] + [0.0] * (len(verifier.SIGNS) - 1)),
    np.zeros(len(verifier.SIGNS)), np.ones(len(verifier.SIGNS)), 0.0, 0.5,
)  # fmt: skip


class Scorer:
    """Answers with given logits, and remembers what it was asked."""

    def __init__(self, **logits: tuple[float, float, float]) -> None:
        self.logits = logits
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        self.asked += pairs
        rows = [next((v for k, v in self.logits.items() if k in b), SUPPORTED) for _, b in pairs]
        return np.array(rows, np.float32)


def test_only_the_near_part_of_a_long_passage_is_read():
    filler = " ".join(f"Room {n} has a view over the garden." for n in range(40))
    sources = [Source("Breakfast?", f"{filler} Breakfast is served until ten. {filler}")]

    read = verifier.evidence("Breakfast is until ten.", sources)

    assert "Breakfast is served until ten." in read
    assert len(read) <= verifier.EVIDENCE_CHARACTERS + len("Breakfast? ")


async def test_what_stands_literally_in_the_entry_is_not_judged():
    scorer = Scorer()
    judge = Judge(scorer, WEIGHS_CHANCES)

    found = await judge.verdicts("Parking behind the house is free.", [PARKING])

    assert not found
    assert not scorer.asked


async def test_a_sentence_is_judged_once_as_the_reply_grows():
    scorer = Scorer(paid=CONTRADICTED)
    judge = Judge(scorer, WEIGHS_CHANCES)

    await judge.verdicts("You can park for free.", [PARKING])
    found = await judge.verdicts("You can park for free. Locking bicycles is paid.", [PARKING])

    assert [b for _, b in scorer.asked] == ["You can park for free.", "Locking bicycles is paid."]
    assert found["Locking bicycles is paid."].label is Label.CONTRADICTED
    assert found["You can park for free."].label is Label.SUPPORTED


async def test_without_a_verifier_there_are_no_verdicts():
    assert await Judge(None).verdicts("You can park for free.", [PARKING]) == {}


async def test_a_refusal_of_the_engine_is_not_taken_for_support():
    async def refuses(pairs: Sequence[tuple[str, str]]) -> Scores:
        raise Unavailable("the queue is full")

    with pytest.raises(Unavailable):
        await Judge(refuses, WEIGHS_CHANCES).verdicts("You can park for free.", [PARKING])


def check(reply: str, **verdicts: Label) -> grounding.Checked:
    found = {
        sentence: Judgement(label, 0.1)
        for sentence in grounding.split_sentences(reply)
        for word, label in verdicts.items()
        if word in sentence
    }
    return grounding.check(
        reply, [PARKING], ["is parking free?"], language="en", verdicts=found
    )  # fmt: skip


def test_a_first_sentence_that_is_refuted_takes_the_reply_with_it():
    refuted = check("Yes, parking is free behind the house.", parking=Label.CONTRADICTED)

    assert refuted.text == ""
    assert refuted.failures == ("contradicted by the entry",)
    assert check("Yes, parking is free behind the house.").text


def test_a_later_sentence_that_is_refuted_is_said_as_staff_wrote_it():
    checked = check(
        "Yes, parking is free. Bicycles can be in the house yard.", Bicycles=Label.UNSUPPORTED
    )

    assert checked.text == "Yes, parking is free. Bicycles can be locked in the yard."
    assert checked.failures == ("not supported by the entry",)


@pytest.mark.parametrize(
    "promise",
    [
        "I have cancelled your parking order.",
        "I will now send you a parking label by email.",
        "Let me look that up in the house for you.",
        "We will refund the parking within the house.",
        "I've updated your address to the yard.",
        "I am going to transfer you to parking.",
    ],
)
def test_an_action_that_nobody_took_is_never_said(promise: str):
    checked = check(f"Yes, parking is free. {promise}")

    assert promise not in checked.text
    assert "promises an action" in checked.failures


def test_exact_signs_weigh_beside_the_chances():
    source = [Source("", "It takes 3 days.")]
    rows = np.array([SUPPORTED], np.float32)

    right = verifier.signs("It takes 3 days.", source, rows[0])
    wrong = verifier.signs("It takes 5 days.", source, rows[0])

    missing = verifier.SIGNS.index("facts_missing")
    assert (right[missing], wrong[missing]) == (0.0, 1.0)


def test_a_combination_is_read_as_it_was_written(tmp_path: Path):
    import json

    (tmp_path / verifier.COMBINATION).write_text(json.dumps(WEIGHS_CHANCES.to_json()))

    again = verifier.read_combination(tmp_path)

    assert again.to_json() == WEIGHS_CHANCES.to_json()


def test_a_combination_of_other_signs_is_refused(tmp_path: Path):
    import json

    row = WEIGHS_CHANCES.to_json() | {"signs": ["supported"]}
    (tmp_path / verifier.COMBINATION).write_text(json.dumps(row))

    with pytest.raises(ConfigurationError, match="other signs"):
        verifier.read_combination(tmp_path)


def test_not_to_know_what_was_asked_may_be_said_and_nothing_else_may_hide_in_it():
    def said(reply: str) -> str:
        asked = ["is parking free, and is there a sauna?"]
        return grounding.check(reply, [PARKING], asked, language="en").text

    admitted = "Yes, parking is free. I have no information about a sauna."
    assert said(admitted) == admitted
    assert "balcony" not in said("Yes, parking is free. I have no information about a balcony.")
