"""`deskhand doctor` on installations that are well and on some that are not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli import health, main, pidfiles, secrets
from tests.services import free_port


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith(("DESKHAND_", "SLACK_", "TELEGRAM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DESKHAND_PORT", str(free_port()))
    return tmp_path / "data"


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = main.run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is (status == 0)
    return status, {check["name"]: check for check in found["checks"]}


def test_an_installation_that_was_not_started_yet_is_healthy(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    status, checks = examined(capsys)

    assert status == 0
    assert checks["python"]["state"] == "ok"
    assert checks["database"]["advice"] == "start `deskhand up`"
    assert not data_dir.exists(), "examining changes nothing"


def test_secrets_that_others_may_read_are_a_failure(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    secrets.load_or_create(data_dir)
    (data_dir / "secrets").chmod(0o644)

    status, checks = examined(capsys)

    assert status == 1
    assert checks["secrets"]["advice"] == f"run `chmod 600 {data_dir / 'secrets'}`"


def test_a_database_that_cannot_be_reached_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESKHAND_DATABASE_URL", f"postgresql://u:word@127.0.0.1:{free_port()}/d")
    monkeypatch.setenv("DESKHAND_BROKER_URL", f"redis://:word@127.0.0.1:{free_port()}/0")

    status, checks = examined(capsys)

    assert status == 1
    assert checks["database"]["advice"] == "check DESKHAND_DATABASE_URL"
    assert checks["broker"]["advice"] == "check DESKHAND_BROKER_URL"
    assert "word" not in json.dumps(checks)


def test_a_database_at_this_release_is_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)

    _, checks = examined(capsys)

    assert [checks[name]["state"] for name in ("database", "pgvector", "schema")] == ["ok"] * 3


def test_half_a_running_installation_is_a_failure(
    capsys: pytest.CaptureFixture[str], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "running", lambda _, role: role == "gateway")
    pidfiles.write(data_dir, "gateway", os.getpid())

    status, checks = examined(capsys)

    assert status == 1
    assert checks["gateway"]["state"] == "ok"
    assert checks["worker"]["state"] == "fail"
    assert checks["database"]["state"] == "fail"


def test_channels_and_misspelt_variables_are_examined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp-1")
    monkeypatch.setenv("DESKHAND_REPLY_STILE", "verbatim")

    status, checks = examined(capsys)

    assert status == 1
    assert "SLACK_BOT_TOKEN" in checks["channels"]["text"]
    assert checks["settings"]["advice"] == "did you mean DESKHAND_REPLY_STYLE?"


def test_it_reads_like_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor"]) == 0

    shown = capsys.readouterr().out
    assert "\nwarn  models      not prepared yet -> run `deskhand models prepare`\n" in shown
    assert shown.endswith("This installation is healthy.\n")
