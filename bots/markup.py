"""Texts for chats: limited CommonMark or literal words, rendered for each platform, and split.

`document(text, is_markdown)` makes a flat list of blocks. Only approved answers are read as
Markdown; what a customer or a model wrote is literal, so that its `*`, `_` or `<!channel>` are
shown as they stand. Two things are recognised in both: a fenced code block (so that a cut closes
and reopens it) and a bare http(s) address (so that it can be pressed).
"""

from __future__ import annotations

import html as html_escapes
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import regex
from markdown_it import MarkdownIt
from markdown_it.token import Token

SMALLEST_LIMIT = 64
"""Below this a list marker or a code fence could fill a whole part."""

DEEPEST_LIST = 6
"""Slack takes at most 8 levels, a phone's width less."""


@dataclass(frozen=True)
class Span:
    """A run of text with its marks; an image's text is its description."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False
    href: str | None = None
    image: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Lines of text; with a marker (`•` or `3.`) a list item of that depth, from 0.

    Attributes:
        inside: It goes on in a list item that began before, without a marker of its own.
    """

    spans: tuple[Span, ...]
    marker: str = ""
    depth: int = 0
    inside: bool = False

    @property
    def text(self) -> str:
        """All its text, without marks."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class Code:
    """A code block; `language` is a plain word or empty."""

    text: str
    language: str = ""


Block = Paragraph | Code


@dataclass(frozen=True)
class Document:
    """Blocks in their order."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Entity:
    """A Telegram message entity; offset and length in UTF-16 units."""

    type: str
    offset: int
    length: int
    url: str | None = None
    language: str | None = None


def document(text: str, is_markdown: bool) -> Document:
    """Return a text as a document: an approved answer is Markdown, all else is literal."""
    return parse(text) if is_markdown else literal(text)


# --- reading -----------------------------------------------------------------------------------

