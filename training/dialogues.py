"""Conversations about FAQ entries, made by rule: what no data set of ours holds.

The entity is named now or turns ago, by the customer or by the bot, in full or in short, once or
among others; bookings, thanks and other questions come between; and the question is put in words
that are not the entry's own. What is asked about is recognised by its subject (`_SUBJECTS`), so
entries on other subjects are never asked for.

Such conversations show whether the entity is followed. They say little about how many ways people
have to ask a thing: that there are a handful for each subject is known here beforehand.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from core.types import FaqEntry
from retrieval.entities import bare_name
from retrieval.index import bare, nameless
from training.noise import Noise, misheard, mistyped

Noises = Literal["written", "spoken", "none"]

NO_LOOKUP_SHARE = 0.15
BORROWED_SHARE = 0.5
"""How many questions are worded as the entry of another entity on the same subject is."""
BOT_NOISE_SHARE = 0.5
"""How many of the bot's turns are noisy in a spoken conversation: its speech was recognised too."""

_SUBJECTS: Sequence[tuple[str, Sequence[str]]] = (
    (r"wi-?fi.*(charge|cost|pay)|(charge|cost|pay).*(wi-?fi|internet)", (
        "how much is the internet", "is the wireless free or do i have to pay extra for it",
        "what would it cost me to get online")),
    (r"wi-?fi|internet", (
        "can i get online with my laptop", "is there internet i can use", "what about wireless",
        "could i connect to the internet while i am there")),
    (r"(accessible|disab).*parking|parking.*(accessible|disab)", (
        "are there spots for people with a handicap to leave their car",
        "i have a handicap placard, is there a space i can use")),
    (r"(reserv).*parking|parking.*reserv|parking space", (
        "do i have to book a spot for my car ahead of time",
        "should i arrange a place for the car beforehand")),
    (r"(cost|charge|pay|fee).*parking|is parking free|free parking", (
        "how much will it be to leave my car there", "do they charge for leaving a car",
        "is it free to park")),
    (r"\bpark", (
        "where can i leave my car", "i am coming by car, is there somewhere to put it",
        "do they have a car park")),
    (r"pets?\b|\bdogs?\b", (
        "i am travelling with my cat, is that okay", "are animals welcome",
        "would my puppy be able to stay with us")),
    (r"wheel ?chair", (
        "my mother can't walk, can she get in", "is it suitable for somebody in a wheelchair",
        "do they have a ramp")),
    (r"disab", (
        "do they have rooms for guests with a handicap",
        "is there anything for people who cannot walk well")),
    (r"high ?chair", (
        "we have a baby with us, is there something for him to sit in",
        "do they have a seat for my toddler")),
    (r"age.*check|check.*age|minimum age|allowed to check|age restriction", (
        "how old do you have to be to get a room", "i am seventeen, can i still stay there")),
    (r"child|\bkids?\b", (
        "can the little ones come along", "is it alright if my son stays with us",
        "we are a family, do they take families")),
    (r"smok", (
        "where could i have a cigarette", "is it okay to light up there",
        "do they let you have a cigarette")),
    (r"check.?in\b", (
        "when can i get into my room", "what's the earliest i can arrive",
        "from when on will my room be ready")),
    (r"check.?out", (
        "by when do i have to leave my room", "when do we have to be out on the last day")),
    (r"(breakfast).*(cost|charge|free|includ|price)|(cost|charge|free|includ|price).*breakfast", (
        "do i pay extra for the meal in the morning", "is breakfast part of the price")),
    (r"breakfast", (
        "what do they give you to eat in the morning", "can i get something to eat in the morning",
        "what's for breakfast")),
    (r"language", (
        "does anybody there speak italian", "what do the people at the desk speak",
        "my parents speak no english, will they be understood")),
    (r"24|front desk|reception", (
        "is somebody at the desk at night", "we come in after midnight, will anybody be there",
        "when is the reception open")),
    (r"elevator|\blift\b", (
        "do we have to take the stairs", "i can't climb stairs, is there another way up")),
    (r"\bspa\b", ("can i get a massage", "is there a place for wellness", "do they have a sauna")),
    (r"pool", ("can we go swimming there", "my kids love to swim, can they")),
    (r"fitness|\bgym\b", ("where can i work out", "can i exercise there", "are there any weights")),
    (r"housekeeping", (
        "do they clean the room every day", "will someone make my bed each morning")),
    (r"dry clean", ("can i have my suit cleaned there", "is there anyone to clean my jacket")),
    (r"laundry", ("can i wash my clothes there", "is there a washing machine")),
    (r"shuttle", (
        "do they pick you up at the airport", "is there a ride to the airport",
        "how do i get there from the airport, do they drive you")),
    (r"concierge", ("will someone help me to get tickets and plan my day",
        "is there a person who arranges tours for the guests")),
    (r"luggage|baggage", ("can i leave my bags there before my room is ready",
        "is there somewhere to put our suitcases")),
    (r"room service", ("will they bring food up to my room", "can i eat in my room")),
    (r"safe(ty)? ?(deposit|box)", (
        "where can i lock up my jewellery", "is there a safe for my things")),
    (r"security deposit|deposit required|damage deposit", (
        "do i have to leave money for damages", "how much do they hold in case something breaks")),
    (r"extra bed|additional bed", ("we are three, can they put one more bed in the room",
        "could i have a cot brought in")),
    (r"kitchen", ("can i cook there", "is there a stove i could use")),
    (r"meeting|banquet", (
        "can we hold our conference there", "is there space for a wedding party")),
    (r"restaurant or bar|bar onsite|onsite restaurant|any restaurant", (
        "can i have dinner without leaving the building",
        "is there somewhere to drink downstairs")),
    (r"cancel", ("what if i change my mind and don't come", "can i get out of my booking")),
    (r"outdoor|outside", ("can we sit in the sun", "do they have tables on a patio",
        "i would like to eat in the fresh air")),
    (r"live music", ("do bands play there", "is there someone playing an instrument at night")),
    (r"byob|own (alcohol|beer|wine|bottle|drinks)", (
        "may i take along a bottle of mine", "could i bring something to drink from home")),
    (r"alcohol|liquor|\bbeer\b|\bwine\b", ("can i get a drink there, like a cocktail",
        "would they pour me a beer", "do they have booze")),
    (r"halal", ("my friend is muslim, will there be food for him", "do they have halal meat")),
    (r"gluten", ("i have celiac disease, can i eat there", "is there anything without wheat")),
    (r"vegetarian|vegan", ("i don't eat meat, is there something for me",
        "do they have plant based food", "is there a dish without any meat")),
    (r"deliver", ("can they bring the food to my home", "would they send it to my house")),
    (r"take ?-?out|to go|takeaway|take ?-?away", ("can i pick up my food and eat it at home",
        "may i get my meal in a bag to carry out")),
    (r"credit|payment|\bpay\b", ("will they take my visa", "can i put it on my card",
        "how can i settle the bill")),
    (r"reserv|book a table", ("can i get a table ahead of time", "should we call before we come",
        "can you hold a table")),
)  # fmt: skip
_OPENINGS = (
    "i'm looking for a place in the {area}", "hi i need a nice {kind} please",
    "can you find me a {kind} in the {area} that is not too expensive",
    "hello i am planning a trip and want a {kind}", "i'd like somewhere with good reviews",
)  # fmt: skip
_BOT_NAMES = (
    "How about {name}? It is in the {area}.", "I found {name}. Would you like to book it?",
    "{name} might be good for you, it has {stars} stars.", "I would suggest {name}.",
    "There is one: {name}. It is in the {area} of town and moderately priced.",
)  # fmt: skip
_BOT_LISTS = (
    "There are several: {others} and {name}.", "I have {name}, {others}. Which do you like?",
    "You could go to {others} or {name}.",
)  # fmt: skip
_CUSTOMER_NAMES = (
    "I am interested in {name}.", "Can you tell me about {name}?", "I want to go to {name}.",
    "We are staying at {name} next week.", "I have a booking at {name}.", "What about {name}?",
    "Do you know {name}? A friend told me about it.",
)  # fmt: skip
_CHOICES = ("Let's go with {name}.", "{name} sounds good.", "I'll take {name} then.")
_BETWEEN = (
    ("Yes, book it for {number} people on {day}.", "Done. Your reference number is {code}."),
    ("That sounds good.", "Great! What else can I do for you?"),
    ("What is the phone number?", "It is 01223 {phone}."),
    ("What is the address?", "It is in the {area}, postcode cb{number}1ab."),
    ("Is it expensive?", "It is in the moderate price range."),
    ("Thanks.", "You are welcome. Anything else?"),
    ("We arrive on {day} and stay {number} nights.", "All right, noted."),
    ("Hold on a second, let me think.", "Take your time."),
    ("My name is Ann by the way.", "Nice to meet you, Ann."),
)  # fmt: skip
_LEADS = ("", "", "", "", "great, and ", "okay. ", "before i book, ", "also ", "one more thing, ",
          "hmm, ", "could you tell me, ", "i was wondering, ", "oh and ")  # fmt: skip
