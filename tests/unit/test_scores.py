"""Measures of wording: values worked out by hand, and what a rough check marks."""

from __future__ import annotations

import pytest

from training.evaluation import scores
from training.evaluation.scores import Support


def test_words_are_those_of_the_tracks_scorer():
    assert scores.words("The café's a 10-minute walk!") == ["café", "s", "10", "minute", "walk"]
    assert scores.words("可以退货。") == ["可", "以", "退", "货"]


def test_bleu_is_zero_where_no_run_of_words_is_shared():
    assert scores.bleu("a cat sat", "the cat sat", 2) == 1.0
    assert scores.bleu("cat one two", "two one cat", 2) == 0.0
    assert scores.bleu("", "cat") == 0.0


def test_a_short_reply_pays_for_its_brevity():
    # Papineni et al.: exp(1 - reference / reply), all of its words being right.
    assert scores.bleu("cat sat", "cat sat on mats", 1) == pytest.approx(0.36788, abs=1e-5)


def test_rouge_counts_each_word_as_often_as_it_stands():
    assert scores.rouge_n("cat cat", "cat sat") == 0.5
    assert scores.rouge_n("cat sat on", "cat sat down", 2) == 0.5
    assert scores.rouge_l("Yes, within 30 days.", "yes within 30 days") == 1.0
    assert scores.rouge_l("可以退货", "可以换货") == pytest.approx(0.75)
    assert scores.rouge_l("", "x") == 0.0
    assert scores.token_f1("x b", "b c") == 0.5


def test_meteor_matches_stems_and_wants_them_in_one_piece():
    whole = scores.meteor("parking costs extra", "parking costs extra")
    assert whole == pytest.approx(1 - 0.5 * (1 / 3) ** 3)  # one chunk of three
    assert scores.meteor("parked cars cost", "parking car costs") == pytest.approx(whole)
    apart = scores.meteor("extra costs parking", "parking costs extra")
    assert apart == pytest.approx(1 - 0.5)  # three chunks
    assert scores.meteor("yes", "no") == 0.0


def test_precision_is_the_share_of_words_that_stand_in_the_passage():
    assert scores.knowledge_precision("Open until nine or ten", "We are open until nine.") == 0.6
    assert scores.knowledge_precision("", "anything") == 0.0


PASSAGE = "No, pets are not allowed at this property. Parking costs 12 euros a night."


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("No, pets are not allowed.", Support.SUPPORTED),
        ("Parking is 12 euros a night.", Support.SUPPORTED),
        ("Parking is 15 euros a night.", Support.UNSUPPORTED),
        ("Breakfast is served in the garden.", Support.UNSUPPORTED),
        ("Yes, pets are allowed.", Support.CONTRADICTED),
        ("Pets are allowed at this property.", Support.CONTRADICTED),
        ("Shall I book a table?", Support.SUPPORTED),
    ],
)
def test_a_reply_is_held_against_what_it_cites(reply: str, found: Support):
    assert scores.reply_support(reply, PASSAGE) is found


def test_a_reply_may_repeat_the_customers_own_words():
    said = "Is room 404 free of pets?"
    assert scores.support("For room 404, pets are not allowed.", PASSAGE, said) is Support.SUPPORTED
    assert scores.support("For room 404, pets are not allowed.", PASSAGE) is Support.UNSUPPORTED
