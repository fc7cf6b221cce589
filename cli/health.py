"""What makes an installation healthy: one function a check, each with what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg

from cli import configuration, pidfiles, secrets
from cli.supervision.ports import require_free
from core import model_store
from core.db import migrate, processes
from core.db.connect import Database
from core.errors import ConfigurationError, DeskhandError
from core.settings import Settings

OLDEST_PYTHON = (3, 11)
OLDEST_POSTGRES = 150_000
DISK_SCARCE_BYTES = 1_000_000_000
DISK_NEEDED_BYTES = 200_000_000
CONNECT_SECONDS = 3
PACKAGES = (
    "torch", "transformers", "sentence-transformers", "celery", "psycopg", "fastapi", "alembic",
)  # fmt: skip
PROCESSES = ("gateway", "worker", "sender", "scheduler")


class State(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    name: str
    state: State
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Installation:
    """What is examined.

    Attributes:
        given: The settings as they were given.
        settings: The same, completed.
        file: The configuration file that was named, if one was.
    """

    given: Settings
    settings: Settings
    file: Path | None

    @property
    def runs(self) -> bool:
        """Whether `deskhand up` has something running here."""
        return any(running(self.settings.data_dir, role) for role in PROCESSES)


Check = Callable[[Installation], Iterator[Finding]]


def examine(installation: Installation) -> list[Finding]:
    """Run all checks; one that breaks is a finding and does not keep the others from running."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(installation)
        except Exception as error:
            found.append(Finding(check.__name__, State.FAIL, f"the check broke: {error}"))
    return found


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing failed."""
    return all(finding.state is not State.FAIL for finding in findings)


def running(data_dir: Path, role: str) -> bool:
    """Tell whether the process of a role, as `deskhand up` started it, is alive."""
    return pidfiles.running(data_dir, role, (role,)) is not None


def python(_: Installation) -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", State.FAIL, version, "install Python 3.11 or newer")
    else:
        yield Finding("python", State.OK, version)


def packages(_: Installation) -> Iterator[Finding]:
    """What is installed beside us."""
    missing: list[str] = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("packages", State.FAIL, f"missing: {', '.join(missing)}", "run `make setup`")
    else:
        yield Finding("packages", State.OK, f"torch {importlib.metadata.version('torch')}")


def variables(_: Installation) -> Iterator[Finding]:
    """Misspelt settings, which would be silently without effect."""
    for name, meant in configuration.unknown_variables().items():
        yield Finding("settings", State.WARN, f"{name} means nothing", f"did you mean {meant}?")


def data_folder(installation: Installation) -> Iterator[Finding]:
    """The data folder, its disk, and the secrets in it."""
    folder = installation.settings.data_dir
    if not folder.exists():
        yield Finding("data", State.WARN, f"{folder} does not exist", "`deskhand up` makes it")
        return
    free = shutil.disk_usage(folder).free
    state = State.WARN if free < DISK_SCARCE_BYTES else State.OK
    state = State.FAIL if free < DISK_NEEDED_BYTES else state
    advice = "" if state is State.OK else "make room"
    yield Finding("disk", state, f"{free // 1_000_000} MB free at {folder}", advice)
    yield from _writable(folder)
    yield from _secrets(installation)


def _writable(folder: Path) -> Iterator[Finding]:
    probe = folder / ".doctor"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        advice = "mend its owner and mode"
        yield Finding("data", State.FAIL, f"{folder}: {error.strerror}", advice)
    else:
        yield Finding("data", State.OK, str(folder))


def _secrets(installation: Installation) -> Iterator[Finding]:
    given = installation.given
    if given.api_token is not None and given.secret_key is not None:
        yield Finding("secrets", State.OK, "given by settings")
        return
    path = installation.settings.data_dir / secrets.FILE
    try:
        known = secrets.load(installation.settings.data_dir)
    except ConfigurationError as error:
        yield Finding("secrets", State.FAIL, str(error))
        return
    if known is None:
        yield Finding("secrets", State.WARN, "not made yet", "the first start makes them")
    elif path.stat().st_mode & 0o077:
        yield Finding("secrets", State.FAIL, f"others may read {path}", f"run `chmod 600 {path}`")
    else:
        yield Finding("secrets", State.OK, str(path))


def database(installation: Installation) -> Iterator[Finding]:
    """PostgreSQL, pgvector and the schema."""
    assert installation.settings.database_url is not None
    url = installation.settings.database_url.get_secret_value()
    embedded = installation.given.database_url is None
    if embedded and not running(installation.settings.data_dir, "postgres"):
        yield _not_running(installation, "database", "the embedded PostgreSQL")
        return
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS, autocommit=True) as conn:
            yield from _server(conn)
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        advice = "see logs/postgres.log" if embedded else "check DESKHAND_DATABASE_URL"
        yield Finding("database", State.FAIL, reason, advice)
        return
    current, head = migrate.current(url), migrate.head()
    if current == head:
        yield Finding("schema", State.OK, head)
    else:
        text = f"at {current or 'nothing'}, this release needs {head}"
        yield Finding("schema", State.FAIL, text, "start `deskhand up` or run the migrations")


def _server(conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    version = conn.info.server_version
    text = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version < OLDEST_POSTGRES:
        yield Finding("database", State.FAIL, text, "use PostgreSQL 15 or newer")
    else:
        yield Finding("database", State.OK, text)
    found = conn.execute("select extversion from pg_extension where extname = 'vector'").fetchone()
    if found is None:
        advice = "let a superuser run: create extension vector"
        yield Finding("pgvector", State.FAIL, "not in this database", advice)
    else:
        yield Finding("pgvector", State.OK, str(found[0]))


def broker(installation: Installation) -> Iterator[Finding]:
    """The queue's broker."""
    from kombu.connection import Connection

    assert installation.settings.broker_url is not None
    embedded = installation.given.broker_url is None
    if embedded and not running(installation.settings.data_dir, "valkey"):
        yield _not_running(installation, "broker", "the embedded Valkey")
        return
    url = installation.settings.broker_url.get_secret_value()
    try:
        with Connection(url, connect_timeout=CONNECT_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
            yield Finding("broker", State.OK, str(connection.transport_cls))
    except Exception as error:  # each transport has exceptions of its own
        advice = "see logs/valkey.log" if embedded else "check DESKHAND_BROKER_URL"
        yield Finding("broker", State.FAIL, f"not reached: {type(error).__name__}", advice)


def _not_running(installation: Installation, name: str, what: str) -> Finding:
    # A stopped installation is a healthy one; half a running one is not.
    state = State.FAIL if installation.runs else State.WARN
    return Finding(name, state, f"{what} does not run", "start `deskhand up`")


def models(installation: Installation) -> Iterator[Finding]:
    """The prepared models, and this machine's copies of promoted ones."""
    folder = installation.settings.models_dir
    names = [path.name for path in sorted(folder.glob("*")) if path.is_dir()]
    names = [name for name in names if not name.startswith(".") and name != "versions"]
    if names:
        yield Finding("models", State.OK, ", ".join(names))
    else:
        yield Finding("models", State.WARN, "not prepared yet", "run `deskhand models prepare`")
    for name, files in model_store.damaged_versions(folder).items():
        yield Finding(
            "models",
            State.WARN,
            f"versions/{name} is damaged: {', '.join(files)}",
            "remove the folder; a worker fetches it anew when it next loads it",
        )


def port(installation: Installation) -> Iterator[Finding]:
    """The gateway's port: free, or ours."""
    settings = installation.settings
    where = f"{settings.host}:{settings.port}"
    if running(settings.data_dir, "gateway"):
        yield Finding("port", State.OK, f"{where} is the gateway's")
        return
    try:
        require_free(settings.host, settings.port, settings.data_dir)
    except ConfigurationError as error:
        yield Finding("port", State.FAIL, str(error))
    else:
        yield Finding("port", State.OK, f"{where} is free")


def running_processes(installation: Installation) -> Iterator[Finding]:
    """The processes of `deskhand up`, and what they say of themselves."""
    if not installation.runs:
        yield Finding("processes", State.WARN, "none runs", "start `deskhand up`")
        return
    for role in PROCESSES:
        if running(installation.settings.data_dir, role):
            yield Finding(role, State.OK, "runs")
        else:
            yield Finding(
                role, State.FAIL, "does not run", f"see why in the output of `up` ({role})"
            )
    yield from _heartbeats(installation)


def _heartbeats(installation: Installation) -> Iterator[Finding]:
    assert installation.settings.database_url is not None
    try:
        alive = asyncio.run(_alive(installation.settings.database_url.get_secret_value()))
    except DeskhandError:
        return  # the check of the database says so
    for process in alive:
        if not process.ready:
            yield Finding(process.role, State.WARN, f"{process.name} is not ready yet")
    for role in {"worker", "sender", "scheduler"} - {process.role for process in alive}:
        advice = "wait until it has loaded, or see its output"
        yield Finding(role, State.FAIL, "no heartbeat in the database", advice)


async def _alive(url: str) -> list[processes.Process]:
    async with Database(url, size=1) as database, database.transaction() as conn:
        return await processes.alive(conn)


def channels(installation: Installation) -> Iterator[Finding]:
    """The channels' tokens and whether they fit together."""
    try:
        found = configuration.channel_settings(installation.file)
    except ConfigurationError as error:
        yield Finding("channels", State.FAIL, str(error))
        return
    for name, section in (("slack", found.slack), ("telegram", found.telegram)):
        text = "off (no token)" if section.bot_token is None else "token set"
        yield Finding(name, State.OK, text)


CHECKS: tuple[Check, ...] = (
    python,
    packages,
    variables,
    data_folder,
    database,
    broker,
    models,
    port,
    running_processes,
    channels,
)
