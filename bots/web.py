"""The web chat: a page, its own routes, and the script that puts it on any site."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import StreamingResponse
from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bots import markup, streaming
from bots.checking import NAME_LIMIT, checked_name, counting_route
from bots.streaming import Source
from core import texts
from core.db import feedback as verdicts
from core.db import inboxes, messages, starters
from core.db.connect import Connection
from core.errors import NotFound
from core.intake import Intake, check_text
from core.settings import Settings
from core.types import (
    Author,
    Conversation,
    Decision,
    Incoming,
    IncomingFeedback,
    KnowledgeBase,
    Message,
    MessageId,
    MessageKind,
    Outcome,
    Receipt,
    Sender,
    Verdict,
)

INBOX = "web"
COOKIE = "deskhand_chat"
COOKIE_SECONDS = 180 * 24 * 3600
RATE_SECONDS = 60.0
HISTORY = 1_000
STARTERS = 4
LANGUAGE_LIMIT = 35
PAGES = Path(__file__).parent / "pages"
FILES = {
    "chat.css": "text/css; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "strings.js": "text/javascript; charset=utf-8",
    "talking.js": "text/javascript; charset=utf-8",
    "showing.js": "text/javascript; charset=utf-8",
}
"""What the page loads, from our own address only."""


@dataclass(frozen=True)
class WebChat:
    """The settings of the web chat.

    Attributes:
        secret_key: Signs the cookie by which a visitor is known again.
        is_https: The chat is reached by https.
        origins: Sites that may embed it.
        messages_per_minute: That one visitor may send.
    """

    secret_key: SecretStr
    is_https: bool = False
    origins: tuple[str, ...] = ()
    messages_per_minute: int = 30

    @staticmethod
    def of(settings: Settings) -> WebChat:
        """Return the web chat's part of the settings."""
        return WebChat(
            secret_key=settings.secret_key or SecretStr(secrets.token_urlsafe()),
            is_https=settings.url.startswith("https://"),
            origins=tuple(origin.rstrip("/") for origin in settings.chat_origins),
            messages_per_minute=settings.chat_messages_per_minute,
        )

    @property
    def frame_ancestors(self) -> str:
        """Which sites may show the chat in a frame, in the words of a content security policy."""
        return " ".join(("frame-ancestors 'self'", *self.origins))


@dataclass(frozen=True)
class Visitor:
    """Who a browser is to us, and which of their conversations it shows."""

    id: str
    conversation: str

    @staticmethod
    def new() -> Visitor:
        """Return a visitor who has not been here before."""
        return Visitor(secrets.token_urlsafe(16), secrets.token_urlsafe(16))

    def elsewhere(self) -> Visitor:
        """Return the same visitor in a new conversation."""
        return Visitor(self.id, secrets.token_urlsafe(16))


class Cookies:
    """Knows visitors again by a signed cookie."""

    def __init__(self, chat: WebChat) -> None:
        self._signer = URLSafeSerializer(chat.secret_key.get_secret_value(), salt="web chat")
        # Inside another site's page only such a cookie is kept; the origin check guards the posts.
        self._crosses = chat.is_https and bool(chat.origins)
        self._is_https = chat.is_https

    def read(self, request: Request) -> Visitor | None:
        """Return who sent a request; None for nobody we know, or a forged cookie."""
        try:
            known: Any = self._signer.loads(request.cookies.get(COOKIE, ""))
            visitor, conversation = known
        except (BadSignature, TypeError, ValueError):
            return None
        return Visitor(str(visitor), str(conversation))

    def write(self, response: Response, visitor: Visitor) -> None:
        """Let the browser remember a visitor."""
        value = self._signer.dumps([visitor.id, visitor.conversation])
        response.set_cookie(
            COOKIE,
            value,
            max_age=COOKIE_SECONDS,
            path="/chat",
            httponly=True,
            secure=self._is_https,
            samesite="none" if self._crosses else "lax",
        )
        if self._crosses:  # http.cookies knows the attribute from Python 3.14 on
            response.headers["set-cookie"] += "; Partitioned"


class Written(BaseModel):
    """What a visitor wrote."""

    model_config = ConfigDict(strict=True)

    id: str = Field(min_length=1, max_length=NAME_LIMIT)
    text: str
    locale: str | None = Field(default=None, max_length=LANGUAGE_LIMIT)


class Rated(BaseModel):
    """What a visitor thinks of a reply."""

    id: str = Field(min_length=1, max_length=NAME_LIMIT)
    message_id: UUID
    verdict: Verdict


def routes(intake: Intake, source: Source, chat: WebChat) -> APIRouter:
    """Return the routes of the web chat."""
    router = APIRouter(include_in_schema=False)
    _add_pages(router, chat)
    router.include_router(_Talking(intake, source, chat).router)
    return router


