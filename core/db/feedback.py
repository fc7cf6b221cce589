"""What customers think of replies."""

from __future__ import annotations

from collections.abc import Mapping

from core.db.connect import Connection
from core.types import ConversationId, MessageId, Verdict


async def verdicts(
    conn: Connection, conversation_id: ConversationId
) -> Mapping[MessageId, Verdict]:
    """Return the verdicts on the replies of a conversation."""
    cursor = await conn.execute(
        """select f.message_id, f.verdict from feedback f join message m on m.id = f.message_id
            where m.conversation_id = %(id)s order by f.created_at""",
        {"id": conversation_id},
    )
    return {MessageId(row[0]): Verdict(row[1]) for row in await cursor.fetchall()}
