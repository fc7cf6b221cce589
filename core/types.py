"""The nouns of Deskhand, as frozen values; ids are NewTypes, so that they cannot be mixed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from uuid import UUID

InboxId = NewType("InboxId", int)
KnowledgeBaseId = NewType("KnowledgeBaseId", int)
ConversationId = NewType("ConversationId", UUID)
MessageId = NewType("MessageId", UUID)
TurnId = NewType("TurnId", UUID)
DeliveryId = NewType("DeliveryId", UUID)

TEXT_LIMIT_CHARACTERS = 8_000
"""The longest message that is taken in; the API refuses more, a platform's is cut."""


class Author(StrEnum):
    """Who wrote a message."""

    CUSTOMER = "customer"
    BOT = "bot"
    AGENT = "agent"


class Holder(StrEnum):
    """Who has a conversation; every change raises its epoch."""

    BOT = "bot"
    WAITING = "waiting"
    AGENT = "agent"
    RESOLVED = "resolved"


class Decision(StrEnum):
    """What to do about a customer's message."""

    ANSWER = "answer"
    CLARIFY = "clarify"
    SMALL_TALK = "small_talk"
    HAND_OFF = "hand_off"
    REFUSE = "refuse"


class Tier(StrEnum):
    """Where a reply's words come from."""

    APPROVED = "approved"
    GENERATED = "generated"
    PERSON = "person"


class ReplyStyle(StrEnum):
    """How answers are worded: by the model with a check, the approved text, the model always."""

    ADAPTIVE = "adaptive"
    VERBATIM = "verbatim"
    GENERATED = "generated"


class FallbackReason(StrEnum):
    """Why an answer is the approved text; the label of `deskhand_reply_fallbacks_total`."""

    NO_MODEL = "no_model"
    VERBATIM = "verbatim"
    """The process, the base or the entry asks for it."""
    LEGAL = "legal"
    """The entry is tagged `legal`."""
    LANGUAGE = "language"
    """The model does not write the customer's or does not read the entry's."""
    DEADLINE = "deadline"
    QUEUE = "queue"
    """So many turns wait that the quick answer goes out."""
    LONG = "long"
    """The answer is a list, holds code or a picture, or is too long to be put into other words."""
    SAME_QUESTION = "same_question"
    """The entry's own question, or one of its alternates, was asked."""
    FIGURES = "figures"
    """The customer's own figures may decide the answer, and the model does not compare."""
    INSTRUCTION = "instruction"
    """The message or an entry holds what would steer a model."""
    PREMISE = "premise"
    """The customer takes for given what the entry denies."""
    ENGINE = "engine"
    """The engine refused, or ran out of time."""
    MODEL = "model"
    """The model failed on this prompt."""
    CHECK = "check"
    """What the model wrote is not supported."""


class MessageKind(StrEnum):
    """What a customer's message is, beyond its text."""

    TEXT = "text"
    START = "start"
    """The first contact (Telegram's /start): asks for a greeting, not for an answer."""
    UNREADABLE = "unreadable"
    """A voice note or a picture without words."""
    PERSON = "person"
    """The button that asks for a person."""
    DELETED = "deleted"
    """Taken back by its writer before it was answered; its words are gone."""


class DeliveryState(StrEnum):
    """The life of a delivery; `sending` carries a lease that runs out into `uncertain`."""

    PENDING = "pending"
    HELD = "held"
    SENDING = "sending"
    SENT = "sent"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    DROPPED = "dropped"
    EXPIRED = "expired"


class TurnState(StrEnum):
    """The life of a turn: what a customer said until it was answered, or why it was not."""

    OPEN = "open"
    SHOWING = "showing"
    """Sentences of its reply are out: it takes in no more messages, and the next opens another."""
    ANSWERED = "answered"
    SILENT = "silent"
    """Closed without words: a person has the conversation, or one was already promised."""
    FAILED = "failed"


ALIVE = (TurnState.OPEN, TurnState.SHOWING)
"""A turn in one of these is still to be answered."""


