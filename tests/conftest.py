"""What all tests share: a real PostgreSQL, and in it a fresh migrated database for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from core.db import migrate
from core.db.connect import Database

TEMPLATE = "deskhand_template"


def missing(service: str) -> None:
    """Skip loudly for want of a service; under CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{service} is missing, and CI must have it")
    pytest.skip(f"{service} is missing")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a PostgreSQL server with pgvector, ours for this session."""
    given = os.environ.get("DESKHAND_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from cli.embedded import Postgres

    # Not pytest's own folder: it is closed to others, and as root the server becomes another user.
    data_dir = Path(tempfile.mkdtemp(prefix="deskhand-tests-"))
    data_dir.chmod(0o755)
    try:
        with Postgres(data_dir, durable=False) as server:
            yield server.url
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _with_database(url: str, name: str) -> str:
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    authority = rest.rpartition("/")[0]
    return f"{scheme}://{authority}/{name}" + (f"?{query}" if query else "")


@pytest.fixture(scope="session")
def template_url(server_url: str) -> str:
    """The URL of a migrated database that each test clones."""
    name = f"{TEMPLATE}_{uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f'create database "{name}"')
    url = _with_database(server_url, name)
    migrate.upgrade(url)
    return url


@contextmanager
def fresh_database(server_url: str, template_url: str) -> Generator[str]:
    """Lend the URL of a fresh database with the schema and nothing else."""
    name = f"test_{uuid4().hex[:12]}"
    template = template_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f'create database "{name}" template "{template}"')
    yield _with_database(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def database_url(server_url: str, template_url: str) -> Iterator[str]:
    """The URL of a fresh database."""
    with fresh_database(server_url, template_url) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on a fresh database."""
    async with Database(database_url) as opened:
        yield opened
