"""What a FAQ entry may hold; pure: from what a person or a file says to a checked entry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import cast
from urllib.parse import urlsplit

from core.errors import InvalidInput
from core.types import FaqEntry, ReplyStyle

FIELDS = (
    "id",
    "question",
    "answer",
    "alternates",
    "tags",
    "locale",
    "entity",
    "source_url",
    "status",
    "style",
    "valid_from",
    "valid_until",
    "not_for",
)
"""What a file or a request may say about an entry, in the order of an export's columns."""

READ_ONLY = ("version", "updated_at", "created_at")
"""What our own answers carry beside them; taken back without complaint, and not used."""

STATUSES = ("draft", "published", "archived")

ID_LIMIT_CHARACTERS = 200
QUESTION_LIMIT_CHARACTERS = 500
ANSWER_LIMIT_CHARACTERS = 8_000
ALTERNATES_LIMIT = 50
NOT_FOR_LIMIT = 50
TAGS_LIMIT = 20
TAG_LIMIT_CHARACTERS = 60
ENTITY_LIMIT_CHARACTERS = 200
URL_LIMIT_CHARACTERS = 2_000
SLUG_LIMIT_CHARACTERS = 48

RESERVED_IDS = frozenset({"import", "export", "search", ".", ".."})
"""Words that mean something else in the address /v1/faq/<id>."""

END_OF_DAY = time(23, 59, 59, 999_999)
"""A valid_until that names a day includes that day."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:-([A-Za-z]{4}))?(?:-([A-Za-z]{2}|[0-9]{3}))?")
_NOT_A_WORD = re.compile(r"[\W_]+")
_CODE = re.compile(r"(?ms)^(`{3,}|~{3,}).*?^\1|(`+)[^`].*?\2")
_MAIL_PICTURE = re.compile(r"(?i)!\[[^\]]*\]\(\s*<?mailto:")
_TARGETS = re.compile(
    r"""(?mx)
      \]\( \s* <? ([^)\s>]*)              # [words](target), ![picture](target)
    | ^ [ ]{0,3} \[[^\]]+\]: \s* <? (\S+) # [reference]: target
    | < ([A-Za-z][A-Za-z0-9+.-]*:[^>\s]*) > # <target>
    """
)


@dataclass(frozen=True)
class _Said:
    """What somebody says about an entry, and what stands where they say nothing."""

    values: Mapping[str, object]
    like: FaqEntry

    def text(self, field: str, limit: int, kept: str | None) -> str | None:
        """Return a text of one line or more, None where it is empty."""
        if field not in self.values:
            return kept
        return _text(self.values[field], field, limit)

    def many(self, field: str, limit: int, each: int, kept: Sequence[str]) -> tuple[str, ...]:
        """Return a list of short texts, each of them once."""
        if field not in self.values:
            return tuple(kept)
        return _many(self.values[field], field, limit, each)


def checked(
    values: Mapping[str, object],
    *,
    like: FaqEntry | None = None,
    locale: str = "en",
    status: str = "draft",
) -> FaqEntry:
    """Return the entry that somebody describes.

    Args:
        values: What they say, by the names in `FIELDS`; lists may come as texts separated by `|`.
        like: The entry that is changed: what they do not mention stays as it is there.
        locale: Of a new entry that names none.
        status: Of a new entry that names none.

    Returns:
        The entry; its id is empty where they give none.

    Raises:
        InvalidInput: Something is wrong; `field` names it.
    """
    for name in values:
        if name not in FIELDS and name not in READ_ONLY:
            raise InvalidInput(
                f"There is no field {name}; known are {', '.join(FIELDS)}.", field=name
            )
    before = like or FaqEntry(id="", question="", answer="", locale=locale, status=status)
    said = _Said(values, before)
    question = _required(
        said.text("question", QUESTION_LIMIT_CHARACTERS, before.question), "question"
    )
    entry = FaqEntry(
        id=_id(values.get("id")) or before.id,
        question=" ".join(question.split()),
        answer=_answer(said.text("answer", ANSWER_LIMIT_CHARACTERS, before.answer)),
        alternates=said.many(
            "alternates", ALTERNATES_LIMIT, QUESTION_LIMIT_CHARACTERS, before.alternates
        ),
        tags=said.many("tags", TAGS_LIMIT, TAG_LIMIT_CHARACTERS, before.tags),
        locale=_locale(values.get("locale")) or before.locale,
        entity=said.text("entity", ENTITY_LIMIT_CHARACTERS, before.entity),
        source_url=_url(said.text("source_url", URL_LIMIT_CHARACTERS, before.source_url)),
        status=_status(values.get("status")) or before.status,
        style=_style(values["style"]) if "style" in values else before.style,
        valid_from=_moment(values["valid_from"], "valid_from", time.min)
        if "valid_from" in values
        else before.valid_from,
        valid_until=_moment(values["valid_until"], "valid_until", END_OF_DAY)
        if "valid_until" in values
        else before.valid_until,
        version=before.version,
        updated_at=before.updated_at,
        not_for=said.many("not_for", NOT_FOR_LIMIT, QUESTION_LIMIT_CHARACTERS, before.not_for),
    )
    _check_period(entry)
    _check_not_for(entry)
    return entry


def same(one: FaqEntry, other: FaqEntry) -> bool:
    """Tell whether two entries say the same, whatever their versions."""
    return all(getattr(one, name) == getattr(other, name) for name in FIELDS)


def normalised(question: str) -> str:
    """Return a question by which it is found again: without case, punctuation and spacing."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    # cut: compatibility forms may grow eighteenfold, and an index holds 2,700 bytes
    return (_NOT_A_WORD.sub(" ", folded).strip() or folded.strip())[:QUESTION_LIMIT_CHARACTERS]


