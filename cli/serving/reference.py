"""/openapi.json, and /docs: the same for people, as one page without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

DESCRIPTION = """\
Send customers' messages, read and follow the replies, take conversations over and edit the FAQ.

Every path under /v1 takes the API token: `Authorization: Bearer <token>`.
It is printed at the first start and lies in the data folder's secrets.

Errors are `{"error": {"code", "message", "field"?}}`. 503 carries Retry-After: nothing was
stored, send it again. Messages are idempotent on their `id`, so sending again is always safe.
"""

CSS = """\
:root { color-scheme: light dark; --text: #1c2430; --soft: #5b6675; --line: #dfe4ea;
  --page: #fbfcfd; --card: #fff; --code: #f1f4f7; --accent: #1f6f5c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6eaf0; --soft: #9aa6b5; --line: #2c3542;
  --page: #12161c; --card: #191f27; --code: #202833; --accent: #62c4a9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.6 system-ui, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.9rem; } h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
p { margin: .5rem 0; } a { color: var(--accent); } .soft { color: var(--soft); }
code, pre { font: .875em/1.5 ui-monospace, monospace; background: var(--code);
  border-radius: 6px; }
code { padding: .1em .35em; overflow-wrap: anywhere; }
pre { padding: .75rem 1rem; overflow-x: auto; }
details { margin: .5rem 0; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
summary { padding: .6rem .9rem; cursor: pointer; } details > div { padding: 0 .9rem .75rem; }
.method { display: inline-block; min-width: 4.2rem; font: 600 .8rem ui-monospace, monospace;
  color: var(--accent); }
table { width: 100%; border-collapse: collapse; font-size: .925rem; }
td, th { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); }
"""

METHODS = ("get", "post", "put", "patch", "delete")
DEEPEST = 12


def routes(app: FastAPI) -> list[Route]:
    """Return /docs with its style sheet, and /openapi.json."""

    async def openapi(request: Request) -> Response:
        return JSONResponse(app.openapi())

    async def docs(request: Request) -> Response:
        return HTMLResponse(
            page(app.openapi()),
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
                "base-uri 'none'; frame-ancestors 'none'"
            },
        )

    async def css(request: Request) -> Response:
        return Response(CSS, media_type="text/css")

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/page.css", css),
    ]


def page(schema: Mapping[str, Any]) -> str:
    """Return the page for a schema; all of its text is escaped."""
    info = schema["info"]
    groups: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method in METHODS:
            if operation := operations.get(method):
                tag = (operation.get("tags") or ["Other"])[0]
                groups.setdefault(tag, []).append(_operation(schema, path, method, operation))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(shown)}" for tag, shown in groups.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title>"
        '<link rel="stylesheet" href="/docs/page.css"></head><body><main>'
        f"<h1>{escape(info['title'])} API</h1>"
        f"{_prose(info.get('description', ''))}"
        '<p class="soft">For programs: <a href="/openapi.json">openapi.json</a>. '
        'To try the bot: <a href="/chat">web chat</a>.</p>'
        f"{sections}</main></body></html>"
    )


def _operation(
    schema: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]
) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    answers = "".join(
        _content(schema, f"Answer {status}", answer.get("content", {}))
        for status, answer in operation.get("responses", {}).items()
        if status.startswith("2")
    )
    return (
        f'<details><summary><span class="method">{method.upper()}</span> '
        f"<code>{escape(path)}</code> "
        f'<span class="soft">{escape(operation.get("summary", ""))}</span></summary><div>'
        f"{_prose(operation.get('description', ''))}{_parameters(operation)}"
        f"{_content(schema, 'Body', body)}{answers}</div></details>"
    )


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td>"
        f'<td class="soft">{escape(parameter["in"])}</td>'
        f"<td>{escape(parameter.get('description', ''))}</td></tr>"
        for parameter in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _content(schema: Mapping[str, Any], title: str, content: Mapping[str, Any]) -> str:
    shown = ""
    for media_type, described in content.items():
        example = _example(schema, described.get("schema", {}))
        if example in (None, {}, "string"):
            continue
        text = json.dumps(example, indent=2, ensure_ascii=False)
        shown += (
            f'<p class="soft">{escape(title)}, {escape(media_type)}</p>'
            f"<pre><code>{escape(text)}</code></pre>"
        )
    return shown


def _example(schema: Mapping[str, Any], node: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a value of the shape that a schema describes."""
    if depth > DEEPEST:
        return None
    if reference := node.get("$ref"):
        return _example(schema, _resolved(schema, reference), depth + 1)
    if examples := node.get("examples"):
        return examples[0]
    if options := node.get("anyOf") or node.get("oneOf"):
        return _example(schema, options[0], depth + 1)
    if "enum" in node:
        return node["enum"][0]
    match node.get("type"):
        case "object":
            return {
                name: _example(schema, part, depth + 1)
                for name, part in node.get("properties", {}).items()
            }
        case "array":
            return [_example(schema, node.get("items", {}), depth + 1)]
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case None:
            return None
        case kind:
            return str(kind)


def _resolved(schema: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    node: Any = schema
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def _prose(text: str) -> str:
    """Return paragraphs; `words in backquotes` as code."""
    return "".join(
        f"<p>{''.join(_marked(paragraph))}</p>" for paragraph in text.split("\n\n") if paragraph
    )


def _marked(paragraph: str) -> Iterator[str]:
    for number, piece in enumerate(paragraph.split("`")):
        yield f"<code>{escape(piece)}</code>" if number % 2 else escape(piece)
