"""What a message means in its conversation: its readings, what they find, what it asks; pure.

A message is encoded once, with all of its readings and parts in one batch (`Message.texts`); what
it wants, what it finds, whether it asks anything, how it sounds and what it is about are all read
from these vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from answering.clauses import several, spans
from answering.intents import GENERAL, OUT_OF_SCOPE, with_cues
from answering.politeness import question_part
from answering.reading import Reading, best_reading, of_the_entity, parts_of
from answering.signals import SignalHeads, Topics
from core.deciding import Seen
from core.dialogue import State, advance, from_json, slots_of
from core.types import (
    Author,
    Decision,
    FaqEntry,
    Insight,
    Intent,
    Passage,
    Question,
    Utterance,
)
from retrieval.entities import About, EntityIndex, gist, talked_about
from retrieval.index import KnowledgeIndex
from retrieval.places import placed
from retrieval.rewriting import Context, candidates, must_lean, new_words, points_back

Vector = NDArray[np.float32]

SOCIAL_FROM = 0.7
"""So surely social a message continues nothing: "wonderful, thanks"."""
CITED_WEIGHT = 0.6
"""How much the conversation is about the entity of an entry that was answered with."""
STORED_SHARE = 0.85
"""What the stored state's mentions count against the messages themselves."""
MOST_ABOUT = 5
MOST_SAID = 8
"""Messages of which a pronoun is resolved that points to nothing in the base."""
ENTITY_FROM = 0.1
"""A thing talked about less surely is not put into a follow-up."""

NOTHING_TOLD = Insight()

Search = Callable[[str, Vector, float, Sequence[About], "Vector | None"], list[Passage]]
"""Finds entries by a text, its vector, the chance that it is off topic, what the conversation is
about, and the vector of the text's gist where that is another text."""
Predict = Callable[[Vector, str], Sequence[Intent]]


@dataclass(frozen=True)
class Message:
    """A message before anything is encoded.

    Attributes:
        text: The whole message.
        query: What it asks, without its politeness; the message itself if nothing is left.
        is_polite_only: Nothing is left once greetings and thanks are taken off.
        state: What was being talked about before it.
        asked_back: The last reply was a clarifying question.
        context: What a follow-up may lean on.
        about: The entities that the conversation is about, this message included.
        readings: The query as it stands, then what it may mean in its context.
        parts: Its questions, where it plainly holds several.
        gists: What each reading and part asks without the names in it; the text itself where
            there are none.
    """

    text: str
    query: str
    is_polite_only: bool
    state: State
    asked_back: bool
    context: Context
    about: tuple[About, ...]
    readings: tuple[str, ...]
    parts: tuple[str, ...]
    gists: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """What must be encoded: the readings, the parts, then the gists of all of them."""
        asked = [*self.readings, *self.parts]
        further = [g for g, text in zip(self.gists, asked, strict=True) if g != text]
        return [*asked, *dict.fromkeys(further)]


@dataclass(frozen=True)
class Understood:
    """A message once its vectors are known.

    Attributes:
        reading: Which of its readings is meant, with what that finds.
        seen: What the decision sees.
        parts: What each of its questions finds.
        insight: Topics and sentiment.
        signals: Further figures of the decision, for the trace.
    """

    reading: Reading
    seen: Seen
    parts: tuple[Reading, ...] = ()
    insight: Insight = NOTHING_TOLD
    signals: Mapping[str, float] = field(default_factory=dict[str, float])


def state_before(question: Question, index: KnowledgeIndex) -> State:
    """Return what was being talked about: as it was stored, else told from the messages."""
    if question.dialogue:
        return from_json(question.dialogue)
    cited = [index.entries[i] for i in question.cited if i in index.entries]
    return recalled(question.history, index.entities, cited)