_FENCE = re.compile(
    r"^```[ \t]*([\w+#.-]{0,20})[ \t]*\n(.*?)(?:\n```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_ADDRESS = re.compile(r"https?://[^\s<>\"'`|\\^{}，。、；：！？（）「」『』《》【】]+")
_SCHEMES = ("http://", "https://", "mailto:")


def literal(text: str) -> Document:
    """Return a document that shows a text as it stands."""
    blocks: list[Block] = []
    at = 0
    for fence in _FENCE.finditer(text):
        before = text[at : max(at, fence.start() - 1)]  # without the line break ahead of the fence
        if before:
            blocks.append(Paragraph(_linked(Span(before))))
        blocks.append(Code(fence[2], fence[1]))
        at = fence.end() + 1
    if text[at:]:
        blocks.append(Paragraph(_linked(Span(text[at:]))))
    return Document(tuple(blocks))


def _linked(span: Span) -> tuple[Span, ...]:
    """Cut a span so that bare addresses in it become links."""
    if span.code or span.href or "://" not in span.text:
        return (span,)
    spans: list[Span] = []
    at = 0
    for found in _ADDRESS.finditer(span.text):
        address = _without_punctuation(found[0])
        if address.endswith("://"):
            continue
        spans.append(replace(span, text=span.text[at : found.start()]))
        spans.append(replace(span, text=address, href=address))
        at = found.start() + len(address)
    spans.append(replace(span, text=span.text[at:]))
    return tuple(s for s in spans if s.text)


def _without_punctuation(address: str) -> str:
    """Return an address without the sentence's own end; `)` stays where it closes a `(`."""
    while address[-1] in ".,;:!?*_~)]":
        if address[-1] == ")" and address.count("(") >= address.count(")"):
            break
        address = address[:-1]
    return address


_reader = MarkdownIt("zero").enable(
    [
        *("list", "fence", "code", "emphasis", "link", "image", "autolink", "backticks"),
        *("escape", "entity", "newline"),
    ]
)


def parse(text: str) -> Document:
    """Return a document read from CommonMark limited to our elements; all else is literal."""
    blocks: list[Block] = []
    lists: list[int | None] = []  # the next number of each open ordered list, None for bullets
    marker = ""
    fresh = False  # the open list item has had no paragraph yet
    for token in _reader.parse(text):
        match token.type:
            case "bullet_list_open":
                lists.append(None)
            case "ordered_list_open":
                start = token.attrGet("start")
                lists.append(1 if start is None else int(start))
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "list_item_open":
                number = lists[-1]
                marker = "•" if number is None else f"{number}."
                lists[-1] = None if number is None else number + 1
                fresh = True
            case "inline":
                depth = min(max(len(lists) - 1, 0), DEEPEST_LIST)
                begins = bool(lists) and fresh
                blocks.append(
                    Paragraph(
                        tuple(_spans(token.children or [])),
                        marker if begins else "",
                        depth,
                        inside=bool(lists) and not begins,
                    )
                )
                fresh = False
            case "fence" | "code_block":
                language = re.sub(r"[^\w+#.-]", "", token.info.partition(" ")[0])[:20]
                blocks.append(Code(token.content.removesuffix("\n"), language))
            case _:
                pass
    return Document(tuple(block for block in blocks if isinstance(block, Code) or block.text))


def _spans(tokens: Sequence[Token]) -> Iterator[Span]:
    runs: list[Span] = []
    mark = Span("")
    for token in tokens:
        match token.type:
            case "strong_open" | "strong_close":
                mark = replace(mark, bold=token.nesting == 1)
            case "em_open" | "em_close":
                mark = replace(mark, italic=token.nesting == 1)
            case "link_open":
                mark = replace(mark, href=_safe(str(token.attrGet("href") or "")))
            case "link_close":
                if mark.href and not any(run.href == mark.href for run in runs):
                    runs.append(replace(mark, text=mark.href))  # a link without a label
                mark = replace(mark, href=None)
            case "image":
                address = _safe(str(token.attrGet("src") or ""))
                described = token.content or address or ""
                runs.append(replace(mark, text=described, href=address, image=address is not None))
            case "softbreak" | "hardbreak":  # staff expect the lines that they typed
                runs.append(replace(mark, text="\n"))
            case "code_inline":
                runs.append(replace(mark, text=token.content, code=True))
            case _:
                runs.append(replace(mark, text=token.content))
    for key, same in groupby((run for run in runs if run.text), lambda run: replace(run, text="")):
        yield from _linked(replace(key, text="".join(run.text for run in same)))


def _safe(address: str) -> str | None:
    return address if address.lower().startswith(_SCHEMES) else None


# --- rendering ---------------------------------------------------------------------------------


def _between(before: Block | None, after: Block) -> str:
    """Return what stands between two blocks in a rendered text."""
    if before is None:
        return ""
    if isinstance(before, Code) or isinstance(after, Code) or after.marker or after.inside:
        return "\n"
    return "\n\n"


def _lead(block: Paragraph) -> str:
    indent = "  " * block.depth
    if block.marker:
        return f"{indent}{block.marker} "
    return indent + "  " if block.inside else ""


def plain(doc: Document) -> str:
    """Return the text without marks; links as `label (address)`, code blocks in fences."""
    out: list[str] = []
    before: Block | None = None
    for block in doc.blocks:
        out.append(_between(before, block))
        if isinstance(block, Code):
            out.append(_fenced(block))
        else:
            out.append(_lead(block) + "".join(_plain_span(span) for span in block.spans))
        before = block
    return "".join(out)


def _fenced(block: Code) -> str:
    longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{block.language}\n{block.text}\n{fence}"


def _plain_span(span: Span) -> str:
    if span.href is None or span.href in (span.text, f"mailto:{span.text}"):
        return span.text
    return f"{span.text} ({span.href.removeprefix('mailto:')})"


def escape_slack(text: str) -> str:
    """Return a text with Slack's three control characters escaped: nothing in it can ping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Where Slack would begin a format; a zero-width space behind the sign keeps it literal.
_OPENS_FORMAT = re.compile(r"(?<!\w)([*_~`])(?=\S)")


def slack_mrkdwn(doc: Document) -> str:
    """Return a text in Slack's mrkdwn, for notifications; `slack_blocks` is what is shown."""
    out: list[str] = []
    before: Block | None = None
    for block in doc.blocks:
        out.append(_between(before, block))
        if isinstance(block, Code):
            out.append(f"```\n{escape_slack(block.text)}\n```")
        else:
            out.append(_lead(block) + "".join(_mrkdwn_span(span) for span in block.spans))
        before = block
    return "".join(out)


def _mrkdwn_span(span: Span) -> str:
    if span.code and not span.href:
        return _around(escape_slack(span.text), "`")
    text = escape_slack(span.text)
    if span.href and span.href != span.text:
        address = escape_slack(span.href).replace("|", "%7C")
        text = f"<{address}|{text.replace('|', '¦')}>".replace("\n", " ")
    elif span.href is None:
        text = _OPENS_FORMAT.sub("\\1\u200b", text)
    if span.italic:
        text = _around(text, "_")
    return _around(text, "*") if span.bold else text


def _around(text: str, sign: str) -> str:
    """Put a sign around each line's words: Slack ends formats at a line break and at spaces."""
    return "\n".join(_line_around(line, sign) for line in text.split("\n"))


def _line_around(line: str, sign: str) -> str:
    words = line.strip()
    if not words:
        return line
    begin = line.index(words)
    return f"{line[:begin]}{sign}{words}{sign}{line[begin + len(words) :]}"


def slack_blocks(doc: Document) -> list[dict[str, Any]]:
    """Return one `rich_text` block; its text elements are literal by nature and never ping."""
    elements: list[dict[str, Any]] = []
    for kind, group in groupby(doc.blocks, _slack_kind):
        blocks = list(group)
        if kind == "code":
            elements.extend(_preformatted(block) for block in blocks if isinstance(block, Code))
        elif kind == "text":
            elements.append(_section([b for b in blocks if isinstance(b, Paragraph)]))
        else:
            items = [b for b in blocks if isinstance(b, Paragraph)]
            elements.append(_slack_list(items))
    elements = [element for element in elements if element["elements"]]
    return [{"type": "rich_text", "elements": elements}] if elements else []


def _slack_kind(block: Block) -> str:
    """Name what goes into one element; a numbered item stands alone, with its number."""
    if isinstance(block, Code):
        return "code"
    if not block.marker:
        return "text"
    return f"list {block.depth} {block.marker}"


def _preformatted(block: Code) -> dict[str, Any]:
    text = [{"type": "text", "text": block.text}] if block.text else []
    return {"type": "rich_text_preformatted", "elements": text}


def _section(blocks: Sequence[Paragraph]) -> dict[str, Any]:
    elements: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if number:
            elements.append({"type": "text", "text": "\n" if block.inside else "\n\n"})
        elements.extend(_slack_element(span) for span in block.spans)
    return {"type": "rich_text_section", "elements": elements}


def _slack_list(items: Sequence[Paragraph]) -> dict[str, Any]:
    number = items[0].marker.rstrip(".")
    shape: dict[str, Any] = {"style": "bullet", "indent": items[0].depth}
    if number.isdigit():
        shape |= {"style": "ordered"}
        if number not in ("0", "1"):
            shape |= {"offset": int(number) - 1}
    return {"type": "rich_text_list", **shape, "elements": [_section([item]) for item in items]}


def _slack_element(span: Span) -> dict[str, Any]:
    style = {name: True for name in ("bold", "italic", "code") if getattr(span, name)}
    element: dict[str, Any] = {"type": "text", "text": span.text}
    if span.href:
        element = {"type": "link", "url": span.href, "text": span.text}
    return element | ({"style": style} if style else {})


def utf16_length(text: str) -> int:
    """Return the length of a text as Telegram counts it: in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def telegram(doc: Document) -> tuple[str, tuple[Entity, ...]]:
    """Return a text and its entities: no parse mode, so nothing in the text can break it."""
    out: list[str] = []
    entities: list[Entity] = []
    length = 0
    before: Block | None = None

    def put(text: str) -> None:
        nonlocal length
        out.append(text)
        length += utf16_length(text)

    for block in doc.blocks:
        put(_between(before, block))
        before = block
        if isinstance(block, Code):
            if block.text:
                size = utf16_length(block.text)
                entities.append(Entity("pre", length, size, language=block.language or None))
            put(block.text)
            continue
        put(_lead(block))
        for span in block.spans:
            entities.extend(_telegram_entities(span, length))
            put(span.text)
    return "".join(out), tuple(entities)


def _telegram_entities(span: Span, offset: int) -> Iterator[Entity]:
    inner = span.text.strip()  # Telegram cuts entities at spaces, and drops those over nothing else
    if not inner:
        return
    offset += utf16_length(span.text[: len(span.text) - len(span.text.lstrip())])
    size = utf16_length(inner)
    if span.href and span.href not in (span.text, f"mailto:{span.text}"):
        yield Entity("text_link", offset, size, url=span.href)
    if span.code:  # cannot be combined with bold or italic
        yield Entity("code", offset, size)
        return
    if span.bold:
        yield Entity("bold", offset, size)
    if span.italic:
        yield Entity("italic", offset, size)


def html(doc: Document) -> str:
    """Return safe HTML: all text escaped, links to http, https and mailto only."""
    out: list[str] = []
    open_lists: list[str] = []
    for block in doc.blocks:
        depth = 0
        if isinstance(block, Paragraph) and (block.marker or block.inside):
            depth = block.depth + 1
        while len(open_lists) > depth:
            out.append(f"</li></{open_lists.pop()}>")
        if isinstance(block, Code):
            out.append(f"<pre><code>{html_escapes.escape(block.text)}</code></pre>")
        elif block.marker:
            out.append(_html_item(block, open_lists))
        else:
            out.append(f"<p>{_html_spans(block)}</p>")
    while open_lists:
        out.append(f"</li></{open_lists.pop()}>")
    return "".join(out)


def _html_item(block: Paragraph, open_lists: list[str]) -> str:
    number = block.marker.rstrip(".")
    tag = "ol" if number.isdigit() else "ul"
    lead = ""
    if len(open_lists) == block.depth + 1 and open_lists[-1] == tag:
        lead = "</li>"
    else:
        if len(open_lists) == block.depth + 1:
            lead = f"</li></{open_lists.pop()}>"
        start = f' start="{int(number)}"' if tag == "ol" and number != "1" else ""
        lead += f"<{tag}{start}>"
        open_lists.append(tag)
    return f"{lead}<li>{_html_spans(block)}"


def _html_spans(block: Paragraph) -> str:
    return "".join(_html_span(span) for span in block.spans)


def _html_span(span: Span) -> str:
    text = html_escapes.escape(span.text)
    address = html_escapes.escape(span.href or "")
    if span.image and not address.lower().startswith("mailto:"):
        return f'<img src="{address}" alt="{text}" loading="lazy" referrerpolicy="no-referrer">'
    text = text.replace("\n", "<br>")
    for wanted, tag in ((span.code, "code"), (span.italic, "em"), (span.bold, "strong")):
        if wanted:
            text = f"<{tag}>{text}</{tag}>"
    if span.href:
        text = f'<a href="{address}" target="_blank" rel="noopener noreferrer">{text}</a>'
    return text


# --- splitting ---------------------------------------------------------------------------------

Measure = Callable[[Document], int]
"""How long a platform finds a document."""


def plain_length(doc: Document) -> int:
    """Return the length of the plain text, in characters."""
    return len(plain(doc))


def slack_length(doc: Document) -> int:
    """Return the length of the longer of what Slack is sent: mrkdwn, or plain text, escaped."""
    return max(len(slack_mrkdwn(doc)), len(escape_slack(plain(doc))))


def telegram_length(doc: Document) -> int:
    """Return the longer of the text with entities and the plain text sent if those are refused.

    In UTF-16 units.
    """
    return max(utf16_length(telegram(doc)[0]), utf16_length(plain(doc)))


def split(doc: Document, limit: int, measure: Measure = plain_length) -> tuple[Document, ...]:
    """Cut a document into parts that each fit a platform's limit.

    Cuts at a paragraph, else a line, a sentence, a word; never inside a character that is made of
    several code points, unless that alone exceeds the limit. A code block that is cut becomes two,
    so each renderer closes and opens it. Only white space at the cuts is lost.

    Args:
        limit: The most that a part may measure; at least 64.
        measure: How the platform counts: `plain_length`, `slack_length`, `telegram_length`.

    Returns:
        At least one part, in order.
    """
    if limit < SMALLEST_LIMIT:
        raise ValueError(f"limit is {limit}; {SMALLEST_LIMIT} is the least.")
    parts: list[Document] = []
    current: tuple[Block, ...] = ()
    rest = list(reversed(doc.blocks))
    while rest:
        block = rest.pop()
        if measure(Document((*current, block))) <= limit:
            current = (*current, block)
            continue
        if current:
            parts.append(Document(current))
            current = ()
            rest.append(block)
            continue
        head, tail = _cut(block, lambda piece: measure(Document((piece,))) <= limit)
        if not _is_blank(head):
            parts.append(Document((head,)))
        if not _is_blank(tail):
            rest.append(tail)
    if current or not parts:
        parts.append(Document(current))
    return tuple(parts)


def split_text(text: str, limit: int, is_markdown: bool = False) -> tuple[str, ...]:
    """Return the plain text of each part of a text."""
    return tuple(plain(part) for part in split(document(text, is_markdown), limit))


def _is_blank(block: Block) -> bool:
    return not block.text.strip()


def _cut(block: Block, fits: Callable[[Block], bool]) -> tuple[Block, Block]:
    """Return the longest good beginning that fits, and the rest."""
    most = _longest_fitting(block, fits)
    if most == 0:  # a link's address leaves no room for its label: show the label alone
        block = _without_links(block)
        most = max(1, _longest_fitting(block, fits))
    at = _boundary(block.text, most)
    return _slice(block, at)


def _longest_fitting(block: Block, fits: Callable[[Block], bool]) -> int:
    low, high = 0, len(block.text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_slice(block, middle)[0]):
            low = middle
        else:
            high = middle - 1
    return low


_BOUNDARIES = tuple(
    re.compile(pattern)
    for pattern in (r"\n\s*\n", r"\n", r"[.!?…]['\")\]]*\s|[。！？][」』”）]*", r"\s")
)


def _boundary(text: str, most: int) -> int:
    """Return where to cut a text that may keep `most` characters, at least 1."""
    if most >= len(text):
        return len(text)
    for pattern in _BOUNDARIES:
        # One character more: a space or line break right behind the cut makes it a good one.
        ends = [found.end() for found in pattern.finditer(text, 0, most + 1)]
        good = [min(end, most) for end in ends if end > most // 2]
        if good:
            return good[-1]
    at = 0
    for cluster in regex.finditer(r"\X", text):
        if cluster.end() > most:
            break
        at = cluster.end()
    return at or most


def _slice(block: Block, at: int) -> tuple[Block, Block]:
    if isinstance(block, Code):
        head, tail = block.text[:at], block.text[at:]
        if not head.endswith("\n"):
            tail = tail.removeprefix("\n")
        return replace(block, text=head.removesuffix("\n")), replace(block, text=tail)
    head_spans: list[Span] = []
    tail_spans: list[Span] = []
    for span in block.spans:
        if span.text[:at]:
            head_spans.append(replace(span, text=span.text[:at]))
        if span.text[at:]:
            # What is left of a description is no second picture.
            image = span.image and at <= 0
            tail_spans.append(replace(span, text=span.text[max(at, 0) :], image=image))
        at = max(0, at - len(span.text))
    head = replace(block, spans=_stripped(head_spans, at_start=False))
    inside = block.inside or bool(block.marker)
    tail = replace(block, spans=_stripped(tail_spans, at_start=True), marker="", inside=inside)
    return head, tail


def _stripped(spans: list[Span], *, at_start: bool) -> tuple[Span, ...]:
    """Return spans without the white space at the cut."""
    while spans:
        index = 0 if at_start else -1
        span = spans[index]
        text = span.text.lstrip() if at_start else span.text.rstrip()
        if text:
            spans[index] = replace(span, text=text)
            break
        spans.pop(index)
    return tuple(spans)


def _without_links(block: Block) -> Block:
    if isinstance(block, Code):
        return block
    return replace(block, spans=tuple(replace(s, href=None, image=False) for s in block.spans))
