"""The check of a generated reply: what is not supported is not said."""

from __future__ import annotations

import pytest

from answering.grounding import check, facts, split_sentences
from core.types import FaqEntry

SHIPPING = FaqEntry(
    "shipping",
    "How much is shipping to Germany?",
    "Standard shipping to Germany costs €4.95 and takes 2 to 3 working days. "
    "It is free for orders of €80 or more.",
)
HERON = FaqEntry(
    "heron",
    "Is the Heron backpack waterproof?",
    "No, the Heron is water-resistant, which is enough for light rain. "
    "For heavy rain use the rain cover.",
    entity="Heron",
)
CANCEL = FaqEntry(
    "cancel",
    "Can I cancel my order?",
    "Yes, within 2 hours of ordering, under **My orders**. Later than that we cannot stop the "
    "parcel, but you can send it back within 45 days.",
)
RETURN = FaqEntry(
    "return",
    "How do I return an item?",
    "Open **My orders**, select *Return items* and print the label, or write to "
    "[help@shop.example](mailto:help@shop.example).",
)
OTTER = FaqEntry(
    "otter",
    "Which colours and sizes does the Otter come in?",
    "The Otter comes in 500 ml and 1 litre, in sand and ocean blue.",
)
CRYPTO = FaqEntry(
    "crypto",
    "Can I pay in cash, by bank transfer or with crypto?",
    "No. We do not accept cash, bank transfer or crypto such as Bitcoin.",
)


STORE = FaqEntry(
    "store",
    "When is the store open?",
    "Our store is open on Saturday from 10:00 and on Sunday from 12:00.",
)


BOTH = FaqEntry("both", "How much is shipping?", "Shipping to Germany and Luxembourg costs €4.95.")


def checked(reply: str, entry: FaqEntry, said: str = "how long does it take?", **more: bool) -> str:
    return check(reply, [entry], [said], language="en", **more).text


@pytest.mark.parametrize(
    ("reply", "entry", "said"),
    [
        ("Shipping to Germany takes 2 to 3 working days.", SHIPPING, "how long to germany"),
        ("It costs €4.95 and is free from €80.", SHIPPING, "how much to germany"),
        ("No, the Heron is water-resistant only.", HERON, "is it waterproof?"),
        ("Yes, within 2 hours of ordering, under My orders.", CANCEL, "can i still cancel?"),
        ("Open My orders and select Return items.", RETURN, "how do i send it back"),
    ],
)
def test_what_the_entry_says_is_said(reply: str, entry: FaqEntry, said: str):
    assert checked(reply, entry, said) == reply


@pytest.mark.parametrize(
    ("reply", "entry", "said"),
    [
        ("Shipping takes 5 working days.", SHIPPING, "how long"),
        ("Shipping takes 2 to 3 weeks.", SHIPPING, "how long"),
        ("Shipping to Germany takes two to four working days.", SHIPPING, "how long"),
        ("It costs €5.95 to Germany.", SHIPPING, "how much"),
        ("See https://other.example/shipping for shipping to Germany.", SHIPPING, "how much"),
        ("Write to sales@other.example about shipping to Germany.", SHIPPING, "how much"),
        ("Shipping to Germany with DHL costs €4.95.", SHIPPING, "how much"),
        ("Shipping to Germany on Monday costs €4.95.", SHIPPING, "how much"),
        ("Use code SAVE20 for shipping to Germany.", SHIPPING, "how much"),
        ("Yes, the Heron is waterproof.", HERON, "is it waterproof?"),
        ("The Heron is enough for heavy rain.", HERON, "is it enough for heavy rain?"),
        ("No, you cannot cancel your order.", CANCEL, "can i cancel?"),
        ("No, shipping to Germany is not free.", SHIPPING, "is it free?"),
        ("I have cancelled your order.", CANCEL, "cancel my order"),
        ("I'll send your order back within 45 days.", CANCEL, "cancel my order"),
        ("Our sources say shipping to Germany costs €4.95.", SHIPPING, "how much"),
        ("Der Versand nach Deutschland dauert etwas länger als sonst.", SHIPPING, "how long"),
        ("You can return it at any time for a full bonus voucher.", RETURN, "how do i return it"),
        ("You can return the item.", RETURN, "how do i return it"),
        ("After 2 hours you can cancel within 2 hours.", CANCEL, "can i cancel"),
        ("Yes, shipping to Germany takes 2 to 3 working days.", SHIPPING, "my parcel is late"),
        ("Our store is open on Saturday from 10:00.", STORE, "when do you open on sunday"),
        ("Shipping to Germany costs €4.95.", BOTH, "I live in luxembourg, how much is it"),
        ("Yes, the Otter comes in 500 ml.", OTTER, "do you have the otter in blue?"),
        ("No, you can pay with bitcoin.", CRYPTO, "Can I pay with bitcoin?"),
        ("Yes, you cannot pay with bitcoin.", CRYPTO, "Can I pay with bitcoin?"),
        ("", SHIPPING, "how much"),
        ("Shipping to Germany takes 2 to", SHIPPING, "how long"),
    ],
)  # fmt: skip
def test_what_the_entry_does_not_say_is_not_said(reply: str, entry: FaqEntry, said: str):
    assert checked(reply, entry, said) == ""


