"""FAQ entries on a real PostgreSQL: what staff change is kept, once, and workers learn of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterable

import psycopg
import pytest

from core import faq, intents
from core.db import embeddings
from core.db import faq as rows
from core.db import intents as intent_rows
from core.db.connect import Database
from core.db.inboxes import base_named
from core.errors import Conflict, InvalidInput, NotFound
from core.faq import Filter
from core.faq_files import FORMATS, BadRow, Row, Source
from core.types import FaqEntry, KnowledgeBaseId

REFUND = {"question": "How do refunds work?", "answer": "Within **5 days**."}


def jsonl(*entries: object) -> Callable[[], Iterable[Row | BadRow]]:
    data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    return lambda: FORMATS["jsonl"].read(Source("faq.jsonl", lambda: io.BytesIO(data)))


async def base_id(database: Database) -> KnowledgeBaseId:
    async with database.transaction() as conn:
        return (await base_named(conn, "default")).id


async def changes(database: Database, version: int) -> tuple[int, dict[str, FaqEntry]]:
    base = await base_id(database)
    async with database.transaction() as conn:
        new_version, entries = await rows.changed_since(conn, base, version)
    return new_version, {entry.id: entry for entry in entries}


async def test_an_entry_is_a_draft_with_a_readable_id_until_somebody_says_otherwise(
    database: Database,
) -> None:
    entry = await faq.create(database, REFUND, author="ada")

    assert (entry.id, entry.status, entry.version) == ("how-do-refunds-work", "draft", 1)
    assert await faq.get(database, entry.id) == entry


async def test_two_entries_with_one_question_get_different_ids(database: Database) -> None:
    first = await faq.create(database, REFUND, author="ada")
    second = await faq.create(database, REFUND, author="ada")

    assert (first.id, second.id) == ("how-do-refunds-work", "how-do-refunds-work-2")


async def test_creating_the_same_entry_again_returns_it_and_another_under_its_id_conflicts(
    database: Database,
) -> None:
    entry = await faq.create(database, {**REFUND, "id": "refunds"}, author="ada")

    assert await faq.create(database, {**REFUND, "id": "refunds"}, author="ada") == entry
    with pytest.raises(Conflict, match="already an entry refunds"):
        await faq.create(database, {**REFUND, "id": "refunds", "answer": "Never."}, author="bob")


async def test_an_edit_of_a_version_that_is_no_longer_current_conflicts(database: Database) -> None:
    entry = await faq.create(database, REFUND, author="ada")
    await faq.edit(database, entry.id, {"answer": "In a week."}, author="ada", version=1)

    with pytest.raises(Conflict, match="at version 2, not 1"):
        await faq.edit(database, entry.id, {"answer": "Never."}, author="bob", version=1)
    assert (await faq.get(database, entry.id)).answer == "In a week."


async def test_of_two_edits_of_one_version_at_once_exactly_one_is_kept(database: Database) -> None:
    entry = await faq.create(database, REFUND, author="ada")

    results = await asyncio.gather(
        *(
            faq.edit(database, entry.id, {"answer": f"Answer {n}"}, author=f"{n}", version=1)
            for n in range(8)
        ),
        return_exceptions=True,
    )

    kept = [result for result in results if isinstance(result, FaqEntry)]
    assert len(kept) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert (await faq.get(database, entry.id)).answer == kept[0].answer


async def test_an_edit_keeps_what_it_does_not_mention_and_one_without_effect_makes_no_version(
    database: Database,
) -> None:
    entry = await faq.create(database, {**REFUND, "tags": ["money"]}, author="ada")

    edited = await faq.edit(database, entry.id, {"status": "published"}, author="ada")
    again = await faq.edit(database, entry.id, {"status": "published"}, author="ada")

    assert (edited.tags, edited.status, edited.version) == (("money",), "published", 2)
    assert again == edited
    assert len(await faq.history(database, entry.id)) == 2


async def test_an_id_cannot_be_changed(database: Database) -> None:
    entry = await faq.create(database, REFUND, author="ada")

    with pytest.raises(InvalidInput, match="cannot be changed"):
        await faq.edit(database, entry.id, {"id": "other"}, author="ada")


async def test_an_archived_entry_is_listed_only_when_asked_for_and_can_be_restored(
    database: Database,
) -> None:
    entry = await faq.create(
        database,
        {**REFUND, "status": "published", "valid_from": "2025-01-01", "style": "verbatim"},
        author="ada",
    )
    archived = await faq.archive(database, entry.id, author="bob")

    assert archived.status == "archived"
    assert await faq.listed(database) == ([], 0)
    assert (await faq.listed(database, Filter(status="archived")))[1] == 1

    restored = await faq.restore(database, entry.id, 1, author="ada")
    assert (restored.status, restored.version) == ("published", 3)
    assert restored.valid_from == entry.valid_from
    assert restored.style == "verbatim"
    assert [
        (revision.version, revision.action, revision.author)
        for revision in await faq.history(database, entry.id)
    ] == [(3, "restore", "ada"), (2, "archive", "bob"), (1, "create", "ada")]


async def test_what_does_not_exist_is_named(database: Database) -> None:
    await faq.create(database, {**REFUND, "id": "refunds"}, author="ada")

    for call in (
        faq.get(database, "nothing"),
        faq.archive(database, "nothing", author="ada"),
        faq.history(database, "nothing"),
        faq.restore(database, "refunds", 7, author="ada"),
        faq.create(database, REFUND, author="ada", base="nowhere"),
    ):
        with pytest.raises(NotFound, match=r"nothing|version 7|nowhere"):
            await call


async def test_a_list_is_filtered_and_paged_and_counts_all(database: Database) -> None:
    for number in range(5):
        await faq.create(
            database,
            {
                "question": f"Question {number}?",
                "answer": "100% sure" if number == 3 else "Yes",
                "locale": "de" if number % 2 else "en",
                "tags": ["odd"] if number % 2 else [],
            },
            author="ada",
        )

    page, total = await faq.listed(database, limit=2, offset=1)
    assert ([entry.question for entry in page], total) == (["Question 3?", "Question 2?"], 5)
    assert (await faq.listed(database, Filter(locale="de")))[1] == 2
    assert (await faq.listed(database, Filter(tag="odd", status="draft")))[1] == 2
    assert (await faq.listed(database, Filter(text="question 4")))[1] == 1
    assert (await faq.listed(database, Filter(text="0% S")))[1] == 1
    assert (await faq.listed(database, Filter(text="1_0")))[1] == 0


async def test_readers_learn_of_every_change_also_of_what_is_no_longer_published(
    database: Database,
) -> None:
    entry = await faq.create(database, {**REFUND, "status": "published"}, author="ada")
    version, seen = await changes(database, 0)
    assert seen[entry.id].status == "published"
    assert await changes(database, version) == (version, {})

    await faq.archive(database, entry.id, author="ada")
    newer, seen = await changes(database, version)

    assert newer > version
    assert seen[entry.id].status == "archived"


async def test_a_reader_that_follows_many_writers_misses_nothing(database: Database) -> None:
    known: dict[str, str] = {}
    writing = asyncio.Event()

    async def write(writer: int) -> None:
        entry = await faq.create(database, {**REFUND, "id": f"e{writer}"}, author="ada")
        for number in range(10):
            await faq.edit(database, entry.id, {"answer": f"{number}"}, author="ada")

    async def read() -> None:
        version = 0
        while True:
            last_round = writing.is_set()
            newer, seen = await changes(database, version)
            assert newer >= version
            version = newer
            known.update({entry.id: entry.answer for entry in seen.values()})
            if last_round:
                return

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(writer) for writer in range(6)))
    writing.set()
    await reader

    assert known == {f"e{writer}": "9" for writer in range(6)}


async def test_a_change_that_commits_late_is_not_skipped(database_url: str) -> None:
    async with Database(database_url) as database:
        base = await base_id(database)
        async with database.transaction() as slow:
            await rows.lock_base(slow, "default")
            version = await rows.raise_version(slow, base)
            quick = asyncio.create_task(faq.create(database, REFUND, author="quick"))
            seen_before, entries = await changes(database, 0)
            assert (seen_before, entries) == (0, {})
            entry = FaqEntry(id="slow", question="Slow?", answer="Yes.")
            await rows.save(slow, base, entry, faq_version=version, action="create", author="slow")
        await quick
        newest, entries = await changes(database, 0)

    assert newest == 2
    assert set(entries) == {"slow", "how-do-refunds-work"}


async def test_workers_are_notified_with_the_base_when_a_change_commits(
    database: Database, database_url: str
) -> None:
    base = await base_id(database)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute("listen deskhand_faq")
        await faq.create(database, REFUND, author="ada")

        note = await anext(listener.notifies(timeout=10))

    assert note.payload == str(base)


async def test_an_import_is_idempotent_on_the_id(database: Database) -> None:
    entries = [{"id": f"q{n}", "question": f"Question {n}?", "answer": "Yes."} for n in range(450)]

    first = await faq.import_rows(database, jsonl(*entries), author="ada")
    version, _ = await changes(database, 0)
    second = await faq.import_rows(database, jsonl(*entries), author="ada")

    assert (first.created, first.updated, first.unchanged) == (450, 0, 0)
    assert (second.created, second.updated, second.unchanged) == (0, 0, 450)
    assert await changes(database, version) == (version, {})
    assert (await faq.get(database, "q7")).status == "published"


async def test_a_row_without_id_is_matched_by_locale_and_normalised_question(
    database: Database,
) -> None:
    await faq.import_rows(
        database,
        jsonl(
            {"id": "hours", "question": "When are you open?", "answer": "9 to 5", "tags": ["shop"]},
            {"question": "When are you open?", "answer": "9 bis 17 Uhr", "locale": "de"},
        ),
        author="ada",
    )
    report = await faq.import_rows(
        database, jsonl({"question": "when are  you OPEN", "answer": "10 to 6"}), author="ada"
    )

    assert (report.created, report.updated) == (0, 1)
    hours = await faq.get(database, "hours")
    assert (hours.answer, hours.tags) == ("10 to 6", ("shop",))
    assert (await faq.listed(database))[1] == 2


async def test_a_bad_row_is_reported_with_its_line_and_the_rest_is_imported(
    database: Database,
) -> None:
    report = await faq.import_rows(
        database,
        jsonl(
            {"id": "a", "question": "A?", "answer": "Yes."},
            {"id": "b", "question": "B?", "answer": " "},
            {"id": "a", "question": "A again?", "answer": "No."},
            {"question": "C?", "answer": "Yes.", "color": "red"},
            {"question": "c", "answer": "Twice."},
        ),
        author="ada",
        name="faq.jsonl",
    )

    assert report.lines() == [
        "faq.jsonl line 2: answer is blank; every entry needs one.",
        "faq.jsonl line 3: line 1 already holds this entry (a).",
        "faq.jsonl line 5: line 4 already holds this entry (c).",
    ]
    assert (report.created, report.ignored, report.imported) == (2, {"color"}, True)


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "b", "question": "B?", "answer": ""},  # seen before anything is stored
        {"id": "a", "question": "A again?", "answer": "No."},  # seen only beside the others
    ],
)
async def test_a_strict_import_with_a_bad_row_changes_nothing(
    database: Database, bad: dict[str, str]
) -> None:
    report = await faq.import_rows(
        database,
        jsonl({"id": "a", "question": "A?", "answer": "Yes."}, bad),
        author="ada",
        strict=True,
    )

    assert (report.imported, report.created, report.rejected_total) == (False, 0, 1)
    assert await changes(database, 0) == (0, {})


async def test_two_imports_of_one_file_at_once_make_each_entry_once(database: Database) -> None:
    entries = [{"question": f"Question {n}?", "answer": "Yes."} for n in range(300)]

    reports = await asyncio.gather(
        *(faq.import_rows(database, jsonl(*entries), author=f"{n}") for n in range(3))
    )

    assert sum(report.created for report in reports) == 300
    assert sum(report.unchanged for report in reports) == 600
    assert (await faq.listed(database))[1] == 300


async def test_an_export_has_the_order_of_the_file_it_came_from(database: Database) -> None:
    entries = [{"question": f"Question {n}?", "answer": "Yes."} for n in (3, 1, 2)]
    await faq.import_rows(database, jsonl(*entries), author="ada")

    exported = await faq.exported(database)

    assert [entry.question for entry in exported] == ["Question 3?", "Question 1?", "Question 2?"]


async def test_vectors_are_kept_by_the_hash_of_their_text(database: Database) -> None:
    vectors = {bytes([n]) * 32: [n / 7, -1.0, 1e-9] for n in range(3)}
    async with database.transaction() as conn:
        await embeddings.put_many(conn, "e5", vectors)
        await embeddings.put_many(conn, "e5", vectors)  # another worker was first
        known = await embeddings.get_many(conn, "e5", [*vectors, b"unknown"])
        other = await embeddings.get_many(conn, "other", list(vectors))

    assert other == {}
    assert known.keys() == vectors.keys()
    for key, vector in vectors.items():
        assert known[key] == pytest.approx(vector, rel=1e-6)


async def test_new_intent_examples_replace_the_old_ones_and_readers_learn_of_it(
    database: Database,
) -> None:
    base = await base_id(database)
    lines = ["\ufefftext,label,locale\n", "where is it,order_status,en\n", "wo,order_status,de\n"]
    await intents.replace_examples(database, intents.read_examples(lines, "intents.csv"))
    version, _ = await changes(database, 0)

    async with database.transaction() as conn:
        assert len(await intent_rows.changed_since(conn, base, 0) or []) == 2
        assert await intent_rows.changed_since(conn, base, version) is None

    await faq.create(database, REFUND, author="ada")
    async with database.transaction() as conn:
        assert await intent_rows.changed_since(conn, base, version) is None

    await intents.replace_examples(database, [intent_rows.Example("hi", "greeting")])
    assert [each.label for each in await intents.examples(database)] == ["greeting"]
    async with database.transaction() as conn:
        assert await intent_rows.changed_since(conn, base, version) == [
            intent_rows.Example("hi", "greeting")
        ]
