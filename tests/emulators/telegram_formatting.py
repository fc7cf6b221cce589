"""What Telegram's Bot API makes of a text with a parse mode, or why it refuses it.

Source: https://core.telegram.org/bots/api#formatting-options. Only what a sender can get wrong is
kept: the text that stays, and the refusals; the entities of a parsed text are not rebuilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

HTML_TAGS = frozenset(
    [
        "b",
        "strong",
        "i",
        "em",
        "u",
        "ins",
        "s",
        "strike",
        "del",
        "span",
        "tg-spoiler",
        "tg-emoji",
        "a",
        "code",
        "pre",
        "blockquote",
    ]
)
RESERVED = frozenset("_*[]()~`>#+-=|{}.!")
MARKERS = ("```", "||", "__", "*", "_", "~", "`")


class Refusal(Exception):
    """The Bot API answers with an error.

    Args:
        status: The HTTP status and `error_code`.
        description: As the Bot API words it.
        parameters: `retry_after` or `migrate_to_chat_id`.
    """

    def __init__(
        self, status: int, description: str, parameters: dict[str, int] | None = None
    ) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


def utf16_length(text: str) -> int:
    """Return the length as Telegram counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def shown(text: str, parse_mode: str | None) -> str:
    """Return the text that a chat shows.

    Raises:
        Refusal: The markup is faulty.
    """
    if not parse_mode:
        return text
    if parse_mode.lower() == "html":
        return _html(text)
    if parse_mode.lower() == "markdownv2":
        return _markdown(text)
    raise Refusal(400, "Bad Request: unsupported parse_mode")


def _broken(why: str) -> Refusal:
    return Refusal(400, f"Bad Request: can't parse entities: {why}")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.kept: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in HTML_TAGS:
            raise _broken(f'Unsupported start tag "{tag}"')
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise _broken(f'Unexpected end tag "{tag}"')

    def handle_data(self, data: str) -> None:
        if "<" in data:  # a bare one, which the parser took for text
            raise _broken("Unsupported start tag")
        self.kept.append(data)


def _html(text: str) -> str:
    tags = _Tags()
    # `&lt;` becomes a plain `<` before handle_data sees it: keep it apart from a bare one.
    tags.feed(text.replace("&lt;", "\ue000"))
    tags.close()
    if tags.open:
        raise _broken(f'Can\'t find end tag corresponding to start tag "{tags.open[-1]}"')
    return "".join(tags.kept).replace("\ue000", "<")


def _markdown(text: str) -> str:
    kept: list[str] = []
    opened: list[str] = []
    at = 0
    while at < len(text):
        in_code = bool(opened) and opened[-1] in ("`", "```")
        if text[at] == "\\" and at + 1 < len(text):
            kept.append(text[at + 1])
            at += 2
            continue
        marker = next((m for m in MARKERS if text.startswith(m, at)), None)
        if marker and (not in_code or marker == opened[-1]):
            if opened and opened[-1] == marker:
                opened.pop()
            else:
                opened.append(marker)
            at += len(marker)
        elif text[at] == "[" and not in_code:
            opened.append("[")
            at += 1
        elif text[at] == "]" and opened and opened[-1] == "[" and text[at + 1 : at + 2] == "(":
            end = text.find(")", at)
            if end < 0:
                raise _broken("Can't find end of a URL")
            opened.pop()
            at = end + 1
        elif text[at] in RESERVED and not in_code:
            raise _broken(f"Character '{text[at]}' is reserved and must be escaped")
        else:
            kept.append(text[at])
            at += 1
    if opened:
        raise _broken(f"Can't find end of the entity starting with '{opened[-1]}'")
    return "".join(kept)


def check_entities(text: str, entities: Sequence[dict[str, Any]]) -> None:
    """Refuse entities that lie outside of a text or cut a surrogate pair in two.

    Raises:
        Refusal: One does.
    """
    units = text.encode("utf-16-le", "surrogatepass")
    for entity in entities:
        begin, length = int(entity["offset"]), int(entity["length"])
        end = begin + length
        if begin < 0 or length <= 0 or end * 2 > len(units):
            raise _broken("entity is out of bounds")
        for edge in (begin, end):
            pair = units[edge * 2 + 1 : edge * 2 + 2]
            if pair and 0xDC <= pair[0] <= 0xDF:
                raise _broken("Entity begins or ends in the middle of a UTF-16 symbol")
        if entity["type"] == "text_link" and "://" not in entity.get("url", ""):
            raise _broken("entity has no valid URL")