def slug(question: str) -> str:
    """Return a short, readable id for a question; letters of all scripts stay."""
    plain = unicodedata.normalize("NFKD", question).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = unicodedata.normalize("NFC", plain).replace("'", "").replace("\u2019", "")
    name = ""
    for word in filter(None, _NOT_A_WORD.split(plain)):
        longer = f"{name}-{word}" if name else word
        if len(longer) > SLUG_LIMIT_CHARACTERS:
            break
        name = longer
    return name or normalised(question)[:SLUG_LIMIT_CHARACTERS].strip() or "entry"


def free_id(question: str, taken: set[str]) -> str:
    """Return an id for a question that no other entry has."""
    name = slug(question).replace("/", "-")
    candidate, number = name, 1
    while candidate in taken or candidate in RESERVED_IDS:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def split_list(text: str) -> list[str]:
    r"""Split a text at `|`; `\|` is a bar that belongs to a piece, and `\\` a backslash."""
    pieces, piece, index = list[str](), "", 0
    while index < len(text):
        character, following = text[index], text[index + 1 : index + 2]
        if character == "\\" and following in ("|", "\\") and following:
            piece += following
            index += 1
        elif character == "|":
            pieces.append(piece)
            piece = ""
        else:
            piece += character
        index += 1
    return [*pieces, piece]


def join_list(pieces: Sequence[str]) -> str:
    """Join texts so that `split_list` gives them back."""
    return "|".join(piece.replace("\\", "\\\\").replace("|", "\\|") for piece in pieces)


def moment_text(moment: datetime | None, *, end: bool = False) -> str | None:
    """Return a moment as people write it: a day where it is a whole one, else with its time.

    Args:
        moment: A bound of validity.
        end: It is the last moment of the validity.
    """
    if moment is None:
        return None
    moment = moment.astimezone(UTC)
    whole_day = moment.time() == (END_OF_DAY if end else time.min)
    return moment.date().isoformat() if whole_day else moment.isoformat()


def _text(value: object, field: str, limit: int) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{field} is not a text.", field=field)
    text = str(value).replace("\r\n", "\n").replace("\r", "\n").strip()
    if _UNSTORABLE.search(text):
        raise InvalidInput(
            f"{field} holds a NUL character or a lone surrogate; remove it.", field=field
        )
    if len(text) > limit:
        raise InvalidInput(
            f"{field} has {len(text):,} characters, {limit:,} are the most; shorten it.",
            field=field,
        )
    return text or None


def _required(value: str | None, field: str) -> str:
    if not value:
        raise InvalidInput(f"{field} is blank; every entry needs one.", field=field)
    return value


