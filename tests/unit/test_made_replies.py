from __future__ import annotations

import json
import random

import pytest

from training.evaluation.composed import Verdict, composed_cases, judge, tally
from training.replies.data import Cleaning, numbers
from training.replies.made.composing import Kind, against, compose_many, follow_up, together
from training.replies.made.composing import missing as leave_out
from training.replies.made.conditions import RULES, conditions
from training.replies.made.facets import FACETS, facet_of, facts, held_places
from training.replies.made.mixing import general_examples

SAID = {
    "Do you have wifi?": "Free WiFi is available at The Lodge {n}.",
    "Are pets allowed?": "No, pets are not allowed at The Lodge {n}.",
    "Is there a gym?": "The Lodge {n} does not have a gym.",
    "What time is check-in?": "Check-in is from 2 pm at The Lodge {n}.",
    "Do you serve breakfast?": "Yes, breakfast is served at The Lodge {n}.",
}
ROWS = [
    {"id": f"hotel/{n}/{at}", "entity": f"THE LODGE {n}", "question": question,
     "answer": answer.format(n=n)}
    for n in range(8)
    for at, (question, answer) in enumerate(SAID.items())
]  # fmt: skip
PLACE = facts(ROWS)["hotel/1"]
WIFI, PETS, GYM, CHECK_IN, BREAKFAST = PLACE


@pytest.fixture
def folder(tmp_path):
    written = [
        {"id": f"{row['id']}", "entity": row["entity"], "faq_question": row["question"],
         "faq_answer": row["answer"], "response": row["answer"]}
        for row in ROWS
    ]  # fmt: skip
    (tmp_path / "kb.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, written)), encoding="utf-8")
    return tmp_path


def test_an_entry_becomes_a_fact_with_its_yes_or_no():
    assert [(fact.facet.topic, fact.is_yes) for fact in PLACE] == [
        ("wifi", True),
        ("pets", False),
        ("a gym", False),
        ("check-in", None),
        ("breakfast", True),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        "Parking is available but costs extra.",
        "There is parking only for guests with a car.",
        "Yes, there is no parking.",
        "You can leave your car. Parking is next door.",
    ],
)
def test_an_entry_that_says_more_than_one_thing_is_no_fact(answer):
    row = {"id": "hotel/1/1", "entity": "THE LODGE", "question": "Is there parking?"}

    assert not facts([{**row, "answer": answer}])
    assert facts([{**row, "answer": "There is parking at The Lodge."}])


def test_each_question_about_a_facet_is_found_as_its_own():
    asked = [(facet, ask) for facet in FACETS for ask in facet.asks if facet.pattern.search(ask)]

    assert len(asked) > len(FACETS) / 2
    assert not [ask for facet, ask in asked if facet_of(ask) is not facet]


def test_a_joined_reply_names_the_place_once_and_turns_with_but():
    case = together(WIFI, PETS, random.Random(0))

    assert case.example.reply == (
        "Yes, free WiFi is available at The Lodge 1, but pets are not allowed."
    )
    assert {source.question for source in case.example.sources} == {
        "Do you have wifi?",
        "Are pets allowed?",
    }


def test_two_refusals_are_joined_with_and():
    case = together(PETS, GYM, random.Random(1))

    assert case.example.reply == (
        "No, pets are not allowed at The Lodge 1, and it does not have a gym."
    )


