"""The sample shop is loaded into an empty database, once, and never over what staff wrote."""

from __future__ import annotations

from cli.commands import sample
from core import faq, intents
from core.db.connect import Database
from core.db.inboxes import base_named


async def test_an_empty_database_gets_the_sample_shop_once(
    database: Database, database_url: str
) -> None:
    told = list[str]()

    assert await sample.load(database_url, told.append)
    assert not await sample.load(database_url, told.append)

    _, total = await faq.listed(database, faq.Filter(status="published"))
    async with database.transaction() as conn:
        base = await base_named(conn, "default")
    assert total >= 120
    assert "Brackenfold" in base.texts["en"]["greeting"]
    assert len(await intents.examples(database)) >= 200
    assert told[-1] == f"Loaded {total} sample entries"


async def test_a_database_with_an_archived_entry_is_not_empty(
    database: Database, database_url: str
) -> None:
    entry = await faq.create(database, {"question": "Q?", "answer": "A."}, author="ada")
    await faq.archive(database, entry.id, author="ada")

    assert not await sample.load(database_url, print)
