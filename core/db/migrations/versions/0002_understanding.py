"""Understanding: dialogue state, insight, labels, model versions, alerts, questions not answered.

Revision ID: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
-- questions that look like an entry's and are not answered by it
alter table faq_entry add column not_for text[] not null default '{}';

-- what is being talked about, as core/dialogue.py writes it; '{}' is a clean start
alter table conversation add column dialogue jsonb not null default '{}';

-- topics and sentiment of what the customer said in this turn
alter table turn add column insight jsonb not null default '{}';

-- what the right choice for a message would have been: thresholds, intents and encoders learn
-- from it. `entry_id` null means that no entry answers; `intent` null that nobody said.
create table label (
    id bigint generated always as identity primary key,
    knowledge_base_id bigint not null references knowledge_base on delete cascade,
    turn_id uuid references turn on delete set null,
    text text not null,
    history jsonb not null default '[]',
    locale text not null default 'en',
    entry_id text,
    intent text,
    -- what the bot thought then: with `is_correct` this is what thresholds are fitted on
    chosen_entry_id text,
    confidence double precision,
    is_correct boolean,
    source text not null constraint label_source_check
        check (source in ('staff', 'file', 'feedback', 'agent')),
    weight double precision not null default 1.0 constraint label_weight_check
        check (weight > 0 and weight <= 1),
    author text not null default '',
    created_at timestamptz not null default now()
);
-- staff's word on a turn replaces their earlier one; weak labels of a turn stand once by source
create unique index label_turn on label (turn_id, source) where turn_id is not null;
create index label_base on label (knowledge_base_id, created_at);

-- the bytes of artefacts by their hash, so that every worker on every machine can fetch them
create table model_blob (
    sha256 text primary key,
    content bytea not null,
    size_bytes bigint not null,
    created_at timestamptz not null default now()
);

create table model_version (
    id bigint generated always as identity primary key,
    name text not null constraint model_version_name_key unique,
    kind text not null constraint model_version_kind_check
        check (kind in ('encoder', 'intents', 'calibration', 'reply_adapter')),
    -- null: for all bases
    knowledge_base_id bigint references knowledge_base on delete cascade,
    parent_id bigint references model_version on delete set null,
    -- file name to {"sha256", "size_bytes"}; the bytes are in model_blob, larger ones under `url`
    files jsonb not null,
    url text,
    data_sha256 text not null,
    settings jsonb not null default '{}',
    metrics jsonb not null default '{}',
    author text not null default '',
    created_at timestamptz not null default now()
);
create index model_version_kind on model_version (kind, created_at);

-- the latest row of a kind and base is what serves; a rollback is a new row
create table model_promotion (
    id bigint generated always as identity primary key,
    kind text not null,
    knowledge_base_id bigint references knowledge_base on delete cascade,
    -- null: what ships with the product
    model_version_id bigint references model_version on delete cascade,
    why text not null,
    author text not null default '',
    created_at timestamptz not null default now()
);
create index model_promotion_latest on model_promotion (kind, knowledge_base_id, id desc);

-- what staff should look at: drift of scores, a rate that is no longer certified
create table alert (
    id bigint generated always as identity primary key,
    knowledge_base_id bigint not null references knowledge_base on delete cascade,
    kind text not null,
    message text not null,
    detail jsonb not null default '{}',
    raised_at timestamptz not null default now(),
    cleared_at timestamptz
);
create unique index alert_open on alert (knowledge_base_id, kind) where cleared_at is null;
create index reply_recent on reply (created_at);
"""


def upgrade() -> None:
    """Add the tables and columns; running code of the revision before does not see them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Not offered: labels would be lost."""
    raise RuntimeError("This migration cannot be taken back; restore a backup instead.")
