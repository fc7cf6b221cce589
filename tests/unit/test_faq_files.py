"""Files of FAQ entries: each format reads what people write, and gives back what it wrote."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from cli.formats import FORMATS
from core.errors import InvalidInput
from core.faq_entries import checked, join_list, normalised, slug, split_list
from core.faq_files import BadRow, Row, Source, format_for
from core.types import FaqEntry, ReplyStyle


def read(ending: str, data: str | bytes) -> list[Row | BadRow]:
    raw = data.encode() if isinstance(data, str) else data
    return list(FORMATS[ending].read(Source(f"faq.{ending}", lambda: io.BytesIO(raw))))


def rows(ending: str, data: str | bytes) -> list[Row]:
    found = read(ending, data)
    assert all(isinstance(row, Row) for row in found), found
    return [row for row in found if isinstance(row, Row)]


def written(ending: str, entries: Iterable[FaqEntry]) -> bytes:
    return b"".join(FORMATS[ending].write(entries))


def round_trip(ending: str, entries: Iterable[FaqEntry]) -> list[FaqEntry]:
    return [checked(row.values) for row in rows(ending, written(ending, entries))]


RICH = FaqEntry(
    id="warranty|lamp",
    question="How long is the warranty?",
    answer='**2 years**, see [terms](https://shop.example/t); "really".\n\n- one\n- two; 3, 4',
    alternates=("guarantee?", "broken | what now", "back\\slash", '=HYPERLINK("x")'),
    tags=("lamps", "warranty"),
    locale="en-GB",
    entity="Lumen 2",
    source_url="https://shop.example/help?a=1&b=2",
    status="published",
    style=ReplyStyle.VERBATIM,
    valid_from=datetime(2025, 1, 1, tzinfo=UTC),
    valid_until=datetime(2025, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)
PLAIN = FaqEntry(id="42", question="可以退货吗？", answer="可以，30 天内。", locale="zh")
AWKWARD = [
    FaqEntry(id="a", question="# Heading?", answer="# A heading\n\nAlso asked as:\n\n- not one"),
    FaqEntry(id="b", question="Fence?", answer="```\n# not a heading"),
    FaqEntry(id="c", question="Rule #", answer="Text\n---\nmore --> and <!-- deskhand: {} -->"),
    FaqEntry(id="d", question="=1+1", answer="<!-- deskhand: {} -->", alternates=("- x",)),
    FaqEntry(
        id="e",
        question="When?",
        answer="1",
        valid_from=datetime(2025, 3, 1, 9, 30, tzinfo=UTC),
        valid_until=datetime(2025, 3, 1, 18, 0, 0, 5, tzinfo=UTC),
    ),
]


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_an_export_reads_back_as_it_was(ending: str) -> None:
    entries = [RICH, PLAIN, *AWKWARD]

    assert round_trip(ending, entries) == entries


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_an_export_of_nothing_can_be_written(ending: str) -> None:
    data = written(ending, [])

    assert isinstance(data, bytes)


words = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=60
)
lines = words.map(lambda text: " ".join(text.split())).filter(bool)


@st.composite
def entries(draw: st.DrawFn) -> FaqEntry:
    try:
        return checked(
            {
                "id": "one",
                "question": draw(lines),
                "answer": draw(words.filter(str.strip)),
                "alternates": draw(st.lists(lines, max_size=3)),
                "tags": draw(st.lists(lines, max_size=3)),
                "entity": draw(st.none() | lines),
            }
        )
    except InvalidInput:  # the answer happens to link to something odd
        return FaqEntry(id="one", question="Odd?", answer="Odd.")


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "md"])
@given(kept=st.lists(entries(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_an_entry_says_survives_a_file(ending: str, kept: list[FaqEntry]) -> None:
    assert round_trip(ending, kept) == kept


@given(pieces=st.lists(st.text(alphabet="ab|\\ ", max_size=6), min_size=1, max_size=5))
def test_a_list_joined_by_bars_splits_into_the_same_pieces(pieces: list[str]) -> None:
    assert split_list(join_list(pieces)) == pieces


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_with_any_separator_mark_and_line_end(
    separator: str, mark: bytes, end: str
) -> None:
    table = [["Question", "ANSWER", "Source URL", "tags"], ["Q?", '"A, b; c"', "", "x|y"]]
    data = mark + end.join(separator.join(row) for row in table).encode()

    assert rows("csv", data) == [
        Row(2, {"question": "Q?", "answer": "A, b; c", "source_url": "", "tags": "x|y"})
    ]


def test_a_row_is_named_by_its_physical_line_also_after_texts_of_several_lines() -> None:
    data = 'question,answer\nA?,"one\ntwo\n\nfour"\n\nB?,b\nC?,c,too,many\nD?,"d" e\nF?,f\n'

    found = read("csv", data)

    assert [row.line for row in found] == [2, 7, 8, 9, 10]
    assert [row.line for row in found if isinstance(row, BadRow)] == [8, 9]


def test_a_quote_that_is_never_closed_is_told_with_the_line_where_it_opens() -> None:
    found = read("csv", 'question,answer\nA?,a\nB?,"b\nC?,c\n')

    assert isinstance(found[-1], BadRow)
    assert (len(found), found[-1].line) == (2, 3)
    assert "never ends" in found[-1].reason


@pytest.mark.parametrize(
    ("ending", "data", "message"),
    [
        ("csv", "", "faq.csv is empty"),
        ("csv", "\n\n", "faq.csv is empty"),
        ("csv", "question,anwser\nA?,a", "faq.csv line 1: no column is named answer; is anwser"),
        ("csv", "question,answer,Question\n", "column question stands twice"),
        ("csv", b"question,answer\nA?,a\nB?,\xff\n", "faq.csv line 3: not UTF-8"),
        ("jsonl", b'{"question": "\xe9"}\n', "faq.jsonl line 1: not UTF-8"),
        ("json", '[{"question": "A?"},\n{"question" "B?"}]', "faq.json line 2: not JSON"),
        ("json", '[{"question": "A?"}', "faq.json line 1: not JSON"),
        ("json", '"text"', "neither a list of entries"),
        ("json", '{"items": []}', 'no list under "entries"'),
        ("json", "[" * 100_000, "nested too deeply"),
        ("md", "just text\n", "holds no heading"),
        ("xlsx", b"not a zip", "no Excel workbook"),
        ("xlsx", b"PK\x03\x04 broken", "no Excel workbook"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused_with_the_place(
    ending: str, data: str | bytes, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(ending, data)


def test_unknown_columns_are_told_and_our_own_read_only_ones_are_not() -> None:
    (row,) = rows("csv", "question,answer,colour,version,updated_at\nA?,a,red,3,2025-01-01\n")

    assert row.unknown == ("colour",)
    assert checked(row.values).question == "A?"


def test_json_may_be_an_array_or_an_object_with_entries() -> None:
    array = '[\n {"question": "A?", "answer": "a"},\n\n {"question": "B?", "answer": "b"}\n]'
    wrapped = '{"version": 1, "more": [{}],\n"entries": ' + array + "}"

    assert [row.line for row in rows("json", array)] == [2, 4]
    assert [row.line for row in rows("json", wrapped)] == [3, 5]
    assert rows("json", "[]") == []


def test_a_line_that_is_not_json_does_not_keep_the_others_out() -> None:
    found = read("jsonl", '{"question": "A?", "answer": "a"}\n\nnonsense\n[1]\n')

    assert [row.line for row in found] == [1, 3, 4]
    assert [type(row) for row in found] == [Row, BadRow, BadRow]


def test_markdown_headings_are_questions_and_titles_are_not() -> None:
    document = """---
