"""`deskhand migrate` and `deskhand alive`: what containers start with and are asked."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from cli import main
from core.db import migrate
from workers.process import new_name


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """The URL of a database without a schema."""
    name = f"empty_{uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f'create database "{name}"')
    head, _, query = server_url.partition("?")
    yield f"{head.rpartition('/')[0]}/{name}?{query}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f'drop database "{name}" with (force)')


def beat(url: str, name: str, role: str, *, ready: bool = True, seconds_ago: int = 0) -> None:
    with psycopg.connect(url) as conn:
        conn.execute(
            "insert into process (name, role, ready, detail, seen_at)"
            " values (%s, %s, %s, '{}', now() - make_interval(secs => %s))",
            (name, role, ready, seconds_ago),
        )


def test_migrate_brings_an_empty_database_to_this_release_and_then_finds_nothing_to_do(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DESKHAND_DATABASE_URL", empty_url)

    assert main.run(["migrate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"from": None, "revision": migrate.head()}
    assert migrate.current(empty_url) == migrate.head()

    assert main.run(["migrate"]) == 0
    assert capsys.readouterr().out == f"The database is at {migrate.head()} already.\n"


def test_migrate_names_a_database_that_is_away_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DESKHAND_DATABASE_URL", "postgresql://127.0.0.1:1/deskhand")

    assert main.run(["migrate"]) == 1
    assert capsys.readouterr().err.startswith("deskhand: The database cannot be reached:")


@pytest.fixture
def alive(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Ask `deskhand alive`; return its exit status."""
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    return lambda *options: main.run(["alive", *options])


def test_a_host_is_alive_by_its_own_process_that_was_seen_lately(alive, database_url: str):
    assert alive() == 1

    beat(database_url, new_name("sender"), "sender")

    assert alive() == 0
    assert alive("--role", "sender") == 0
    assert alive("--role", "worker") == 1


def test_another_hosts_process_does_not_keep_this_one_alive(alive, database_url: str):
    beat(database_url, f"worker@{socket.gethostname()}-2:7:abcdef", "worker")

    assert alive() == 1


def test_a_process_that_fell_silent_or_is_not_ready_is_not_alive(alive, database_url: str):
    beat(database_url, new_name("worker"), "worker", seconds_ago=20)
    beat(database_url, new_name("sender"), "sender", ready=False)

    assert alive() == 1


def test_a_long_lease_makes_for_rare_heartbeats(
    alive, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    beat(database_url, new_name("worker"), "worker", seconds_ago=20)
    monkeypatch.setenv("DESKHAND_LEASE_SECONDS", "60")

    assert alive() == 0
