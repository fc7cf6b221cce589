"""Real brokers for the tests, each a server of our own on free ports: Valkey, Redis, RabbitMQ."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cli.embedded.binaries import valkey_server

START_SECONDS = 60.0
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Poll something outside this process that has no event to wait for, such as a port."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come to be within {seconds:.0f} s")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Tell whether something listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server process with a folder of its own, that can be killed and started again."""

    name = ""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"deskhand-{self.name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return how it is started."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return its environment."""
        return dict(os.environ)

    def is_ready(self) -> bool:
        """Tell whether it takes connections."""
        return answers(self.port)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self.is_ready, self.name)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and remove its folder."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, how)
            self.process.wait(timeout=30)
            self.process = None


class Valkey(Server):
    """The embedded Valkey's binary, on a port."""

    name = "valkey"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [
            str(self.binary()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--save", ""),
        ]

    def binary(self) -> Path:
        """Return the server's program."""
        return valkey_server()


class Redis(Valkey):
    """Debian's Redis."""

    name = "redis"

    @staticmethod
    def is_installed() -> bool:
        """Tell whether this machine has it."""
        return shutil.which("redis-server") is not None

    def binary(self) -> Path:
        return Path(shutil.which("redis-server") or "redis-server")


class RabbitMQ(Server):
    """Debian's RabbitMQ, under a node name of its own."""

    name = "rabbitmq"

    @staticmethod
    def is_installed() -> bool:
        """Tell whether this machine has it."""
        return RABBITMQ.exists()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        return [str(RABBITMQ)]

    def environment(self) -> dict[str, str]:
        home = str(self.folder)
        return {
            **os.environ,
            "HOME": home,
            "RABBITMQ_NODENAME": f"deskhand{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.port + 20_000 if self.port < 45_000 else free_port()),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log-files",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def __init__(self) -> None:
        super().__init__()
        self._epmd_port = free_port()

    def stop(self) -> None:
        super().stop()
        # The name server outlives its nodes: this one is ours alone.
        subprocess.run(
            ["epmd", "-port", str(self._epmd_port), "-kill"], capture_output=True, check=False
        )


BROKERS: dict[str, type[Server]] = {"valkey": Valkey, "redis": Redis, "rabbitmq": RabbitMQ}