def recalled(
    history: Sequence[Utterance], entities: EntityIndex, cited: Sequence[FaqEntry] = ()
) -> State:
    """Return the state that a conversation leads to, where none was stored.

    Args:
        history: What was said, oldest first.
        entities: The names that may be in it.
        cited: What the last reply rests on.
    """
    state = State()
    exchanges = _exchanges(history)
    for number, (said, replied) in enumerate(exchanges, start=1):
        named = [(m.entity, m.score) for m in entities.mentions(said)]
        named += [(m.entity, CITED_WEIGHT * m.score) for m in entities.mentions(replied)]
        state = advance(
            state,
            said,
            asked=question_part(said),
            entries=cited if number == len(exchanges) else (),
            named=named,
        )
    return state


def read(question: Question, index: KnowledgeIndex, clarify_texts: Collection[str]) -> Message:
    """Return a message with its context and readings; nothing is encoded yet.

    Args:
        question: The customer's messages and what went before.
        index: The base.
        clarify_texts: How a clarifying question begins, in every language.
    """
    text = "\n".join(question.messages)
    asked = question_part(text)
    query = placed(asked or text, index.knows)
    state = state_before(question, index)
    # What a question back offered was not said of anything: its options are not talked about.
    history = [u for u in question.history if not _asks_back(u, clarify_texts)]
    context = _context(state, history, index)
    readings = candidates(query, context) if asked else [query]
    parts = [placed(part, index.knows) for part in parts_of(text) or _clauses(query)]
    return Message(
        text,
        query,
        not asked,
        state,
        state.asked_back or _asked_back(question.history, clarify_texts),
        context,
        about(state, [*history, Utterance(Author.CUSTOMER, text)], index),
        tuple(readings),
        tuple(parts),
        tuple(gist(said, index.entities) for said in (*readings, *parts)),
    )


def about(
    state: State, utterances: Sequence[Utterance], index: KnowledgeIndex
) -> tuple[About, ...]:
    """Return which entities a conversation is about, the likeliest first.

    The messages at hand tell most; the state knows what was named before them and what was
    answered with.
    """
    said = [(str(u.author), u.text) for u in utterances]
    weights = {a.entity: a.weight for a in talked_about(said, index.entities)}
    for mention in state.entities:
        if mention.entity in index.entities:
            stored = STORED_SHARE * mention.weight
            weights[mention.entity] = max(weights.get(mention.entity, 0.0), stored)
    ranked = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(About(entity, round(weight, 4)) for entity, weight in ranked[:MOST_ABOUT])


def understand(
    message: Message,
    vectors: Sequence[Vector],
    question: Question,
    *,
    predict: Predict,
    search: Search,
    heads: SignalHeads | None = None,
    topics: Topics | None = None,
) -> Understood:
    """Return what a message means.

    Args:
        message: As `read` returns it.
        vectors: One of each of `message.texts`, shape (hidden,).
        question: What was asked.
        predict: The base's intents.
        search: Finds its entries.
        heads: Tell what it asks and how it sounds; None where they are not fitted yet.
        topics: The base's topics, where it has any.
    """
    count = len(message.readings)
    by_text = dict(zip(message.texts, vectors, strict=True))
    texts = [*message.readings, *message.parts]
    intents = [predict(by_text[text], text) for text in texts]
    intents[0] = with_cues(message.query, intents[0])
    kept = 1 if is_social(intents[0]) else count

    def found(number: int) -> Reading:
        text, wanted = texts[number], intents[number]
        plain = message.gists[number]
        passages = search(
            text,
            by_text[text],
            off_topic(wanted),
            message.about,
            by_text[plain] if plain != text else None,
        )
        return Reading(text, passages, wanted)

    points = points_back(message.query, message.context)
    readings = [found(number) for number in range(kept)]
    if points:
        readings = [of_the_entity(reading, message.context.entity) for reading in readings]
    reading = best_reading(
        readings,
        must_lean=must_lean(message.query) or points,
        fresh=new_words(message.query, message.context),
    )
    parts = tuple(found(count + number) for number in range(len(message.parts)))
    chance = min(sum(p.confidence for p in reading.passages), 1.0)
    signals = {"found": chance}
    asked = by_text[message.gists[0]]  # a name says nothing about whether anything is asked
    if heads is not None:
        signals["asks"] = heads.asks(asked, message.text)
        signals["seeking"] = heads.seeking(asked, message.text, chance)
    wishes = several(intents[0], [part.intents for part in parts])
    beside = [i for i in reading.intents if i.name not in {w.name for w in wishes}]
    seen = Seen(
        [*wishes, *beside] if len(wishes) > 1 else reading.intents,
        reading.passages,
        question.kind,
        question.holder,
        is_polite_only=message.is_polite_only,
        asked_back=message.asked_back,
        # An answer to a question back asks what was asked before it, whatever its form.
        asks=None if message.asked_back else signals.get("asks"),
        tells=bool(slots_of(message.text)),
    )
    insight = Insight(
        topics.of(vectors[0]) if topics else (),
        heads.sentiment(vectors[0], message.text) if heads else None,
    )
    shown = {name: round(value, 4) for name, value in signals.items()}
    return Understood(reading, seen, parts, insight, shown)


