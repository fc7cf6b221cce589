"""The command line: joins the commands, and turns errors into one clear line."""

from __future__ import annotations

import errno
import sys
import traceback
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from cli import masking
from cli.configuration import Options
from core.errors import DeskhandError, InvalidInput

COMMANDS = (
    "cli.commands.up",
    "cli.commands.processes",
    "cli.commands.migrate",
    "cli.commands.alive",
    "cli.commands.chat",
    "cli.commands.ask",
    "cli.commands.faq",
    "cli.commands.conversations",
    "cli.commands.turns",
    "cli.commands.deliveries",
    "cli.commands.intents",
    "cli.commands.labels",
    "cli.commands.calibrate",
    "cli.commands.alerts",
    "cli.commands.bases",
    "cli.commands.texts",
    "cli.commands.blocked",
    "cli.commands.slack",
    "cli.commands.sample",
    "cli.commands.train",
    "cli.commands.eval",
    "cli.commands.models",
    "cli.commands.doctor",
    "cli.commands.bench",
)
"""The modules of the commands, in the order of the help; each has `register(app)`.

They are imported to show the help, so they import what is heavy in the command's body.
"""

USAGE_ERROR = 2
INTERRUPTED = 130


def build() -> typer.Typer:
    """Return the command line with all commands."""
    app = typer.Typer(
        name="deskhand",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Answers customers' questions in the chat apps they already use.",
    )
    app.callback()(_before)
    for name in COMMANDS:
        import_module(name).register(app)
    return app


def main() -> None:
    """Run the command that was asked for; the entry point of `deskhand`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; return its exit status: 0, 1 for an error, 2 for a wrong usage."""
    arguments, debug = _without_debug(arguments)
    try:
        status = build()(args=arguments, standalone_mode=False, prog_name="deskhand")
        return status if isinstance(status, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:  # a wrong option or argument
        told = error.format_message()
        is_help = "\n" in told  # no command at all: the whole help
        print(told if is_help else f"deskhand: {told} See --help.", file=sys.stderr)
        return USAGE_ERROR
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        return _failed(error, debug=debug)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out wherever a person has put it, but not out of what follows `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = [argument for argument in arguments[:end] if argument != "--debug"]
    return before + arguments[end:], len(before) < end


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(_version())
        raise typer.Exit


def _before(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; deskhand.toml here if there is one.")
    ] = None,
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the release."),
    ] = False,
) -> None:
    masking.install()
    context.obj = Options(config=config.absolute() if config else None)


def _version() -> str:
    try:
        return f"deskhand {version('deskhand')}"
    except PackageNotFoundError:
        return "deskhand (not installed)"


def _failed(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    else:
        print(f"deskhand: {_line(error)}", file=sys.stderr)
    return 1


def _line(error: Exception) -> str:
    if isinstance(error, InvalidInput) and error.field and error.field not in str(error):
        return f"{error.field}: {error}"
    if isinstance(error, DeskhandError):
        return " ".join(str(error).split())
    if isinstance(error, BrokenPipeError):
        return "the output's reader went away."
    if isinstance(error, OSError):
        return _about_the_machine(error)
    reason = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {reason} (the traceback: --debug)"


def _about_the_machine(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; make room and start again."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied{where}; mend the owner and mode, or use another place."
    return f"{error.strerror or error}{where}."