_PLACES = ("there", "at that place", "at this place", "over there")
_NAMED_NOW = ("{question} at {name}", "regarding {name}, {question}", "at {name}, {question}",
              "i am asking about {name}: {question}")  # fmt: skip
_CLOSINGS = (
    "Thanks, that is all I need.", "Okay great, book it please.", "No, that's all. Bye!",
    "Make it {number} people instead.", "I also need a taxi at half past {number}.",
    "Perfect, thank you so much.", "Can you book it for {day}?", "I would like a cheap one.",
)  # fmt: skip
_AREAS = ("north", "south", "east", "west", "centre")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def dialogues(
    entries: Sequence[FaqEntry],
    count: int,
    rng: random.Random,
    noise: Noises = "written",
) -> list[dict[str, Any]]:
    """Return conversations whose last message asks what an entry answers, or nothing.

    Args:
        entries: About entities, with questions on some of the known subjects.
        count: How many to make.
        rng: Decides everything.
        noise: What is done to the customer's words.

    Returns:
        Rows with `id`, `turns` (`speaker` U or S, `text`), `relevant` (ids; none where nothing
        is to be looked up), `entity`, and `kind`: `now` where the last message names it, `ago`
        where an earlier one does, `none` where nothing is asked.

    Raises:
        ValueError: No entry is about an entity and a known subject.
    """
    maker = _Maker(entries, rng, {"written": mistyped, "spoken": misheard, "none": _clean}[noise])
    return [maker.make(f"{noise}-{number}") for number in range(count)]