class Outcome(StrEnum):
    """What became of an incoming event; the label of `deskhand_messages_total`."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    REJECTED = "rejected"


class ModelKind(StrEnum):
    """What an artefact is."""

    ENCODER = "encoder"
    INTENTS = "intents"
    CALIBRATION = "calibration"
    REPLY_ADAPTER = "reply_adapter"
    VERIFIER = "verifier"


@dataclass(frozen=True)
class Sender:
    """Who wrote on the platform; `locale` is a hint such as `de`, where the platform tells."""

    id: str
    name: str = ""
    locale: str | None = None


@dataclass(frozen=True)
class Incoming:
    """What a customer said, in our words, as a channel's `parse` returns it.

    Attributes:
        event_id: Unique within the inbox; the same event delivered twice has the same one.
        message_id: The platform's id of the message, unique within the chat: two events about
            one message (a Slack mention and its `message` twin) share it and are merged.
        chat: Where to reply: the platform's chat or channel id.
        thread: The thread or topic within the chat; its conversation is apart from the chat's.
        addressed: False for talk that is for us only if the conversation already exists (a
            reply in a thread where the bot takes part).
        private: A one-to-one chat; in groups, replies name whom they answer.
        payload: What stood behind a Telegram deep link's /start.
        is_burst: Part of an album or of forwarded messages: more comes at once, however whole it
            looks, and all of it is one turn.
    """

    event_id: str
    message_id: str
    chat: str
    sender: Sender
    text: str
    thread: str | None = None
    kind: MessageKind = MessageKind.TEXT
    sent_at: datetime | None = None
    addressed: bool = True
    private: bool = True
    payload: str | None = None
    is_burst: bool = False

    @property
    def conversation_key(self) -> str:
        """The conversation's name within its inbox."""
        return self.chat if self.thread is None else f"{self.chat}#{self.thread}"


class Verdict(StrEnum):
    """What a customer thinks of a reply."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class IncomingFeedback:
    """A customer's verdict on one of our messages.

    Attributes:
        external_id: The platform's id of the message that is rated, where the channel knows it.
        message_id: Our own id of it, where the channel carries that.
    """

    event_id: str
    chat: str
    sender: Sender
    verdict: Verdict
    external_id: str | None = None
    message_id: MessageId | None = None


@dataclass(frozen=True)
class IncomingEdit:
    """A customer's message as it stands after its writer changed it."""

    chat: str
    message_id: str
    text: str


@dataclass(frozen=True)
class IncomingDeletion:
    """A customer took a message back."""

    chat: str
    message_id: str


@dataclass(frozen=True)
class IncomingMove:
    """The platform gave a chat a new id."""

    chat: str
    moved_to: str


IncomingChange = IncomingEdit | IncomingDeletion | IncomingMove
"""What happens to what was said before."""


@dataclass(frozen=True)
class Receipt:
    """What intake did with an event; the ids are of the stored message, also of a duplicate."""

    outcome: Outcome
    message_id: MessageId | None = None
    conversation_id: ConversationId | None = None
    turn_id: TurnId | None = None


@dataclass(frozen=True)
class Citation:
    """The entry that a reply rests on."""

    entry_id: str
    question: str
    url: str | None = None


@dataclass(frozen=True)
class FaqEntry:
    """A question that staff answered once for all; `answer` is limited CommonMark.

    Attributes:
        not_for: Questions that look like this one and are not answered by it.
    """

    id: str
    question: str
    answer: str
    alternates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    locale: str = "en"
    entity: str | None = None
    source_url: str | None = None
    status: str = "draft"
    style: ReplyStyle | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    version: int = 1
    updated_at: datetime | None = None
    not_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passage:
    """A retrieved entry with its scores.

    Attributes:
        score: The fused score that ranks it, higher is better.
        confidence: The chance in [0, 1] that the entry answers the question.
    """

    entry: FaqEntry
    score: float
    confidence: float
    dense: float = 0.0
    lexical: float = 0.0


