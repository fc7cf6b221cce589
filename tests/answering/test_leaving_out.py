"""Abstaining where the entry was taken away, and comparing ways to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from answering.verifier import SIGNS, Combination, Judge
from cli.commands.eval.asking import variants_of
from core.errors import InvalidInput
from core.settings import Settings
from core.types import (
    Choice,
    Citation,
    Decision,
    FaqEntry,
    Passage,
    Reply,
    ReplyStyle,
    Tier,
    Trace,
)
from training.evaluation import comparing, generation_scores, labelled_base, leaving_out
from training.evaluation.replies import Case, Result, made_rows
from training.evaluation.scores import Support

ENTRIES = [
    FaqEntry(name, f"What about {name}?", f"We have {name}.", locale=locale)
    for name, locale in (
        ("shipping", "en"), ("shipping-zh", "zh"), ("returns", "en"), ("gifts", "en"),
        ("stores", "en"),
    )
]  # fmt: skip


def asked(name: str, *relevant: str, **more: object) -> Case:
    case = Case(name, f"{name}?", (), frozenset(relevant), "", bool(relevant), None)
    return replace(case, **more)  # pyright: ignore[reportArgumentType]


def said(
    case: Case, decision: Decision, chance: float, *, entry: int = 0, text: str | None = None
) -> Result:
    found = (Passage(ENTRIES[entry], 0.5, chance),)
    cited = (Citation(ENTRIES[entry].id, ""),) if decision is Decision.ANSWER else ()
    answer = ENTRIES[entry].answer if text is None else text
    reply = Reply(
        Choice(decision, "a test", found), answer, Tier.APPROVED, "en", citations=cited,
        trace=Trace((), found, signals={"seeking": 0.9 if case.answerable else 0.1}),
    )  # fmt: skip
    return Result(case, reply, 0.1)


CASES = [asked("a", "shipping"), asked("b", "returns"), asked("c", "gifts"), asked("d", "stores")]


def test_each_question_is_asked_once_without_the_entries_that_answer_it():
    made = leaving_out.folds(ENTRIES, [*CASES, asked("hello")], 0.5)
    unanswerable = [case for fold in made for case in fold.cases]
    assert sorted(case.id for case in unanswerable) == [f"{c.id} (left out)" for c in CASES]
    assert all(case.answerable is False and not case.relevant for case in unanswerable)
    removed = {key for fold in made for key in fold.removed}
    assert removed == {entry.id for entry in ENTRIES}
    answers = {case.id + leaving_out.MARK: case.relevant for case in CASES}
    assert all(answers[case.id] <= fold.removed for fold in made for case in fold.cases)


def test_an_entry_is_taken_away_with_its_translation():
    made = [fold for seed in range(8) for fold in leaving_out.folds(ENTRIES, CASES, 0.25, seed)]
    for fold in made:
        assert ("shipping" in fold.removed) == ("shipping-zh" in fold.removed)


def test_questions_that_name_no_entry_of_the_base_cannot_be_left_out():
    with pytest.raises(InvalidInput, match="could be left out"):
        leaving_out.folds(ENTRIES, [asked("a", "nowhere"), asked("hello")], 0.2)


def unanswered() -> list[Result]:
    gone = [replace(c, id=c.id + leaving_out.MARK, relevant=frozenset()) for c in CASES]
    decided = (Decision.HAND_OFF, Decision.REFUSE, Decision.CLARIFY, Decision.ANSWER)
    chances = (0.1, 0.2, 0.3, 0.8)
    return [said(*each) for each in zip(gone, decided, chances, strict=True)]


def test_abstaining_and_answering_are_counted_on_either_side():
    present = [
        said(CASES[0], Decision.ANSWER, 0.9),
        said(CASES[1], Decision.ANSWER, 0.9),  # from the wrong entry
        said(CASES[2], Decision.CLARIFY, 0.5),
        said(CASES[3], Decision.HAND_OFF, 0.2),
        said(asked("hello"), Decision.SMALL_TALK, 0.0),
    ]
    figures = leaving_out.figures(present, unanswered())
    assert figures["left_out_abstained"] == 0.5
    assert figures["left_out_answered"] == 0.25
    assert figures["present_answered"] == 0.5
    assert figures["present_answered_right"] == 0.25
    assert figures["present_n"] == 4
    assert figures["left_out_at_90"] == 0.5  # only those above 0.8, the surest of the unanswerable


def test_the_curve_falls_from_silence_to_answering_everything():
    present = [said(case, Decision.ANSWER, 0.5) for case in CASES]
    points = leaving_out.curve(present, unanswered())
    assert [point["abstained"] for point in points] == sorted(
        (point["abstained"] for point in points), reverse=True
    )
    assert points[-1]["answered"] == 1.0
    assert points[-1]["abstained"] == 0.0
    assert points[-1]["right"] == 0.25


def test_what_ranks_the_answerable_first_scores_one_and_chance_a_half():
    assert leaving_out.auroc([0.8, 0.9], [0.1, 0.2]) == 1.0
    assert leaving_out.auroc([0.5], [0.5]) == 0.5


def test_the_tracks_figures_are_lowered_by_questions_missed_and_by_false_alarms():
    good = said(replace(CASES[0], reference="We have shipping."), Decision.ANSWER, 0.9)
    missed = said(CASES[1], Decision.HAND_OFF, 0.1)
    missed = replace(missed, reply=replace(missed.reply, trace=Trace((), (), signals={})))
    alarm = said(asked("hello", answerable=False), Decision.ANSWER, 0.9)
    alarm = replace(
        alarm, reply=replace(alarm.reply, trace=replace(alarm.reply.trace, signals={"seeking": 1}))
    )
    alone = generation_scores.dstc10([good])
    assert alone["dstc10_bleu_4"] == 0.0  # three words have no four in a row
    assert alone["dstc10_rouge_l"] == alone["dstc10_recall@1"] == 1.0
    # One of two questions found, one of two alarms true: precision and recall are 1/2.
    assert generation_scores.dstc10([good, missed, alarm])["dstc10_rouge_l"] == pytest.approx(0.5)


def test_each_way_of_wording_has_its_share_and_its_errors():
    right = said(CASES[0], Decision.ANSWER, 0.9)
    wrong = said(CASES[0], Decision.ANSWER, 0.9, text="We have 7 ships.")
    by_id = {entry.id: entry for entry in ENTRIES}
    generated = replace(wrong, reply=replace(wrong.reply, tier=Tier.GENERATED))
    rows = generation_scores.tiers([right, right, generated], by_id)
    assert [(row["tier"], row["n"], row["error"]) for row in rows] == [
        ("approved", 2, 0.0),
        ("generated", 1, 1.0),
    ]


async def test_the_verifier_judges_what_a_model_wrote():
    """A scorer that is sure: it says of every pair that the passage denies the sentence."""

    async def denies(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.asarray([[-9.0, 9.0, -9.0]] * len(pairs), np.float32)

    ones = np.ones(len(SIGNS))
    trusting_nothing = Combination(ones, ones, ones, bias=-99.0, support_from=0.5)
    quoted = said(CASES[0], Decision.ANSWER, 0.9)
    written = said(CASES[0], Decision.ANSWER, 0.9, text="We have no shipping at all.")
    written = replace(written, reply=replace(written.reply, tier=Tier.GENERATED))
    found = await generation_scores.judged(
        [quoted, written], ENTRIES, lambda: Judge(denies, trusting_nothing)
    )
    assert [result.verdict for result in found] == [None, Support.CONTRADICTED]
    assert generation_scores.figures(found, ENTRIES)["verifier_contradicted"] == 0.5


def results(decisions: Sequence[Decision]) -> list[Result]:
    case = asked("a", "shipping")
    return [said(case, decision, 0.5) for decision in decisions]


def test_a_real_difference_is_told_from_chance():
    none, all_of_them = [Decision.HAND_OFF] * 40, [Decision.ANSWER] * 40
    few = [Decision.ANSWER, *none[1:]]
    gains = {d.figure: d for d in comparing.compare(results(none), results(all_of_them), ENTRIES)}
    assert gains["answered_right"].difference == 1.0
    assert gains["answered_right"].p < 0.01
    assert gains["answered_right"].low > 0
    small = {d.figure: d for d in comparing.compare(results(none), results(few), ENTRIES)}
    assert small["answered_right"].p > 0.05
    assert small["answered_right"].low <= 0


def test_every_combination_of_options_is_a_variant_named_by_what_differs():
    made = variants_of(
        Settings(),
        {"reply_model": ["none"], "reply_style": [ReplyStyle.VERBATIM, ReplyStyle.ADAPTIVE]},
    )
    assert [variant.name for variant in made] == ["reply_style=verbatim", "reply_style=adaptive"]
    assert {variant.settings.reply_model for variant in made} == {"none"}
    assert [variant.name for variant in variants_of(Settings(), {"adapter": ()})] == ["as set"]
    with pytest.raises(InvalidInput, match="9 variants"):
        variants_of(Settings(), {"adapter": [str(number) for number in range(9)]})


def test_labels_become_entries_and_some_of_them_are_missing(tmp_path: Path):
    place = tmp_path / "T.csv"
    rows = [f"text {number} of {name},{name}" for name in "abcd" for number in range(6)]
    place.write_text("\n".join(["text,category", *rows, "what is up,oos"]) + "\n")
    read = labelled_base.read([place])
    entries, cases = labelled_base.base_of(read, wordings=2, missing=0.25, most=100)
    assert len(entries) == 3
    assert all(len(entry.alternates) == 1 for entry in entries)
    # Four questions on each of three entries; six of the missing label and one out of scope.
    assert [case.answerable for case in cases].count(True) == 12
    assert [case.answerable for case in cases].count(False) == 7
    worded = {text for entry in entries for text in (entry.question, *entry.alternates)}
    assert not worded & {case.message for case in cases}


def test_a_line_without_a_label_is_named(tmp_path: Path):
    place = tmp_path / "T.csv"
    place.write_text("text,label\nhello,greeting\nhm,\n")
    with pytest.raises(InvalidInput, match=r"T\.csv line 3"):
        labelled_base.read([place])


def test_conversations_made_by_rule_say_whether_an_entry_answers():
    places = [FaqEntry(f"{name}/wifi", "Is there wifi?", "Yes.", entity=name)
              for name in ("Alder House", "Birch Inn")]  # fmt: skip
    rows = made_rows(places, 40, "none")
    assert all(row["answerable"] == bool(row["relevant"]) for row in rows)
    assert {row["answerable"] for row in rows} == {True, False}
