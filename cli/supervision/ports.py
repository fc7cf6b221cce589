"""Whether our port is free, and who has it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import psutil

from cli import pidfiles
from core.errors import ConfigurationError

PRIVILEGED = 1024


def require_free(host: str, port: int, data_dir: Path) -> None:
    """Make sure that the gateway will get its port.

    Raises:
        ConfigurationError: It will not; the text names the port and who has it.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except socket.gaierror as error:
        raise ConfigurationError(f"DESKHAND_HOST {host!r} is not an address here.") from error
    except OSError as error:
        raise ConfigurationError(_why(error, host, port, data_dir)) from error


def _why(error: OSError, host: str, port: int, data_dir: Path) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is taken by {_holder(port, data_dir)}; "
            "stop that, or choose another port with DESKHAND_PORT."
        )
    if error.errno == errno.EACCES and port < PRIVILEGED:
        return f"Port {port} is reserved for root; choose one from {PRIVILEGED} on (DESKHAND_PORT)."
    return f"Port {port} of {host} cannot be used: {error.strerror} (DESKHAND_HOST, DESKHAND_PORT)."


def _holder(port: int, data_dir: Path) -> str:
    ours = pidfiles.running(data_dir, "gateway", ("gateway",))
    pid = _listener(port)
    if ours is not None and pid in (ours.pid, None):
        return f"this installation's own gateway (process {ours.pid})"
    if pid is None:
        return "another program"
    try:
        return f"the program {psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"


def _listener(port: int) -> int | None:
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
            return one.pid
    return None
