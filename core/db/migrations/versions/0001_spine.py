"""The spine: inboxes, conversations, turns, replies, deliveries, FAQ.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
create extension if not exists vector;

create table knowledge_base (
    id bigint generated always as identity primary key,
    name text not null constraint knowledge_base_name_key unique,
    locale text not null default 'en',
    style text constraint knowledge_base_style_check
        check (style in ('adaptive', 'verbatim', 'generated')),
    tolerated_error double precision not null default 0.05
        constraint knowledge_base_tolerated_error_check
        check (tolerated_error > 0 and tolerated_error < 1),
    texts jsonb not null default '{}',
    -- every change of an entry raises it while holding this row, so that a reader who asks for
    -- what came after the version it knows never misses a change that committed late
    faq_version bigint not null default 0,
    intents_changed_at_version bigint not null default 0,
    created_at timestamptz not null default now()
);

create table faq_entry (
    knowledge_base_id bigint not null references knowledge_base on delete cascade,
    id text not null,
    question text not null,
    normalised_question text not null,
    alternates text[] not null default '{}',
    answer text not null,
    tags text[] not null default '{}',
    locale text not null default 'en',
    entity text,
    source_url text,
    status text not null default 'draft' constraint faq_entry_status_check
        check (status in ('draft', 'published', 'archived')),
    style text constraint faq_entry_style_check
        check (style in ('adaptive', 'verbatim', 'generated')),
    valid_from timestamptz,
    valid_until timestamptz,
    version integer not null default 1,
    changed_at_version bigint not null,
    -- the clock's time, not the transaction's: an export has the order of the file it came from
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (knowledge_base_id, id)
);
create index faq_entry_changed on faq_entry (knowledge_base_id, changed_at_version);
create index faq_entry_question on faq_entry (knowledge_base_id, locale, normalised_question);

create table faq_revision (
    knowledge_base_id bigint not null,
    entry_id text not null,
    version integer not null,
    action text not null,
    author text not null,
    entry jsonb not null,
    created_at timestamptz not null default now(),
    primary key (knowledge_base_id, entry_id, version),
    foreign key (knowledge_base_id, entry_id) references faq_entry on delete cascade
);

-- vectors by the hash of their text: an edit re-encodes only what it changed
create table embedding (
    encoder text not null,
    text_hash bytea not null,
    vector vector not null,
    created_at timestamptz not null default now(),
    primary key (encoder, text_hash)
);

create table intent_example (
    knowledge_base_id bigint not null references knowledge_base on delete cascade,
    label text not null,
    text text not null,
    locale text not null default 'en',
    primary key (knowledge_base_id, label, text)
);

create table inbox (
    id bigint generated always as identity primary key,
    name text not null constraint inbox_name_key unique,
    channel text not null,
    knowledge_base_id bigint not null references knowledge_base,
    active boolean not null default true,
    trouble text,
    created_at timestamptz not null default now()
);

create table contact (
    id bigint generated always as identity primary key,
    inbox_id bigint not null references inbox on delete cascade,
    external_id text not null,
    name text not null default '',
    locale text,
    gone_at timestamptz,
    created_at timestamptz not null default now(),
    constraint contact_external_key unique (inbox_id, external_id)
);

create table conversation (
    id uuid primary key default gen_random_uuid(),
    inbox_id bigint not null references inbox on delete cascade,
    key text not null,
    chat text not null,
    thread text,
    private boolean not null default true,
    contact_id bigint not null references contact,
    holder text not null default 'bot' constraint conversation_holder_check
        check (holder in ('bot', 'waiting', 'agent', 'resolved')),
    epoch integer not null default 0,
    agent text,
    waiting_since timestamptz,
    hand_off_reason text,
    next_position bigint not null default 1,
    context_from bigint not null default 0,
    locale text,
    lease_owner text,
    lease_until timestamptz,
    fence integer not null default 0,
    created_at timestamptz not null default now(),
    last_message_at timestamptz not null default now(),
    constraint conversation_key unique (inbox_id, key)
);
create index conversation_recent on conversation (last_message_at desc);
create index conversation_waiting on conversation (waiting_since) where holder = 'waiting';
create index conversation_chat on conversation (inbox_id, chat);
create index conversation_leased on conversation (lease_owner) where lease_owner is not null;

create table turn (
    id uuid primary key default gen_random_uuid(),
    conversation_id uuid not null references conversation on delete cascade,
    inbox_id bigint not null references inbox on delete cascade,
    state text not null default 'open' constraint turn_state_check
        check (state in ('open', 'answered', 'silent', 'failed')),
    opened_at timestamptz not null default now(),
    due_at timestamptz not null,
    deadline_at timestamptz not null,
    attempts integer not null default 0,
    input_version integer not null default 1,
    rung_at timestamptz,
    error text,
    trace_id text not null,
    finished_at timestamptz
);
-- at most one open turn in a conversation: messages in quick succession are one turn
create unique index turn_open on turn (conversation_id) where state = 'open';
create index turn_due on turn (due_at) where state = 'open';
create index turn_failed on turn (finished_at) where state = 'failed';

create table message (
    id uuid primary key default gen_random_uuid(),
    conversation_id uuid not null references conversation on delete cascade,
    inbox_id bigint not null references inbox on delete cascade,
    position bigint not null,
    author text not null constraint message_author_check
        check (author in ('customer', 'bot', 'agent')),
    kind text not null default 'text',
    text text not null,
    is_markdown boolean not null default false,
    event_id text,
    external_id text,
    chat text,
    contact_id bigint references contact,
    agent text,
    client_id text,
    turn_id uuid references turn on delete set null,
    decision text,
    language text,
    citations jsonb not null default '[]',
    suggestions jsonb not null default '[]',
    trace_id text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint message_position_key unique (conversation_id, position)
);
create unique index message_event on message (inbox_id, event_id) where event_id is not null;
create unique index message_external on message (inbox_id, chat, external_id)
    where external_id is not null;
create unique index message_client on message (conversation_id, client_id)
    where client_id is not null;
create index message_turn on message (turn_id);
create index message_contact on message (contact_id, created_at);

-- one reply per turn: the primary key is the guarantee
create table reply (
    turn_id uuid primary key references turn on delete cascade,
    message_id uuid references message on delete set null,
    decision text not null,
    tier text not null,
    confidence double precision not null,
    language text not null,
    trace jsonb not null,
    created_at timestamptz not null default now()
);

create table delivery (
    id uuid primary key default gen_random_uuid(),
    conversation_id uuid not null references conversation on delete cascade,
    inbox_id bigint not null references inbox on delete cascade,
    message_id uuid not null constraint delivery_message_key unique
        references message on delete cascade,
    position bigint not null,
    epoch integer not null,
    author text not null,
    state text not null default 'pending' constraint delivery_state_check
        check (state in ('pending', 'held', 'sending', 'sent', 'uncertain', 'failed',
                         'dropped', 'expired')),
    chat text not null,
    reply_to text,
    rateable boolean not null default false,
    parts_sent integer not null default 0,
    attempts integer not null default 0,
    lease_owner text,
    due_at timestamptz not null default now(),
    expires_at timestamptz not null,
    lease_until timestamptz,
    claimed_at timestamptz,
    looked_up_at timestamptz,
    error text,
    created_at timestamptz not null default now(),
    finished_at timestamptz
);
create index delivery_due on delivery (inbox_id, due_at) where state = 'pending';
create index delivery_order on delivery (conversation_id, position)
    where state in ('pending', 'sending', 'uncertain');
create index delivery_leased on delivery (lease_until) where state = 'sending';
create index delivery_trouble on delivery (state, created_at)
    where state in ('held', 'uncertain', 'failed');
create index delivery_finished on delivery (finished_at) where finished_at is not null;

-- what stands on the platform: one row a post; also the window of the rate limits
create table post (
    delivery_id uuid not null references delivery on delete cascade,
    part integer not null,
    inbox_id bigint not null,
    chat text not null,
    external_id text not null,
    sent_at timestamptz not null default clock_timestamp(),
    primary key (delivery_id, part)
);
create index post_external on post (inbox_id, chat, external_id);
create index post_recent on post (inbox_id, chat, sent_at);

-- a platform said "wait": for a chat, or with chat '' for the whole inbox
create table pause (
    inbox_id bigint not null references inbox on delete cascade,
    chat text not null,
    until timestamptz not null,
    primary key (inbox_id, chat)
);

create table feedback (
    id bigint generated always as identity primary key,
    inbox_id bigint not null references inbox on delete cascade,
    event_id text not null,
    message_id uuid not null references message on delete cascade,
    contact_id bigint not null references contact,
    verdict text not null constraint feedback_verdict_check check (verdict in ('up', 'down')),
    created_at timestamptz not null default now(),
    constraint feedback_event_key unique (inbox_id, event_id),
    constraint feedback_message_key unique (message_id, contact_id)
);

create table handoff (
    id bigint generated always as identity primary key,
    conversation_id uuid not null references conversation on delete cascade,
    turn_id uuid references turn on delete set null,
    reason text not null,
    created_at timestamptz not null default now(),
    agent text,
    taken_at timestamptz
);
create index handoff_conversation on handoff (conversation_id, created_at);

create table request (
    id uuid primary key default gen_random_uuid(),
    kind text not null,
    payload jsonb not null,
    answer jsonb,
    error text,
    claimed_at timestamptz,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index request_open on request (created_at) where claimed_at is null;

create table process (
    name text primary key,
    role text not null,
    ready boolean not null default false,
    detail jsonb not null default '{}',
    started_at timestamptz not null default now(),
    seen_at timestamptz not null default now()
);

insert into knowledge_base (name) values ('default');
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """There is nothing before the first release."""
    raise RuntimeError("The first migration cannot be taken back; drop the database instead.")