class _Talking:
    """The routes that the page calls."""

    def __init__(self, intake: Intake, source: Source, chat: WebChat) -> None:
        self._intake = intake
        self._source = source
        self._chat = chat
        self._cookies = Cookies(chat)
        reading = APIRouter(prefix="/chat")
        for path in ("", "/"):
            reading.add_api_route(path, self.page, methods=["GET"])
        reading.add_api_route("/start", self.start, methods=["GET"])
        reading.add_api_route("/messages", self.read, methods=["GET"])
        reading.add_api_route("/events", self.events, methods=["GET"])
        writing = APIRouter(
            prefix="/chat",
            route_class=counting_route(intake),
            dependencies=[Depends(_origin_check(chat.origins))],
        )
        writing.add_api_route("/messages", self.write, methods=["POST"], status_code=202)
        writing.add_api_route("/person", self.ask_for_person, methods=["POST"], status_code=202)
        writing.add_api_route("/feedback", self.rate, methods=["POST"], status_code=202)
        writing.add_api_route("/new", self.begin_anew, methods=["POST"])
        self.router = APIRouter()
        self.router.include_router(reading)
        self.router.include_router(writing)

    async def page(self, request: Request) -> Response:
        """Show the chat; the browser is given its cookie, or a fresh lease of it."""
        response = Response((PAGES / "chat.html").read_bytes(), media_type="text/html")
        response.headers["Cache-Control"] = "no-store"  # it carries a visitor's cookie
        response.headers["Content-Security-Policy"] = "; ".join(
            (
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
                "img-src 'self' https: data:; base-uri 'none'; form-action 'none'",
                self._chat.frame_ancestors,
            )
        )
        self._cookies.write(response, self._cookies.read(request) or Visitor.new())
        return response

    async def start(
        self,
        request: Request,
        response: Response,
        lang: Annotated[str | None, Query(max_length=LANGUAGE_LIMIT)] = None,
        accept_language: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        """Return the greeting and questions to begin with, in the visitor's language."""
        if self._cookies.read(request) is None:
            self._cookies.write(response, Visitor.new())
        async with self._source.database.transaction() as conn:
            base = await inboxes.base_of(conn, self._intake.inbox.knowledge_base_id)
            language = language_of(lang or preferred(accept_language) or base.locale)
            questions = await _starters(conn, base, language)
        return {"greeting": texts.text(base, "greeting", language), "questions": questions}

    async def read(self, request: Request) -> dict[str, Any]:
        """Return the visitor's conversation, oldest message first."""
        visitor = self._known(request)
        async with self._source.database.transaction() as conn:
            found = await messages.conversation_by_key(conn, INBOX, visitor.conversation)
            if found is None:
                return {"conversation_id": None, "messages": [], "verdicts": {}}
            said = await _everything(conn, found)
            given = await verdicts.verdicts(conn, found.id)
        return {
            "conversation_id": str(found.id),
            **streaming.status_json(found),
            "messages": [shown(message) for message in said],
            "verdicts": {str(key): verdict for key, verdict in given.items()},
        }

    async def events(
        self,
        request: Request,
        after: Annotated[int, Query(ge=0, le=streaming.LONGEST_POSITION)] = 0,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """Stream what is said in the visitor's conversation."""
        visitor = self._known(request)
        async with self._source.database.transaction() as conn:
            found = await messages.conversation_by_key(conn, INBOX, visitor.conversation)
        if found is None:
            raise NotFound("The conversation has not begun.")
        after = streaming.position_after(last_event_id, after)
        return StreamingResponse(
            streaming.follow(self._source, found.id, after, shown),
            media_type=streaming.CONTENT_TYPE,
            headers=streaming.HEADERS,
        )

    async def write(self, request: Request, written: Written) -> dict[str, Any]:
        """Take in a message; the same id again is not answered again."""
        return await self._receive(request, written, MessageKind.TEXT)

    async def ask_for_person(self, request: Request, written: Written) -> dict[str, Any]:
        """Ask for a person, in the words of the button."""
        return await self._receive(request, written, MessageKind.PERSON)

    async def rate(self, request: Request, rated: Rated) -> dict[str, Any]:
        """Take in a verdict on a reply; the last one stands."""
        visitor = self._known(request)
        receipt = await self._intake.give_feedback(
            IncomingFeedback(
                event_id=f"{visitor.id}:{checked_name(rated.id, 'id')}",
                chat=visitor.conversation,
                sender=_sender(visitor, None),
                verdict=rated.verdict,
                message_id=MessageId(rated.message_id),
            )
        )
        if receipt.outcome is Outcome.IGNORED:
            raise NotFound("There is no such reply in your conversation.", field="message_id")
        return {"message_id": str(rated.message_id), "verdict": rated.verdict}

    async def begin_anew(self, request: Request, response: Response) -> dict[str, Any]:
        """Begin a new conversation."""
        self._cookies.write(response, self._known(request).elsewhere())
        return {"conversation_id": None}

    async def _receive(
        self, request: Request, written: Written, kind: MessageKind
    ) -> dict[str, Any]:
        visitor = self._known(request)
        locale = written.locale or preferred(request.headers.get("accept-language"))
        incoming = Incoming(
            event_id=f"{visitor.id}:{checked_name(written.id, 'id')}",
            message_id=written.id,
            chat=visitor.conversation,
            sender=_sender(visitor, locale),
            text=check_text(written.text),
            kind=kind,
        )
        await self._check_rate(visitor)
        receipt = await self._intake.receive(incoming)
        return _receipt_json(receipt)

    def _known(self, request: Request) -> Visitor:
        visitor = self._cookies.read(request)
        if visitor is None:
            raise HTTPException(403, "The chat needs its cookie; open /chat first.")
        return visitor

    async def _check_rate(self, visitor: Visitor) -> None:
        async with self._source.database.transaction() as conn:
            sent = await messages.recent_count(
                conn, self._intake.inbox.id, visitor.id, RATE_SECONDS
            )
        if sent >= self._chat.messages_per_minute:
            raise HTTPException(
                429,
                "That was quick! Please wait a moment before you write again.",
                headers={"Retry-After": "15"},
            )


def shown(message: Message) -> dict[str, Any]:
    """Return a message as the page shows it: ours with safe HTML."""
    view = streaming.message_json(message)
    if message.author is not Author.CUSTOMER:
        view["html"] = markup.html(markup.document(message.text, message.is_markdown))
    view["rateable"] = message.author is Author.BOT and message.decision is Decision.ANSWER
    return view


def preferred(accept_language: str | None) -> str | None:
    """Return the language that a browser likes best."""
    best: tuple[float, str] | None = None
    for part in (accept_language or "")[:500].split(","):
        tag, _, parameter = part.strip().partition(";")
        weight = _weight(parameter)
        if tag and tag != "*" and weight > 0 and (best is None or weight > best[0]):
            best = (weight, tag[:LANGUAGE_LIMIT])
    return best[1] if best else None


def language_of(locale: str) -> str:
    """Return the language of a locale: `de` of `de-AT`."""
    return locale.replace("_", "-").split("-")[0].lower()


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _sender(visitor: Visitor, locale: str | None) -> Sender:
    """Name a visitor so that staff can tell two of them apart."""
    number = hashlib.sha256(visitor.id.encode()).hexdigest()[:4]
    clean = checked_name(locale, "locale") if locale else None
    return Sender(id=visitor.id, name=f"Web visitor {number}", locale=clean)


def _receipt_json(receipt: Receipt) -> dict[str, Any]:
    return {
        "message_id": str(receipt.message_id),
        "conversation_id": str(receipt.conversation_id),
    }


async def _starters(conn: Connection, base: KnowledgeBase, language: str) -> Sequence[str]:
    """Return questions in the visitor's language, else in the base's."""
    for wanted in dict.fromkeys((language, language_of(base.locale))):
        if found := await starters.starters(conn, base.id, wanted, limit=STARTERS):
            return sorted(found, key=len)
    return ()


async def _everything(conn: Connection, conversation: Conversation) -> Sequence[Message]:
    """Return all messages, page by page, since the database gives the oldest first."""
    said: list[Message] = []
    while True:
        after = said[-1].position if said else 0
        page = await messages.messages(conn, conversation.id, after_position=after, limit=HISTORY)
        said = [*said, *page][-HISTORY:]
        if len(page) < HISTORY:
            return said


def _origin_check(origins: Sequence[str]) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that refuses posts which another site makes a browser send."""

    async def check(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            # Not a browser, or one from before 2020: those send no cookie across sites (Lax).
            if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
                raise HTTPException(403, "This site may not write to the chat.")
            return
        own = urlsplit(origin).netloc == request.headers.get("host")
        if not own and origin not in origins:
            raise HTTPException(403, "This site may not write to the chat.")

    return check


def _add_pages(router: APIRouter, chat: WebChat) -> None:
    for name, media_type in FILES.items():
        router.add_api_route(f"/chat/{name}", _serving(name, media_type), methods=["GET"])
    router.add_api_route(
        "/widget.js",
        _serving(
            "widget.js",
            "text/javascript; charset=utf-8",
            {"Cross-Origin-Resource-Policy": "cross-origin"},
        ),
        methods=["GET"],
    )


def _serving(
    name: str, media_type: str, headers: Mapping[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        response = _file(name, media_type, request)
        response.headers.update(headers or {})
        return response

    return serve


def _file(name: str, media_type: str, request: Request) -> Response:
    """Return a file of the page, or 304 where the browser has it already."""
    content = (PAGES / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
