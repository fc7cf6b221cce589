"""The secrets that are made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli import secrets
from core.errors import ConfigurationError


def test_the_first_start_makes_them_and_the_next_has_the_same(tmp_path: Path) -> None:
    first = secrets.load_or_create(tmp_path / "data")
    second = secrets.load_or_create(tmp_path / "data")

    assert first.fresh
    assert not second.fresh
    assert (first.api_token, first.secret_key) == (second.api_token, second.secret_key)
    assert len({first.api_token, first.secret_key}) == 2
    assert len(first.api_token) >= 32


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    secrets.load_or_create(tmp_path)

    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o600


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: secrets.load_or_create(tmp_path), range(32)))

    assert len({one.api_token for one in made}) == 1
    assert sum(one.fresh for one in made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secrets"], "no draft is left"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"api_token": "a"}', '{"api_token": "", "secret_key": "b"}']
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets").write_text(content)

    with pytest.raises(ConfigurationError, match=f"{tmp_path / 'secrets'} is damaged"):
        secrets.load_or_create(tmp_path)

    assert (tmp_path / "secrets").read_text() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be"):
        secrets.load_or_create(tmp_path / "file")


def test_their_repr_keeps_them_secret(tmp_path: Path) -> None:
    made = secrets.load_or_create(tmp_path)

    assert made.api_token not in repr(made)