def test_a_sentence_that_is_not_supported_goes_and_the_rest_stays():
    result = check(
        "Shipping to Germany takes 2 to 3 working days. Would you like to order now?",
        [SHIPPING], ["how long to germany"], language="en",
    )  # fmt: skip
    assert result.text == "Shipping to Germany takes 2 to 3 working days."
    assert result.failures == ("offers what no entry says",)


def test_a_reply_that_was_cut_off_loses_its_last_sentence():
    reply = "Shipping to Germany takes 2 to 3 working days. It is free for orders"
    assert checked(reply, SHIPPING, finished=False) == (
        "Shipping to Germany takes 2 to 3 working days."
    )


def test_a_name_from_earlier_does_not_lend_itself_to_another_entry():
    pike = FaqEntry("pike", "How long is the warranty on the Pike?", "The Pike has 10 years.")
    said = ["how long is the warranty on the Heron?", "and the frying pan?"]
    assert check("The Heron has 10 years.", [pike], said, language="en").text == ""


def test_the_customers_own_number_may_be_repeated():
    reply = "An order of €90 to Germany is free, as it is free from €80."
    assert checked(reply, SHIPPING, "I spend €90, is shipping to Germany free?") == reply


def test_a_yes_or_no_to_a_question_that_is_turned_round_is_left_to_the_entry():
    assert checked("Yes, within 2 hours of ordering.", CANCEL, "so I can't cancel?") == ""


def test_facts_are_numbers_links_addresses_codes_and_days():
    assert facts("On Monday, 2.50 or 1,000 at https://a.example/x, b@c.example, BF-12") >= {
        "monday", "2.50", "1000", "https://a.example/x", "b@c.example", "bf-12",
    }  # fmt: skip
    assert facts("twenty days") == facts("20 days")


def test_sentences_end_at_points_and_lines_not_within_numbers():
    assert split_sentences("It costs 4.95 euros. It is free.\n- Yes") == [
        "It costs 4.95 euros.", "It is free.", "- Yes",
    ]  # fmt: skip


def test_a_part_that_no_entry_answers_is_not_guessed():
    pets = FaqEntry("pets", "Are pets allowed?", "Pets are not allowed at the Avalon.")
    asked = "Are pets allowed and do you have a gym?"

    assert not checked("No, pets are not allowed, and it does not have a gym.", pets, asked)
    assert checked("No, pets are not allowed. I have no information about a gym.", pets, asked) == (
        "No, pets are not allowed. I have no information about a gym."
    )


def test_what_an_entry_says_is_not_denied_to_be_known():
    parking = FaqEntry("parking", "Is there parking?", "Yes, there is parking behind the house.")
    cards = FaqEntry("cards", "How can I pay?", "Credit cards are accepted.")

    text = check(
        "Credit cards are accepted. I have no information about parking.",
        [cards, parking],
        ["How can I pay and is there parking?"],
        language="en",
    ).text

    assert "no information" not in text


def test_a_yes_or_no_is_compared_with_the_entry_that_its_clause_is_about():
    cards = FaqEntry("e", "Which cards do you take?", "Credit cards are accepted at the Slug.")
    alcohol = FaqEntry("e", "Do you serve alcohol?", "The Slug does not serve alcohol.")
    asked = "Do you serve alcohol and also which cards do you take?"
    reply = "No, the Slug does not serve alcohol, and credit cards are accepted."

    assert check(reply, [cards, alcohol], [asked], language="en").text == reply


def test_a_clause_that_turns_the_second_entry_round_is_refused():
    pool = FaqEntry("e", "Is there a pool?", "The Lodge does not have a pool.")
    pets = FaqEntry("e", "Are pets allowed?", "Pets are not allowed at the Lodge.")
    asked = "Is there a pool and are pets allowed?"
    reply = "No, the Lodge does not have a pool, and pets are allowed."

    refused = check(reply, [pool, pets], [asked], language="en")

    assert refused.failures == ("turns round what a second entry says",)


def test_to_say_what_is_missing_does_not_make_a_reply_too_long():
    pool = FaqEntry("e", "Is there a pool?", "There is no pool.")
    reply = "No, there is no pool here at all. I have no information about live music in the bar."

    said = check(reply, [pool], ["Is there a pool, and live music in the bar?"], language="en")

    assert said.failures == ()


def test_a_true_sentence_that_does_not_tell_what_was_asked_is_refused():
    shipping = FaqEntry(
        "shipping",
        "How much is shipping to Germany?",
        "It costs €4.95 and takes 2 to 3 working days.",
    )

    refused = check("It costs €4.95.", [shipping], ["how many days to Germany"], language="en")
    told = check("It takes 2 to 3 working days.", [shipping], ["how many days"], language="en")

    assert refused.failures == ("passes over what was asked: how long",)
    assert told.failures == ()


def test_what_the_entrys_own_sentence_holds_is_not_said_twice():
    shipping = FaqEntry(
        "shipping", "How much is shipping to France?",
        "Standard shipping to France costs €7.95 and takes 3 to 5 working days.",
    )  # fmt: skip
    reply = "Standard shipping to France costs €7.95. Shipping to France takes 4 working days."

    text = check(reply, [shipping], ["shipping to France?"], language="en").text

    assert text == "Standard shipping to France costs €7.95 and takes 3 to 5 working days."