def _many(value: object, field: str, limit: int, each: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = split_list(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = [str(value)]  # a spreadsheet's cell that holds one number
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{field} is not a list of texts.", field=field)
    kept = dict[str, str]()
    for piece in cast("Sequence[object]", value):
        text = _text(piece, field, each)
        if text:
            text = " ".join(text.split())
            kept.setdefault(text.casefold(), text)
    if len(kept) > limit:
        raise InvalidInput(f"{field} holds {len(kept)} texts, {limit} are the most.", field=field)
    return tuple(kept.values())


def _id(value: object) -> str | None:
    text = _text(value, "id", ID_LIMIT_CHARACTERS)
    if text is None:
        return None
    if _CONTROL.search(text) or "/" in text:
        raise InvalidInput(f"id {text!r} holds a slash or a control character.", field="id")
    if text in RESERVED_IDS:
        raise InvalidInput(f"id {text} is a reserved word; choose another.", field="id")
    return text


def _answer(value: str | None) -> str:
    answer = _required(value, "answer")
    shown = _CODE.sub("", answer)
    for match in _TARGETS.finditer(shown):
        target = next((group for group in match.groups() if group is not None), "")
        is_mail = target.lower().startswith("mailto:") and not _MAIL_PICTURE.search(shown)
        if not is_mail and not _is_http(target):
            raise InvalidInput(
                f"answer links to {target or 'nothing'}; links and images must begin with "
                "http:// or https://, links to a mailbox with mailto:.",
                field="answer",
            )
    return answer


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:  # such as an IPv6 address with a bracket missing
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)


def _url(value: str | None) -> str | None:
    if value is not None and (not _is_http(value) or re.search(r"\s", value)):
        raise InvalidInput(
            f"source_url {value} is no web address; it must begin with http:// or https://.",
            field="source_url",
        )
    return value


def _locale(value: object) -> str | None:
    text = _text(value, "locale", 35)
    if text is None:
        return None
    match = _LOCALE.fullmatch(text.replace("_", "-"))
    if match is None:
        raise InvalidInput(
            f"locale {text} is no language tag; write it like en, pt-BR or zh-Hant.", field="locale"
        )
    language, script, region = match.groups()
    parts = (language.lower(), script and script.title(), region and region.upper())
    return "-".join(part for part in parts if part)


def _status(value: object) -> str | None:
    text = _text(value, "status", 20)
    if text is not None and text.lower() not in STATUSES:
        raise InvalidInput(
            f"status {text} is none of {', '.join(STATUSES)}.",
            field="status",
        )
    return text and text.lower()


def _style(value: object) -> ReplyStyle | None:
    text = _text(value, "style", 20)
    try:
        return ReplyStyle(text.lower()) if text else None
    except ValueError:
        raise InvalidInput(
            f"style {text} is none of {', '.join(ReplyStyle)}.", field="style"
        ) from None


def _moment(value: object, field: str, day_time: time) -> datetime | None:
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, day_time)
    else:
        text = _text(value, field, 40)
        if text is None:
            return None
        try:
            moment = (
                datetime.combine(date.fromisoformat(text), day_time)
                if len(text) <= len("2025-01-01")
                else datetime.fromisoformat(text)
            )
        except ValueError:
            raise InvalidInput(
                f"{field} {text} is no date; write it like 2025-01-31 or 2025-01-31T18:00+01:00.",
                field=field,
            ) from None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise InvalidInput(
            f"{field} is outside the years that can be stored.", field=field
        ) from None


def _check_not_for(entry: FaqEntry) -> None:
    asked = {normalised(text) for text in (entry.question, *entry.alternates)}
    for text in entry.not_for:
        if normalised(text) in asked:
            raise InvalidInput(
                f"{text!r} stands in not_for and is also asked by the entry; keep one of the two.",
                field="not_for",
            )


def _check_period(entry: FaqEntry) -> None:
    if entry.valid_from and entry.valid_until and entry.valid_until <= entry.valid_from:
        raise InvalidInput(
            f"valid_until {moment_text(entry.valid_until, end=True)} is before valid_from; "
            "swap them or clear one.",
            field="valid_until",
        )
