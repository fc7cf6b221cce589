"""Saying: sentences shown while a reply is written, phrases that no reply may hold.

Revision ID: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
-- a checked sentence that was shown before its reply was whole; gone when the reply is committed
create table sentence (
    turn_id uuid not null references turn on delete cascade,
    position integer not null,
    conversation_id uuid not null references conversation on delete cascade,
    -- of the conversation when it was shown: a take-over ends the stream
    epoch bigint not null,
    text text not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (turn_id, position)
);
create index sentence_conversation on sentence (conversation_id);

-- staff's own list: a generated sentence that holds one is not sent
create table blocked_phrase (
    id bigint generated always as identity primary key,
    knowledge_base_id bigint not null references knowledge_base on delete cascade,
    phrase text not null constraint blocked_phrase_phrase_check check (phrase <> ''),
    author text not null default '',
    created_at timestamptz not null default now()
);
create unique index blocked_phrase_once on blocked_phrase (knowledge_base_id, lower(phrase));

alter table model_version drop constraint model_version_kind_check;
alter table model_version add constraint model_version_kind_check
    check (kind in ('encoder', 'intents', 'calibration', 'reply_adapter', 'verifier', 'reranker'));
"""


def upgrade() -> None:
    """Add tables and kinds; running code of the revision before does not see them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Not offered: staff's list would be lost."""
    raise RuntimeError("This migration cannot be taken back; restore a backup instead.")
