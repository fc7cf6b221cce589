"""Joins all routers to one app with the same limits, error shapes, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from bots import http_api, web
from bots.streaming import Source
from cli.serving import errors, health, metrics, reference
from cli.serving.health import Check
from cli.serving.limits import BodyLimit, SecurityHeaders
from cli.serving.tokens import bearer
from core.db.connect import Database
from core.errors import ConfigurationError
from core.following import Followers
from core.intake import Intake
from core.settings import Settings

FILE_LIMIT_BYTES = 32_000_000
UPLOADS = {"/v1/faq/import": FILE_LIMIT_BYTES}
"""Where a file comes in, so that the limit of a message would be too low."""


@dataclass(frozen=True)
class Served:
    """What the outer app needs.

    Attributes:
        intakes: By the inbox's name; `api` and `web` must be there.
        checks: What /readyz asks beside database and processes, such as the broker.
        stopping: Set when the process is told to stop: open event streams end then.
    """

    settings: Settings
    database: Database
    intakes: Mapping[str, Intake]
    followers: Followers
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def build(
    served: Served,
    *,
    routers: Sequence[APIRouter] = (),
    lifespan: Lifespan[Any] | None = None,
) -> FastAPI:
    """Return the app that the gateway serves.

    Args:
        served: Its parts.
        routers: Of the other channels and of the staff's API; they check their own tokens.
        lifespan: What starts and ends with the app.
    """
    settings = served.settings
    if settings.api_token is None or settings.secret_key is None:
        raise ConfigurationError("The gateway needs an API token and a secret key.")
    app = FastAPI(
        title="Deskhand",
        description=reference.DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # a body without a type is JSON; tokens and origins guard it
        lifespan=lifespan,
    )
    source = Source(served.database, served.followers, served.stopping)
    authorize = bearer(settings.api_token)
    app.include_router(http_api.routes(served.intakes["api"], source, authorize))
    app.include_router(web.routes(served.intakes["web"], source, web.WebChat.of(settings)))
    for router in routers:
        app.include_router(router)
    app.router.routes.extend(
        [
            *health.routes(served.database, served.checks),
            metrics.route(served.database),
            *reference.routes(app),
            Route("/", _home),
        ]
    )
    errors.install(app)
    app.add_middleware(BodyLimit, larger=UPLOADS)
    app.add_middleware(errors.Unexpected)
    app.add_middleware(SecurityHeaders, https=settings.url.startswith("https://"))
    return app


async def _home(request: Request) -> Response:
    return RedirectResponse("/chat")
