"""What a verifier is trained, fitted and measured on: cases by rule, cases from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering.grounding import Label
from answering.verifier import SIGNS, Combination, Source
from core.errors import InvalidInput
from retrieval.encoders.protocol import Scores
from training import verifier as material
from training.evaluation import verifier as evaluation
from training.verifier import Case

BEGIN = "model_name\tdata_source\tknowledge\tmessage\tresponse\tbegin_label\n"


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


@pytest.fixture
def dstc9(tmp_path: Path) -> Path:
    names = ["Gonville", "Arbury", "Acorn", "Worth"]
    kb = [
        {"id": f"hotel/{n}/{k}", "entity": name.upper(), "question": question, "answer": answer}
        for n, name in enumerate(names)
        for k, (question, answer) in enumerate([
            ("Is there parking?", f"The {name} offers parking for 2 cars."
             if n % 2 else f"The {name} does not offer parking."),
            ("When is check-out?", "Guests must leave before 11:00 am."),
        ])
    ]  # fmt: skip

    def pair(entry: dict[str, Any]) -> dict[str, Any]:
        return {"id": entry["id"], "entity": entry["entity"], "faq_question": entry["question"],
                "faq_answer": entry["answer"],
                "response": f"{entry['answer']} Anything else?"}  # fmt: skip

    lines(tmp_path / "kb.jsonl", kb)
    lines(tmp_path / "train.jsonl", [pair(e) for e in kb if not e["id"].startswith("hotel/3")])
    lines(tmp_path / "val_unseen.jsonl", [pair(e) for e in kb if e["id"].startswith("hotel/3")])
    return tmp_path


def test_cases_to_train_on_hold_nothing_of_the_entries_apart(dstc9: Path):
    training = material.dstc9_cases(dstc9, "train")
    apart = material.dstc9_cases(dstc9, "val_unseen")

    assert {case.group for case in training}.isdisjoint(case.group for case in apart)
    assert not [c for c in training for s in c.sources if "Worth" in s.text]


def test_cases_are_of_every_class_and_many_kinds(dstc9: Path):
    cases = material.dstc9_cases(dstc9, "train")

    assert {case.label for case in cases} == set(Label)
    assert {case.kind for case in cases} >= {
        "reply", "entry", "turned", "polarity", "number", "unit", "antonym", "other", "addition",
    }  # fmt: skip


def test_a_reply_loses_the_closing_question_that_no_entry_supports(dstc9: Path):
    replies = [c.reply for c in material.dstc9_cases(dstc9, "train") if c.kind == "reply"]

    assert replies
    assert not [reply for reply in replies if "Anything else" in reply]


def test_a_turned_source_supports_the_turned_sentence_alone(dstc9: Path):
    cases = material.dstc9_cases(dstc9, "train")
    turned = [case for case in cases if case.kind == "turned"]

    assert all(case.label is Label.SUPPORTED for case in turned)
    against = {case.sources: case.reply for case in cases if case.label is Label.CONTRADICTED}
    assert all(against.get(case.sources) not in (None, case.reply) for case in turned)


def test_begin_is_read_and_its_generic_replies_are_unsupported(tmp_path: Path):
    place = tmp_path / "begin_test_wow.tsv"
    place.write_text(
        BEGIN + 't5\twow\tCats "sleep" a lot.\thi\tcats sleep\tFully attributable\n'
        "t5\twow\tCats sleep a lot.\thi\thaha\tGeneric\n"
    )

    (cases,) = material.begin_files(place).values()

    assert [case.label for case in cases] == [Label.SUPPORTED, Label.UNSUPPORTED]
    assert cases[0].sources == (Source("", 'Cats "sleep" a lot.'),)


def test_what_is_no_file_of_begin_is_named(tmp_path: Path):
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n")

    with pytest.raises(InvalidInput, match="no file of BEGIN"):
        material.begin_files(tmp_path / "x.tsv")
    with pytest.raises(InvalidInput, match="none of BEGIN's files"):
        material.begin_files(tmp_path)


def test_cases_of_a_file_have_one_passage_or_several(tmp_path: Path):
    lines(tmp_path / "c.jsonl", [
        {"passage": "It is free.", "reply": "It is free.", "label": "supported"},
        {"passages": [{"question": "Free?", "answer": "**Yes**."}, "Open."], "reply": "No.",
         "label": "contradicted", "kind": "polarity"},
    ])  # fmt: skip

    one, two = material.read_cases(tmp_path / "c.jsonl")

    assert one.sources == (Source("", "It is free."),)
    assert two.sources == (Source("Free?", "Yes."), Source("", "Open."))
    assert (two.label, two.kind) == (Label.CONTRADICTED, "polarity")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"passage": "a", "reply": "b", "label": "true"}', '{"passage": "a"}']
)
def test_a_case_that_cannot_be_read_is_named_by_its_line(tmp_path: Path, line: str):
    good = json.dumps({"passage": "a", "reply": "a", "label": "supported"})
    (tmp_path / "c.jsonl").write_text(f"{good}\n{line}\n")

    with pytest.raises(InvalidInput, match="line 2"):
        material.read_cases(tmp_path / "c.jsonl")


class Knows:
    """Scores a sentence with "wrong" in it as contradicted."""

    name = "knows"
    classes = ("supported", "contradicted", "unsupported")

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        return np.array([(-3, 3, 0) if "wrong" in b else (3, -3, 0) for _, b in pairs], np.float32)


CHANCES = Combination(
    np.eye(len(SIGNS))[0], np.zeros(len(SIGNS)), np.ones(len(SIGNS)), 0.0, 0.5
)  # fmt: skip


def test_one_wrong_sentence_makes_a_reply_wrong():
    source = (Source("", "It is right."),)
    cases = [
        Case(source, "It is right. It is wrong.", Label.CONTRADICTED, "made"),
        Case(source, "It is right.", Label.SUPPORTED, "reply"),
        Case(source, "It is lovely.", Label.UNSUPPORTED, "made"),
    ]

    figures = evaluation.report(cases, Knows(), CHANCES)

    assert figures["balanced accuracy"] == pytest.approx(0.75)
    assert figures["not supported: recall"] == pytest.approx(0.5)
    assert figures["by class"]["contradicted"] == {"precision": 1.0, "recall": 1.0}
    assert figures["by kind"]["not: made"] == {"cases": 2, "right": 0.5, "balanced": 0.75}


def test_a_fitted_combination_tells_what_the_scorer_knows():
    source = (Source("", "It is right."),)
    cases = [Case(source, "It is wrong." if n % 2 else "It is right.",
                  Label.CONTRADICTED if n % 2 else Label.SUPPORTED, group=str(n))
             for n in range(40)]  # fmt: skip
    rows, owners, _ = material.features(cases, Knows())

    fitted = material.fit(rows, owners, cases, {"made": 1.0})

    assert evaluation.report(cases, Knows(), fitted)["balanced accuracy"] == 1.0
