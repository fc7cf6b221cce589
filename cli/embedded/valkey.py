"""The embedded Valkey, broker of the queue."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from cli.embedded.account import own
from cli.embedded.binaries import valkey_server
from cli.embedded.service import Service
from cli.embedded.sockets import VALKEY_SOCKET

SETTINGS = {
    "port": "0",  # the socket only: nothing to guard on the network
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",  # the sweeper rings again for what the last second held
    "save": "",
    "maxmemory-policy": "noeviction",
}


class Valkey(Service):
    """Valkey on a unix socket, with an append-only file."""

    role = "valkey"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis+socket://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.sockets / VALKEY_SOCKET

    def _command(self) -> Sequence[str]:
        command = [str(valkey_server()), "--dir", str(self.home)]
        command += ["--unixsocket", str(self._socket)]
        for name, value in SETTINGS.items():
            command += [f"--{name}", value]
        return command

    def _initialise(self) -> None:
        own(self.home, self._account)

    def _is_ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _mended(self, said: str) -> bool:
        # A damaged file keeps Valkey from starting. It holds doorbells only, and the sweeper
        # rings again for all that is stored; so it is put aside, not mourned.
        file = self.home / "appendonlydir"
        if "append only file" not in said.lower() and "aof" not in said.lower():
            return False
        if not file.exists():
            return False
        taken = len(list(self.home.glob("appendonlydir.broken-*")))
        file.rename(self.home / f"appendonlydir.broken-{taken + 1}")
        return True
