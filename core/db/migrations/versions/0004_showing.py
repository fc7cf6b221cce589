"""Showing: a turn of which sentences are out takes in no more messages.

Revision ID: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# `turn_open` stays as it is: intake's `on conflict` relies on it, in code of both revisions, and
# it now leaves room for the turn that a message opens while another turn is being shown.
UPGRADE = """
alter table turn drop constraint turn_state_check;
alter table turn add constraint turn_state_check
    check (state in ('open', 'showing', 'answered', 'silent', 'failed'));
create unique index turn_showing on turn (conversation_id) where state = 'showing';
create index turn_alive on turn (conversation_id) where state in ('open', 'showing');
create index turn_alive_due on turn (due_at) where state in ('open', 'showing');
"""


def upgrade() -> None:
    """Add a state; running code of the revision before never meets it."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Not offered: turns may be in the new state."""
    raise RuntimeError("This migration cannot be taken back; restore a backup instead.")