def after(
    message: Message,
    index: KnowledgeIndex,
    decision: Decision,
    entries: Sequence[FaqEntry],
    asked: str,
) -> State:
    """Return what is being talked about once a reply is chosen.

    Args:
        message: What the customer said.
        index: The base.
        decision: What the reply does.
        entries: What it rests on.
        asked: The question, stand-alone; empty where nothing was asked.
    """
    named = [(m.entity, m.score) for m in index.entities.mentions(message.text)]
    if decision is Decision.ANSWER:
        named += [(entry.entity, CITED_WEIGHT) for entry in entries if entry.entity]
    return advance(
        message.state, message.text, asked=asked, decision=decision, entries=entries, named=named
    )


def off_topic(intents: Sequence[Intent]) -> float:
    """Return the chance that a message is out of scope."""
    return next((i.probability for i in intents if i.name == OUT_OF_SCOPE), 0.0)


def is_social(intents: Sequence[Intent]) -> bool:
    """Return whether a message is surely a greeting, thanks or the like."""
    return bool(intents) and intents[0].name in GENERAL and intents[0].probability > SOCIAL_FROM


def _context(state: State, history: Sequence[Utterance], index: KnowledgeIndex) -> Context:
    """Return what is talked about; what the customer named counts before what was cited."""
    earlier = about(state, history, index)
    entry = index.entries.get(state.entry)
    said = [u.text for u in history if u.author is Author.CUSTOMER]
    return Context(
        state.question or (said[-1] if said else ""),
        earlier[0].entity if earlier and earlier[0].weight >= ENTITY_FROM else "",
        entry.question if entry else "",
        tuple(u.text for u in history[-MOST_SAID:]),
    )


def _clauses(query: str) -> list[str]:
    """Return the clauses that may each want something; none where it plainly is one wish."""
    said = [piece for piece in map(question_part, spans(query)) if piece]
    return said if len(said) > 1 else []


def _asked_back(history: Sequence[Utterance], clarify_texts: Collection[str]) -> bool:
    spoken = [u for u in history if u.author is not Author.CUSTOMER]
    return bool(spoken) and _asks_back(spoken[-1], clarify_texts)


def _asks_back(utterance: Utterance, clarify_texts: Collection[str]) -> bool:
    by_us = utterance.author is not Author.CUSTOMER
    return by_us and any(utterance.text.startswith(text) for text in clarify_texts)


def _exchanges(history: Sequence[Utterance]) -> list[tuple[str, str]]:
    """Return pairs of what the customer said and what was replied to it."""
    pairs: list[tuple[list[str], list[str]]] = []
    for utterance in history:
        if utterance.author is Author.CUSTOMER:
            if not pairs or pairs[-1][1]:
                pairs.append(([], []))
            pairs[-1][0].append(utterance.text)
        elif pairs:
            pairs[-1][1].append(utterance.text)
    return [("\n".join(said), "\n".join(replied)) for said, replied in pairs]
