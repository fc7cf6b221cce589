"""A `deskhand` command as a process of its own, for what is heavy and no part of a scheduler."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import cli
from cli.embedded import launch
from cli.processes.parts import Setup


async def run(setup: Setup, *command: str, seconds: float) -> tuple[int | None, str]:
    """Run a command on this installation; it ends when we do.

    Args:
        setup: Names the installation.
        command: What follows `deskhand`.
        seconds: It is killed after that.

    Returns:
        The exit status, and the last line on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        *_launcher(),
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(setup),
    )
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        said = b"it took too long"
    finally:
        with suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
                await process.wait()
    return process.returncode, " ".join(said.decode(errors="replace").strip().splitlines()[-1:])


def _launcher() -> list[str]:
    """Return the command that becomes `deskhand`, and ends when we do."""
    parent = [str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
    return [
        *(sys.executable, "-I", "-S", launch.__file__, *parent),
        *(sys.executable, "-P", "-m", "cli"),
    ]


def _environment(setup: Setup) -> dict[str, str]:
    """Return the environment in which a child finds this installation."""
    root = str(Path(cli.__file__).resolve().parent.parent)
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {name: v for name, v in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return {
        **ours,
        "PYTHONPATH": os.pathsep.join(path),
        "DESKHAND_DATABASE_URL": setup.database_url,
        "DESKHAND_DATA_DIR": str(setup.settings.data_dir.absolute()),
        "OMP_NUM_THREADS": "1",  # in the background: customers come first
    }