def test_a_follow_up_is_answered_from_its_own_entry():
    case = follow_up(WIFI, GYM, random.Random(0))

    assert [turn.author.value for turn in case.example.turns] == ["customer", "bot", "customer"]
    assert case.example.reply == "No, The Lodge 1 does not have a gym."


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_made_by_rule_is_judged_right_and_with_its_polarity_turned_wrong(kind):
    cases = compose_many(kind, facts(ROWS), 40, random.Random(0))

    assert cases
    for case in cases:
        reply = case.example.reply
        assert judge(case, reply) is Verdict.RIGHT, reply
        if case.leads is not None:
            turned = reply.replace("Yes, ", "No, ", 1) if case.leads else "Yes" + reply[2:]
            assert judge(case, turned) is Verdict.WRONG, turned


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Yes, there is free WiFi at The Lodge 1, but pets are not allowed.", Verdict.RIGHT),
        ("Free WiFi is available at The Lodge 1. Pets are not allowed.", Verdict.RIGHT),
        ("Yes, free WiFi is available at The Lodge 1.", Verdict.WRONG),
        ("Yes, free WiFi is available at The Lodge 1, and pets are allowed.", Verdict.WRONG),
        ("Yes, free WiFi is available, but pets and gym clothes, towels, saunas are not allowed.",
         Verdict.WRONG),
        ("Yes, free WiFi is available until 22:00, but pets are not allowed.", Verdict.WRONG),
        ("", Verdict.FALLEN_BACK),
    ],
)  # fmt: skip
def test_a_reply_to_two_entries_is_judged(reply, verdict):
    assert judge(together(WIFI, PETS, random.Random(0)), reply) is verdict


def test_a_number_that_is_left_out_is_wrong():
    case = together(WIFI, CHECK_IN, random.Random(0))

    assert judge(case, case.example.reply) is Verdict.RIGHT
    assert judge(case, case.example.reply.replace("2 pm", "the afternoon")) is Verdict.WRONG


def test_what_no_source_answers_must_be_said_and_not_be_guessed():
    case = leave_out(PETS, WIFI.facet, None, random.Random(0))

    assert case.example.reply.endswith("I have no information about wifi.")
    assert judge(case, "No, pets are not allowed at The Lodge 1.") is Verdict.WRONG
    assert judge(case, "No, pets are not allowed, but there is wifi.") is Verdict.WRONG


def test_a_check_that_leaves_nothing_counts_as_fallen_back():
    cases = [against(PETS, None, random.Random(0))]
    replies = [cases[0].example.reply]

    assert tally("", "", cases, replies).verdicts == {Verdict.RIGHT: 1}
    assert tally("", "", cases, replies, lambda *_: "").verdicts == {Verdict.FALLEN_BACK: 1}


def test_conditions_say_yes_exactly_where_the_figure_is_within_the_bound():
    rules = {rule.question: rule for rule in RULES}
    cases = conditions(200, random.Random(0), test=False)

    assert 0.4 < sum(case.is_met for case in cases) / len(cases) < 0.6
    for case in cases:
        rule = rules[case.example.sources[0].question]
        (bound,) = (b for b in rule.bounds if case.example.sources[0].answer
                    == rule.answer.format(b=b))  # fmt: skip
        asked = case.example.message.replace("HELLO15", "")
        figure = int(next(iter(numbers(asked))))
        assert (figure >= bound if rule.at_least else figure <= bound) is case.is_met
        assert case.example.reply.startswith("Yes" if case.is_met else "No")


def test_conditions_for_tests_and_for_training_share_no_entry():
    training = conditions(100, random.Random(0), test=False)
    tests = conditions(100, random.Random(0), test=True)

    assert not {case.example.entry_id for case in training} & {
        case.example.entry_id for case in tests
    }


def test_no_training_example_comes_from_a_place_of_the_tests(folder):
    examples = general_examples(folder, 60, Cleaning())
    tested = {
        case.wanted[0].place
        for title, cases in composed_cases(folder, 20).items()
        for case in cases
        if title in list(Kind)
    }

    assert tested == held_places(ROWS)
    assert not {example.entry_id.rsplit("/", 1)[0] for example in examples} & tested


def test_the_mix_is_the_same_for_the_same_seed_and_has_each_kind(folder):
    first, again = (general_examples(folder, 60, Cleaning(), seed=3) for _ in range(2))

    assert first == again
    said = " ".join(example.reply for example in first)
    assert "I have no information about" in said
    assert any(example.entry_id.startswith("condition/") for example in first)
    assert any(example.history for example in first)