def split(
    entries: Sequence[FaqEntry], share: float, rng: random.Random
) -> tuple[list[FaqEntry], list[FaqEntry]]:
    """Return entries in two parts that have no entity in common; the first has about `share`."""
    names = sorted({entry.entity or "" for entry in entries})
    rng.shuffle(names)
    first = set(names[: round(share * len(names))])
    return (
        [entry for entry in entries if (entry.entity or "") in first],
        [entry for entry in entries if (entry.entity or "") not in first],
    )


def subject_of(question: str) -> int | None:
    """Return which known subject a question is on, None where it is on none."""
    for number, pattern in enumerate(_patterns()):
        if pattern.search(question.lower()):
            return number
    return None


class _Maker:
    """Makes conversations about the entries of one base."""

    def __init__(self, entries: Sequence[FaqEntry], rng: random.Random, noise: Noise) -> None:
        self._rng = rng
        self._noise = noise
        self._bot_noise = noise if noise is misheard else _clean
        self._by_entity = _by_subject(entries)
        if not self._by_entity:
            raise ValueError("No entry is about an entity and a known subject.")
        self._names = sorted(self._by_entity)
        self._wordings = _wordings(self._by_entity)

    def make(self, number: str) -> dict[str, Any]:
        rng = self._rng
        name = rng.choice(self._names)
        subject = rng.choice(sorted(self._by_entity[name]))
        relevant = self._by_entity[name][subject]
        kind = rng.choice(("now", "ago", "ago"))
        turns = self._introduced(name) if kind == "ago" or rng.random() < 0.5 else []
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3)) if turns else 0):
            turns += self._between(name)
        if turns and rng.random() < NO_LOOKUP_SHARE:
            kind, relevant = "none", []
            turns.append(("U", self._filled(rng.choice(_CLOSINGS))))
        else:
            turns.append(("U", self._question(name, subject, relevant, is_named=kind == "now")))
        return {
            "id": number,
            "turns": [{"speaker": who, "text": self._said(who, text)} for who, text in turns],
            "relevant": [entry.id for entry in relevant],
            "entity": name,
            "kind": kind,
        }

    def _said(self, who: str, text: str) -> str:
        if who == "U":
            return self._noise(text, self._rng)
        return self._bot_noise(text, self._rng) if self._rng.random() < BOT_NOISE_SHARE else text

    def _introduced(self, name: str) -> list[tuple[str, str]]:
        rng = self._rng
        way = rng.choice(("customer", "customer", "bot", "bot", "list"))
        if way == "customer":
            answer = rng.choice(("It is a nice place in the {area}.", "Yes, I know it.", "Okay."))
            return [("U", self._filled(rng.choice(_CUSTOMER_NAMES), self._called(name))),
                    ("S", self._filled(answer))]  # fmt: skip
        opening = ("U", self._filled(rng.choice(_OPENINGS)))
        if way == "bot":
            return [opening, ("S", self._filled(rng.choice(_BOT_NAMES), self._titled(name)))]
        some = rng.sample(self._names, k=min(2, len(self._names)))
        listed = self._filled(rng.choice(_BOT_LISTS), self._titled(name))
        listed = listed.replace("{others}", ", ".join(map(self._titled, some)))
        chosen = self._filled(rng.choice(_CHOICES), self._called(name))
        return [opening, ("S", listed), ("U", chosen), ("S", "What would you like to know?")]

    def _between(self, name: str) -> list[tuple[str, str]]:
        rng = self._rng
        if rng.random() < 0.3:
            subject = rng.choice(sorted(self._by_entity[name]))
            answer = self._by_entity[name][subject][0].answer
            return [("U", rng.choice(_SUBJECTS[subject][1]) + "?"), ("S", answer)]
        asked, answered = rng.choice(_BETWEEN)
        return [("U", self._filled(asked)), ("S", self._filled(answered))]

    def _question(
        self, name: str, subject: int, relevant: Sequence[FaqEntry], *, is_named: bool
    ) -> str:
        rng = self._rng
        own = {bare(text) for entry in relevant for text in (entry.question, nameless(entry))}
        borrowed = [way for way in self._wordings[subject] if bare(way) not in own]
        is_borrowed = borrowed and rng.random() < BORROWED_SHARE
        question = rng.choice(borrowed if is_borrowed else _SUBJECTS[subject][1]).rstrip("?. ")
        if is_named:
            form = rng.choice(_NAMED_NOW)
            return form.format(name=self._called(name), question=question) + "?"
        if rng.random() < 0.3 and not question.endswith("there"):
            question = f"{question} {rng.choice(_PLACES)}"
        return f"{rng.choice(_LEADS)}{question}?"

    def _called(self, name: str) -> str:
        """Return a name as a customer says it, often in short."""
        short = bare_name(name)
        return short.title() if self._rng.random() < 0.4 and len(short) > 3 else self._titled(name)

    def _titled(self, name: str) -> str:
        return name.title() if name.isupper() else name

    def _filled(self, text: str, name: str = "") -> str:
        rng = self._rng
        values = {
            "name": name, "area": rng.choice(_AREAS), "day": rng.choice(_DAYS),
            "kind": rng.choice(("hotel", "restaurant", "place")), "stars": str(rng.randrange(2, 6)),
            "number": str(rng.randrange(2, 9)), "phone": str(rng.randrange(100_000, 999_999)),
            "code": "".join(rng.choices("ABCDEFGHKLMNPQRSTUVWXYZ23456789", k=8)),
            "others": "{others}",
        }  # fmt: skip
        return text.format(**values)


def _by_subject(entries: Iterable[FaqEntry]) -> Mapping[str, Mapping[int, list[FaqEntry]]]:
    found: defaultdict[str, defaultdict[int, list[FaqEntry]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for entry in entries:
        subject = subject_of(nameless(entry))
        if entry.entity and subject is not None:
            found[entry.entity][subject].append(entry)
    return found


def _wordings(
    by_entity: Mapping[str, Mapping[int, Sequence[FaqEntry]]],
) -> Mapping[int, Sequence[str]]:
    """Return how a subject is asked about where the question does not need the entity's name."""
    found: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for subjects in by_entity.values():
        for subject, entries in subjects.items():
            plain = (e.question for e in entries if nameless(e) == e.question)
            found[subject] |= dict.fromkeys(plain)
    return {subject: list(texts) for subject, texts in found.items()}


@cache
def _patterns() -> Sequence[re.Pattern[str]]:
    return [re.compile(pattern) for pattern, _ in _SUBJECTS]


def _clean(text: str, rng: random.Random) -> str:
    return text
