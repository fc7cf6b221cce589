"""The prepared models, the sample shop's database, and stacks that run on them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import fresh_database, missing
from tests.services import BROKERS, RabbitMQ, Redis, Server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The prepared models; made once per checkout, as `make run` does."""
    from answering.preparing import prepare

    folder = ROOT / ".deskhand" / "models"
    prepare(folder, print)
    return folder


@pytest.fixture
def data_dir(models_dir: Path, tmp_path: Path) -> Path:
    """A data folder of one test, with the prepared models in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "models").symlink_to(models_dir)
    return folder


@pytest.fixture(scope="session")
def shop_template_url(server_url: str, template_url: str, models_dir: Path) -> Iterator[str]:
    """A database with the sample shop and its vectors, which other tests clone."""
    from cli.commands import sample

    with fresh_database(server_url, template_url) as url:
        asyncio.run(sample.load(url, print))
        # In a process of its own: it loads the models, and nothing may stay connected.
        encode = [sys.executable, "-m", "tests.end_to_end.encode", url, str(models_dir)]
        subprocess.run(encode, check=True, cwd=ROOT)
        yield url


@pytest.fixture
def shop_url(server_url: str, shop_template_url: str) -> Iterator[str]:
    """A fresh database with the sample shop in it."""
    with fresh_database(server_url, shop_template_url) as url:
        yield url


@pytest.fixture
def valkey() -> Iterator[Server]:
    """A running Valkey."""
    server = BROKERS["valkey"]()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=list(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each broker in turn, running."""
    kind = BROKERS[request.param]
    if kind in (Redis, RabbitMQ) and not kind.is_installed():  # type: ignore[attr-defined]
        missing(kind.name)
    server = kind()
    server.start()
    yield server
    server.stop()