title: ignored
---
# Help

## Can I return it?

Yes, within **30 days**.

```sh
# not a heading
```

Also asked as:

- refund?
* send back

## Nothing here
## Shipping

Where do you ship?
------------------

Everywhere.
"""
    found = read("md", document)

    assert found == [
        Row(
            6,
            {
                "question": "Can I return it?",
                "alternates": ["refund?", "send back"],
                "answer": "Yes, within **30 days**.\n\n```sh\n# not a heading\n```",
            },
        ),
        BadRow(19, "the heading 'Nothing here' has no answer below it."),
        BadRow(20, "the heading 'Shipping' has no answer below it."),
        Row(22, {"question": "Where do you ship?", "answer": "Everywhere."}),
    ]


def test_a_workbook_gives_days_numbers_and_texts_as_people_see_them() -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Question", "answer", "id", "valid until", "tags", None])
    sheet.append([None] * 6)
    sheet.append(["A?", 5.0, 12, datetime(2025, 1, 31), 7, None])
    buffer = io.BytesIO()
    book.save(buffer)

    (row,) = rows("xlsx", buffer.getvalue())

    assert row.line == 3
    assert row.values["valid_until"] == date(2025, 1, 31)
    entry = checked(row.values)
    assert (entry.answer, entry.id, entry.tags) == ("5", "12", ("7",))
    assert entry.valid_until == datetime(2025, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.xml", bytes(80_000_000))

    with pytest.raises(InvalidInput, match="unpacks to 320 MB"):
        read("xlsx", buffer.getvalue())


def test_a_format_is_found_by_a_files_name_or_a_bare_word() -> None:
    assert format_for("a.b/FAQ.CSV", FORMATS) is FORMATS["csv"]
    assert format_for("markdown", FORMATS) is FORMATS["md"]
    with pytest.raises(InvalidInput, match=r"faq\.doc is in no known format; known are csv, json"):
        format_for("faq.doc", FORMATS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": " \n"}, "question is blank"),
        ({"answer": None}, "answer is blank"),
        ({"question": "x" * 501}, "question has 501 characters, 500 are the most"),
        ({"answer": "x" * 8001}, "answer has 8,001 characters"),
        ({"answer": "a\x00b"}, "NUL character"),
        ({"question": "a\ud800"}, "lone surrogate"),
        ({"question": ["a"]}, "question is not a text"),
        ({"question": True}, "question is not a text"),
        ({"alternates": ["x"] * 3 + [str(n) for n in range(51)]}, "alternates holds 52 texts"),
        ({"alternates": {"a": 1}}, "alternates is not a list"),
        ({"tags": [["x"]]}, "tags is not a text"),
        ({"tags": "x" * 61}, "tags has 61 characters, 60 are the most"),
        ({"locale": "english"}, "locale english is no language tag"),
        ({"status": "live"}, "status live is none of draft, published, archived"),
        ({"style": "poetic"}, "style poetic is none of"),
        ({"source_url": "ftp://x.example"}, "source_url ftp://x.example is no web address"),
        ({"source_url": "https://x.example/a b"}, "no web address"),
        ({"valid_from": "soon"}, "valid_from soon is no date; write it like 2025-01-31"),
        (
            {"valid_from": "2025-02-01", "valid_until": "2025-01-01"},
            "valid_until 2025-01-01 is before valid_from; swap them or clear one.",
        ),
        ({"id": "a/b"}, "holds a slash"),
        ({"id": "search"}, "reserved word"),
        ({"answer": "[x](javascript:alert(1))"}, "answer links to javascript:alert"),
        ({"answer": "![x](data:image/png;base64,AA)"}, "answer links to data:"),
        ({"answer": "![x](mailto:a@b.example)"}, "answer links to mailto:"),
        ({"answer": "[![x](data:y)](https://a.example)"}, "answer links to data:y"),
        ({"answer": "[![x](https://a.example)](javascript:y)"}, "answer links to javascript:y"),
        ({"answer": "[x]\n\n[x]: /relative"}, "answer links to /relative"),
        ({"answer": "<javascript:alert(1)>"}, "answer links to javascript:"),
        ({"colour": "red"}, "There is no field colour"),
    ],
)
def test_what_is_wrong_with_an_entry_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        checked({"question": "A?", "answer": "a", **values})

    assert caught.value.field == next(reversed(values))


@pytest.mark.parametrize(
    "answer",
    [
        "Write `[x](javascript:y)` as it stands.",
        "```\n<script:x>\n```\nand [this](https://a.example) or <https://b.example/?q=1>",
        "[mail](mailto:a@b.example) or <mailto:a@b.example>",
        "a < b and c > d, [brackets] (and more)",
        '![picture](http://a.example/p.png "title")',
    ],
)
def test_code_and_web_links_are_fine_in_an_answer(answer: str) -> None:
    assert checked({"question": "A?", "answer": answer}).answer == answer


def test_values_are_kept_in_one_spelling() -> None:
    entry = checked(
        {
            "question": "  How \n long? ",
            "answer": "a\r\nb\r",
            "alternates": ["x", "X ", "", "y"],
            "locale": "ZH_hant_tw",
            "status": "Published",
            "valid_from": "2025-01-31T18:00+01:00",
            "entity": " ",
        }
    )

    assert entry == FaqEntry(
        id="",
        question="How long?",
        answer="a\nb",
        alternates=("x", "y"),
        locale="zh-Hant-TW",
        status="published",
        valid_from=datetime(2025, 1, 31, 17, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("How do refunds work?", "how-do-refunds-work"),
        ("What’s your café's address?!", "whats-your-cafes-address"),
        ("可以退货吗？", "可以退货吗"),
        ("???", "???"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word"),
    ],
)
def test_an_id_is_a_short_readable_form_of_the_question(question: str, name: str) -> None:
    assert slug(question) == name


def test_a_question_is_found_again_without_case_punctuation_and_spacing() -> None:
    assert normalised("  Where's my ＯＲＤＥＲ?! ") == normalised("where s my order")
