"""Bringing a database to the schema that this release expects."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from core.errors import ConfigurationError, Unavailable

LOCK = 0x6465736B
"""Advisory lock that keeps two processes from migrating at once."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _dialect_url(database_url: str) -> str:
    _, _, rest = database_url.partition("://")
    return f"postgresql+psycopg://{rest}"


def head() -> str:
    """Return the revision that this release expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def upgrade(database_url: str) -> None:
    """Migrate to the newest revision; safe to call from several processes at once.

    Raises:
        Unavailable: The database cannot be reached.
        ConfigurationError: It lacks pgvector, or the rights to create it.
    """
    engine = create_engine(_dialect_url(database_url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": LOCK})
            connection.commit()
            try:
                command.upgrade(_config(connection), "head")
            finally:
                connection.rollback()
                connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": LOCK})
                connection.commit()
    except DBAPIError as error:
        raise _translated(error) from error
    finally:
        engine.dispose()


def current(database_url: str) -> str | None:
    """Return the revision that a database is at, None for an empty one.

    Raises:
        Unavailable: The database cannot be reached.
    """
    engine = create_engine(_dialect_url(database_url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise _translated(error) from error
    finally:
        engine.dispose()


def _translated(error: DBAPIError) -> Unavailable | ConfigurationError:
    reason = str(error.orig).strip().splitlines()[0]
    if 'extension "vector"' in reason:
        return ConfigurationError(
            f"The database lacks pgvector ({reason}); install it on the server, or let a "
            "superuser run: create extension vector"
        )
    return Unavailable(f"The database cannot be reached: {reason}")
