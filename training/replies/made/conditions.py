"""Questions that a condition decides: the customer's figure is within the entry's or it is not.

A small model repeats an entry and says yes; what it must do first is compare.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from core.types import Author, Utterance
from training.replies.data import QuestionAnswer, ReplyExample

TESTED = 4
"""Each fourth rule is only for tests."""


@dataclass(frozen=True)
class Rule:
    """A condition with a bound.

    Attributes:
        question, answer: The entry; `{b}` is the bound.
        asks: What a customer with the figure `{x}` says.
        met: What follows "Yes, " where the condition is met; `{b}` is the bound.
        unmet: What follows "No, " where it is not.
        at_least: Whether the figure must reach the bound; it must not pass it otherwise.
        bounds: Of which the entry has one.
        step: By which figures differ.
    """

    question: str
    answer: str
    asks: tuple[str, ...]
    met: str
    unmet: str
    at_least: bool
    bounds: tuple[int, ...]
    step: int = 1


RULES = (
    Rule("Is there a welcome code?", "Yes, HELLO15 takes 15% off a first order of €{b} or more.",
         ("My first order is {x} euros. Does HELLO15 work?", "does the code work for €{x}",
          "I'd spend {x} euros, can I use HELLO15?"),
         "HELLO15 works for first orders of €{b} or more.",
         "HELLO15 needs a first order of at least €{b}.", True, (25, 30, 40, 50, 60, 75), 5),
    Rule("When is shipping free?", "Shipping is free for orders from €{b}; below that it is €4.",
         ("I spend {x} euros, is shipping free?", "is delivery free for €{x}?",
          "my basket is at {x} euros. Free shipping?"),
         "shipping is free for orders from €{b}.",
         "shipping is free only from €{b}; below that it is €4.", True, (30, 45, 60, 80, 100), 5),
    Rule("How long can I return an item?", "Unused items can be returned within {b} days.",
         ("I bought it {x} days ago, can I return it?", "it came {x} days ago. Can it go back",
          "Is a return after {x} days ok?"),
         "unused items can be returned within {b} days.",
         "items can only be returned within {b} days.", False, (14, 21, 30, 45, 60, 90)),
    Rule("Can children join the tour?", "Children can join from {b} years.",
         ("my son is {x}, can he come?", "Can my {x} year old join?",
          "she is {x} years old. Is that fine?"),
         "children can join from {b} years.", "children can join only from {b} years.",
         True, (3, 4, 5, 6, 8, 10, 12, 14)),
    Rule("How heavy may a parcel be?", "We take parcels of up to {b} kg.",
         ("mine weighs {x} kg, do you take it?", "Can I send {x} kg?", "is {x} kg too much?"),
         "we take parcels of up to {b} kg.", "we take parcels of up to {b} kg only.",
         False, (5, 10, 15, 20, 25, 30)),
    Rule("How late can I cancel?", "You can cancel free of charge up to {b} hours before.",
         ("it starts in {x} hours, can I cancel free of charge?",
          "Can I still cancel for free {x} hours before?"),
         "you can cancel free of charge up to {b} hours before.",
         "cancelling is free of charge only up to {b} hours before.", True, (2, 6, 12, 24, 48, 72)),
    Rule("How many people fit in the room?", "The room is for up to {b} people.",
         ("we are {x}, does that work?", "Is it big enough for {x} people?",
          "can {x} of us stay in it?"),
         "the room is for up to {b} people.", "the room is for {b} people at most.",
         False, (2, 3, 4, 6, 8, 10, 12, 20)),
    Rule("Is there a group discount?", "Groups of {b} or more pay 10% less.",
         ("we come with {x} people, is it cheaper?", "do {x} people get the discount?",
          "There are {x} of us. Any discount?"),
         "groups of {b} or more pay 10% less.", "the discount is for groups of {b} or more.",
         True, (5, 8, 10, 12, 15, 20)),
    Rule("How long is the warranty?", "The warranty lasts {b} months from the purchase.",
         ("I bought mine {x} months ago, is it covered?", "still under warranty after {x} months?",
          "It broke after {x} months. Covered?"),
         "the warranty lasts {b} months from the purchase.",
         "the warranty lasts only {b} months from the purchase.", False, (6, 12, 18, 24, 36)),
    Rule("How old must I be to rent a car?", "You must be at least {b} years old to rent a car.",
         ("I'm {x}, can I rent one?", "can a {x} year old rent", "Is {x} old enough?"),
         "you must be at least {b} years old.", "you must be at least {b} years old to rent a car.",
         True, (18, 19, 21, 23, 25)),
    Rule("How big may hand luggage be?", "Hand luggage may be up to {b} cm long.",
         ("my case is {x} cm long, can I take it?", "Is {x} cm fine for hand luggage?"),
         "hand luggage may be up to {b} cm long.", "hand luggage may be {b} cm long at most.",
         False, (40, 45, 50, 55, 60)),
    Rule("Can I pay in parts?", "Paying in 3 parts is possible from €{b}.",
         ("can I pay {x} euros in parts?", "my order is €{x}, can I split it?",
          "Is {x} euros enough to pay in parts?"),
         "paying in 3 parts is possible from €{b}.", "paying in 3 parts starts at €{b}.",
         True, (50, 75, 100, 150, 200), 5),
    Rule("How many items can I borrow?", "Members can borrow up to {b} books at a time.",
         ("can I take {x} books?", "I want {x} books, ok?", "Are {x} books allowed?"),
         "members can borrow up to {b} books at a time.", "members can borrow {b} books at most.",
         False, (3, 4, 5, 8, 10, 15)),
    Rule("Is there a minimum order?", "The minimum order for delivery is €{b}.",
         ("do you deliver for {x} euros?", "Is an order of €{x} enough?",
          "I only want something for {x} euros, do you bring it?"),
         "the minimum order for delivery is €{b}.", "the minimum order for delivery is €{b}.",
         True, (10, 12, 15, 20, 25)),
    Rule("How far do you deliver?", "We deliver within {b} km of the shop.",
         ("I live {x} km away, do you come?", "Is {x} km too far?", "do you drive {x} km?"),
         "we deliver within {b} km of the shop.", "we deliver only within {b} km of the shop.",
         False, (3, 5, 8, 10, 15, 25)),
    Rule("How many characters can be engraved?", "Up to {b} characters can be engraved.",
         ("my text has {x} characters, does it fit?", "Can I have {x} letters?",
          "is a name of {x} characters ok"),
         "up to {b} characters can be engraved.", "{b} characters can be engraved at most.",
         False, (10, 12, 16, 20, 25)),
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """An example with whether its condition is met, so whether the reply is yes."""

    example: ReplyExample
    is_met: bool


def conditions(count: int, chance: random.Random, *, test: bool) -> list[Condition]:
    """Return so many cases at most, of the rules for tests or of all others; half are met."""
    rules = [rule for at, rule in enumerate(RULES) if (at % TESTED == TESTED - 1) is test]
    made: dict[tuple[str, str], Condition] = {}
    for at in range(20 * count):
        if len(made) == count:
            break
        case = _condition(chance.choice(rules), at % 2 == 0, chance)
        made.setdefault((case.example.message, case.example.sources[0].answer), case)
    return list(made.values())


def _condition(rule: Rule, is_met: bool, chance: random.Random) -> Condition:
    bound = chance.choice(rule.bounds)
    above = is_met is rule.at_least
    far = max(2, bound // rule.step)
    figure = bound + rule.step * chance.randint(1, far) if above else (
        max(1, bound - rule.step * chance.randint(1, far - 1)))  # fmt: skip
    message = chance.choice(rule.asks).format(x=figure)
    if "too" in message:  # "is it too far?" asks the reverse
        message = message.replace(" too much", " allowed").replace(" too far", " possible")
    entry = QuestionAnswer(rule.question, rule.answer.format(b=bound))
    reply = f"Yes, {rule.met}" if is_met else f"No, {rule.unmet}"
    turns = (Utterance(Author.CUSTOMER, message),)
    example = ReplyExample(turns, (entry,), reply.format(b=bound), f"condition/{rule.question}")
    return Condition(example, is_met)