@dataclass(frozen=True)
class Intent:
    """What a message wants; `probability` is calibrated, in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True)
class Choice:
    """A decision with its reason, as the trace shows it, and the passages it rests on."""

    decision: Decision
    why: str
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True)
class Sentiment:
    """How a message sounds: `positive`, `neutral` or `negative`.

    Attributes:
        probability: Calibrated, in [0, 1].
        uncertainty: The entropy of all three probabilities over its maximum, in [0, 1].
    """

    name: str
    probability: float
    uncertainty: float


@dataclass(frozen=True)
class Insight:
    """What a message is about and how it sounds, for the desk; nothing is decided by it."""

    topics: tuple[Intent, ...] = ()
    sentiment: Sentiment | None = None


@dataclass(frozen=True)
class Trace:
    """How a reply came about: enough to make it again.

    Attributes:
        reason: Why the answer is the approved text; None where the model wrote it, or where no
            entry answers.
        checks: What was found wrong with what the model wrote, and what else explains `reason`.
        dialogue: What was being talked about, as `core.dialogue` writes it.
        signals: Further figures that the decision saw, such as the chance of a question.
    """

    intents: tuple[Intent, ...] = ()
    passages: tuple[Passage, ...] = ()
    query: str = ""
    why: str = ""
    reason: FallbackReason | None = None
    checks: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    milliseconds: Mapping[str, float] = field(default_factory=dict[str, float])
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    dialogue: Mapping[str, Any] = field(default_factory=dict[str, Any])
    signals: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Reply:
    """What the answerer says about a turn.

    Attributes:
        text: Empty when nothing is to be said (a person is already on the way).
        is_markdown: The text is an approved answer in limited CommonMark; else it is literal.
        suggestions: Questions that the customer may press next.
        confidence: The chance in [0, 1] that the reply is right.
        language: ISO 639-1 code of the text.
        dialogue: What is being talked about after this reply, as `core.dialogue` writes it.
    """

    choice: Choice
    text: str
    tier: Tier
    language: str
    is_markdown: bool = False
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()
    confidence: float = 0.0
    trace: Trace = Trace()
    dialogue: Mapping[str, Any] = field(default_factory=dict[str, Any])
    insight: Insight = Insight()


@dataclass(frozen=True)
class Utterance:
    """One message of a conversation, as models see it."""

    author: Author
    text: str


@dataclass(frozen=True)
class KnowledgeBase:
    """What an inbox answers from.

    Attributes:
        texts: System texts that staff changed: `texts[locale][key]`.
        tolerated_error: The share of wrong answers that staff accept, in (0, 1).
        style: How answers are worded; None leaves it to the process's setting.
        blocked: Phrases that staff want in no generated reply.
    """

    id: KnowledgeBaseId
    name: str
    locale: str = "en"
    style: ReplyStyle | None = None
    tolerated_error: float = 0.05
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What an answerer is asked: the customer's messages of one turn and what went before.

    Attributes:
        messages: What the customer said in this turn, oldest first; answered as one.
        history: What was said before in this conversation, oldest first, bounded.
        cited: Ids of the entries that the bot's last reply rested on.
        holder: `waiting` asks for an answer only where it is sure; the bot then says nothing else.
        seconds_left: Until the turn's deadline.
        waiting: How many turns wait for an answer in all; a long queue asks for quick answers.
        dialogue: What was being talked about, as `core.dialogue` wrote it after the last turn.
        shown: Sentences that an attempt before this one showed the customer already.
    """

    knowledge_base: KnowledgeBase
    messages: tuple[str, ...]
    kind: MessageKind = MessageKind.TEXT
    history: tuple[Utterance, ...] = ()
    cited: tuple[str, ...] = ()
    locale: str | None = None
    holder: Holder = Holder.BOT
    seconds_left: float = 30.0
    waiting: int = 0
    dialogue: Mapping[str, Any] = field(default_factory=dict[str, Any])
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A claimed turn; `fence` is the attempt that its completing transaction must still hold."""

    id: TurnId
    conversation_id: ConversationId
    inbox_id: InboxId
    knowledge_base_id: KnowledgeBaseId
    fence: int
    epoch: int
    holder: Holder
    input_version: int
    attempts: int
    trace_id: str
    deadline_at: datetime
    seconds_left: float
    channel: str


@dataclass(frozen=True)
class Message:
    """A stored message of a conversation."""

    id: MessageId
    conversation_id: ConversationId
    position: int
    author: Author
    text: str
    created_at: datetime
    kind: MessageKind = MessageKind.TEXT
    is_markdown: bool = False
    decision: Decision | None = None
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()
    agent: str | None = None
    turn_id: TurnId | None = None


@dataclass(frozen=True)
class Conversation:
    """One customer's thread of messages in one place."""

    id: ConversationId
    inbox_id: InboxId
    channel: str
    key: str
    chat: str
    thread: str | None
    contact_name: str
    holder: Holder
    epoch: int
    agent: str | None
    created_at: datetime
    last_message_at: datetime
    waiting_since: datetime | None = None
    hand_off_reason: str | None = None
    working: bool = False


@dataclass(frozen=True)
class Inbox:
    """One channel account, bound to one knowledge base."""

    id: InboxId
    name: str
    channel: str
    knowledge_base_id: KnowledgeBaseId
    active: bool = True
    trouble: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One message on its way to a chat, as a claimed delivery shows it to a channel.

    Attributes:
        reply_to: The platform's id of the customer's message that it answers.
        parts_sent: How many of its parts (a long text is several posts) are already out.
        rateable: The channel may offer thumbs up and down.
        claimed_at: When this attempt began; a look-up of what was sent starts here.
    """

    id: DeliveryId
    inbox_id: InboxId
    conversation_id: ConversationId
    message_id: MessageId
    chat: str
    author: Author
    text: str
    thread: str | None = None
    private: bool = True
    reply_to: str | None = None
    is_markdown: bool = False
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()
    rateable: bool = False
    language: str = "en"
    parts_sent: int = 0
    attempts: int = 1
    trace_id: str = ""
    claimed_at: datetime | None = None


@dataclass(frozen=True)
class Limits:
    """What a platform allows; the senders of all processes share it through the database.

    Attributes:
        per_chat: Messages per `window_seconds` in one chat; None where there is no such limit.
    """

    per_chat: int | None = None
    window_seconds: float = 60.0
