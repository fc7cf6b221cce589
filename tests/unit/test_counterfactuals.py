"""Counterfactuals made by rule: each says something else than the sentence that it came from."""

from __future__ import annotations

import random

import pytest

from training import counterfactuals as made


@pytest.mark.parametrize(
    ("sentence", "flipped"),
    [
        ("Pets are not allowed here.", "Pets are allowed here."),
        ("Yes, there are outdoor seats.", "No, there are not outdoor seats."),
        ("The Nirala offers halal options.", "The Nirala does not offer halal options."),
        ("It doesn't have any lifts.", "It has some lifts."),
        ("You can park your car.", "You cannot park your car."),
        ("There is no charge.", "There is charge."),
        ("No smoking is allowed.", "Smoking is allowed."),
    ],
)
def test_a_sentence_is_turned_to_its_opposite(sentence: str, flipped: str):
    assert made.flip(sentence) == flipped


def test_what_holds_no_verb_that_can_be_turned_is_left_alone():
    assert made.flip("Opening hours") is None


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("number", "It takes 3 days."),
        ("number", "Breakfast begins at 7:30."),
        ("day", "We are open on Monday."),
        ("unit", "It takes 3 days."),
        ("unit", "It costs €4."),
        ("antonym", "Parking is free of charge."),
    ],
)
def test_a_changed_sentence_is_another_one(kind: str, sentence: str):
    for seed in range(20):
        changed = made.CONTRADICTING[kind](sentence, random.Random(seed))
        assert changed is not None
        assert changed != sentence


def test_where_there_is_no_number_none_is_changed():
    assert made.other_number("It is open.", random.Random(0)) is None


def test_an_entity_is_swapped_with_its_article():
    assert made.entity("The Gonville has a bar.", "gonville", "Arbury") == "Arbury has a bar."
