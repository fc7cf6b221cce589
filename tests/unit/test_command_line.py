"""The frame of all commands: exit codes, and one clear line for every error."""

from __future__ import annotations

import errno
import os
from importlib import import_module
from pathlib import Path

import pytest
import typer

from cli import main
from core.errors import ConfigurationError, InvalidInput


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("DESKHAND_", "SLACK_", "TELEGRAM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the commands by one, `fail`, which raises."""

    def build() -> typer.Typer:
        app = typer.Typer()
        app.callback()(lambda: None)

        @app.command()
        def fail() -> None:
            raise error

        return app

    monkeypatch.setattr(main, "build", build)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_module_of_the_table_registers_a_command(name: str) -> None:
    app = typer.Typer()

    import_module(name).register(app)

    assert app.registered_commands or app.registered_groups


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("up", "gateway", "worker", "sender", "scheduler", "faq", "doctor"):
        assert f"  {command} " in shown


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--nonsense"], ["faq", "lst"]])
def test_a_wrong_usage_is_one_line_and_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert capsys.readouterr().err.startswith("Usage: deskhand")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigurationError("A port\nis taken."), "A port is taken."),
        (InvalidInput("must not be blank", field="text"), "text: must not be blank"),
        (OSError(errno.ENOSPC, "x", "/data/f"), "the disk is full at /data/f; make room"),
        (PermissionError(errno.EACCES, "x", "/data"), "permission denied at /data; mend"),
        (KeyError("k"), "unexpected KeyError: 'k' (the traceback: --debug)"),
    ],
)
def test_an_error_is_one_line_and_1(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(error, monkeypatch)

    assert main.run(["fail"]) == 1

    told = capsys.readouterr().err
    assert told.startswith(f"deskhand: {line}")
    assert told.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_the_traceback_is_shown_on_demand(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(ConfigurationError("A port is taken."), monkeypatch)

    assert main.run(arguments) == 1

    assert "Traceback" in capsys.readouterr().err


def test_a_wrong_setting_is_told_by_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deskhand.toml").write_text("prot = 1\n")

    assert main.run(["doctor"]) == 1

    assert capsys.readouterr().err == (
        "deskhand: deskhand.toml line 1: there is no setting prot; did you mean port?\n"
    )


def test_a_named_file_is_read_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.toml").write_text("port = 0\n")

    assert main.run(["--config", "other.toml", "doctor"]) == 1

    assert "other.toml line 1: port is 0" in capsys.readouterr().err
