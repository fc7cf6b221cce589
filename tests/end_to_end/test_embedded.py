"""The embedded PostgreSQL and Valkey, with their real binaries."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from cli import pidfiles
from cli.embedded import Postgres, Valkey, addresses
from cli.embedded.sockets import PATH_LIMIT_BYTES, POSTGRES_SOCKET
from core.errors import ConfigurationError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not pytest's own folder: that one is closed to other users, and as root we become another.
    folder = Path(tempfile.mkdtemp(prefix="deskhand-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(addresses_folder(folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def addresses_folder(data_dir: Path) -> Path:
    return Path(addresses(data_dir).database_url.partition("host=")[2])


def say(url: str, words: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(url.removeprefix("redis+socket://"))
        client.sendall(words + b"\r\n")
        return client.recv(100)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_postgres_starts_empty_with_pgvector_and_keeps_its_rows(data_dir: Path) -> None:
    with Postgres(data_dir) as postgres, psycopg.connect(postgres.url) as conn:
        distance = conn.execute("select '[0,1]'::vector <-> '[0,3]'::vector").fetchone()
        lowered = conn.execute("select lower('ÄÖÜ')").fetchone()
        conn.execute("create table note (words text)")
        conn.execute("insert into note values ('kept')")
    with Postgres(data_dir) as postgres, psycopg.connect(postgres.url) as conn:
        kept = conn.execute("select words from note").fetchone()

    assert distance == (2.0,)
    assert lowered == ("äöü",)
    assert kept == ("kept",)


def test_nothing_is_left_after_a_stop(data_dir: Path) -> None:
    with Postgres(data_dir, durable=False) as postgres, Valkey(data_dir) as valkey:
        pids = [postgres.pid, valkey.pid]
        assert pidfiles.path_of(data_dir, "postgres").read_text() == f"{postgres.pid}\n"
        assert pidfiles.path_of(data_dir, "valkey").read_text() == f"{valkey.pid}\n"

    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert not list((data_dir / "run").glob("*.pid"))
    assert not list(addresses_folder(data_dir).iterdir())


def test_committed_rows_survive_a_killed_postmaster(data_dir: Path) -> None:
    with Postgres(data_dir) as postgres:
        with psycopg.connect(postgres.url) as conn:
            conn.execute("create table note (words text)")
            conn.execute("insert into note values ('kept')")
        session = psycopg.connect(postgres.url)  # its backend outlives the postmaster
        kill(postgres.pid)
        postgres.wait()

        postgres.start()

        session.close()
        with psycopg.connect(postgres.url) as conn:
            assert conn.execute("select words from note").fetchone() == ("kept",)


def test_a_killed_valkey_starts_again_with_its_lists(data_dir: Path) -> None:
    with Valkey(data_dir) as valkey:
        say(valkey.url, b"CONFIG SET appendfsync always")
        say(valkey.url, b"RPUSH doorbells 1 2 3")
        kill(valkey.pid)
        valkey.wait()

        valkey.start()

        assert say(valkey.url, b"LLEN doorbells") == b":3\r\n"


def test_a_damaged_append_only_file_is_put_aside(data_dir: Path) -> None:
    with Valkey(data_dir) as valkey:
        say(valkey.url, b"RPUSH doorbells 1 2 3")
    for file in (data_dir / "valkey" / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"*9\r\n$nonsense\r\n" * 10)

    with Valkey(data_dir) as valkey:
        assert say(valkey.url, b"PING") == b"+PONG\r\n"

    assert (data_dir / "valkey" / "appendonlydir.broken-1").is_dir()


def test_the_socket_is_short_however_long_the_data_folder_is(data_dir: Path) -> None:
    deep = data_dir / ("long" * 30) / ("longer" * 20)

    with Postgres(deep, durable=False) as postgres, psycopg.connect(postgres.url) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
        path = os.fsencode(addresses_folder(deep) / POSTGRES_SOCKET)

    assert len(path) <= PATH_LIMIT_BYTES


def test_only_the_owner_can_reach_sockets_and_data(data_dir: Path) -> None:
    with Postgres(data_dir, durable=False):
        assert addresses_folder(data_dir).stat().st_mode & 0o777 == 0o700
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_another_process_finds_the_servers_by_the_data_folder(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Postgres(data_dir, durable=False) as postgres:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setenv("TMPDIR", str(tmp_path))

        assert addresses(data_dir).database_url == postgres.url


def test_a_second_holder_is_refused_and_harms_nothing(data_dir: Path) -> None:
    with Postgres(data_dir, durable=False) as postgres:
        second = Postgres(data_dir, durable=False)
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
            second.start()
        second.stop()

        assert pidfiles.path_of(data_dir, "postgres").exists()
        with psycopg.connect(postgres.url) as conn:
            assert conn.execute("select 1").fetchone() == (1,)


def test_an_interrupted_first_start_is_begun_anew(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")

    with Postgres(data_dir, durable=False) as postgres, psycopg.connect(postgres.url) as conn:
        assert conn.execute("select 1").fetchone() == (1,)

    assert not (data_dir / "postgres.new").exists()


def test_data_of_another_major_release_is_named_and_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")

    with pytest.raises(ConfigurationError, match="made by PostgreSQL 15"):
        Postgres(data_dir, durable=False).start()

    assert (data_dir / "postgres" / "PG_VERSION").read_text() == "15\n"


def test_a_full_disk_is_one_clear_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.embedded.service.DISK_NEEDED_BYTES", 10**18)

    with pytest.raises(ConfigurationError, match=r"The disk of \S+ is full: .*postgres") as told:
        Postgres(data_dir, durable=False).start()

    assert "\n" not in str(told.value)


HOLDER = """
import sys
from pathlib import Path
from cli.embedded import Postgres, Valkey
postgres, valkey = Postgres(Path(sys.argv[1])), Valkey(Path(sys.argv[1]))
postgres.start(), valkey.start()
print(postgres.pid, valkey.pid, flush=True)
sys.stdin.read()
"""


def test_after_a_sigkill_of_their_holder_the_next_start_has_them(data_dir: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        old = [int(pid) for pid in holder.stdout.readline().split()]
        holder.kill()
        holder.wait()

    with Postgres(data_dir, durable=False) as postgres, Valkey(data_dir) as valkey:
        with psycopg.connect(postgres.url) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        assert say(valkey.url, b"PING") == b"+PONG\r\n"
        assert not any(lives(pid) for pid in old)


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that init has yet to reap does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_recycled_pid_is_never_taken_for_ours(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        pidfiles.write(data_dir, "postgres", stranger.pid)
        with Postgres(data_dir, durable=False):
            assert stranger.poll() is None
        stranger.communicate(b"\n")

    assert stranger.returncode == 0


@as_root
def test_as_root_the_servers_run_as_an_unprivileged_user(data_dir: Path) -> None:
    with Postgres(data_dir, durable=False) as postgres, Valkey(data_dir) as valkey:
        for pid in (postgres.pid, valkey.pid):
            assert psutil.Process(pid).username() == "nobody"
            assert psutil.Process(pid).uids().saved != 0


@as_root
def test_as_root_a_closed_folder_on_the_way_is_named(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(ConfigurationError, match=f"nobody.* the folder {closed} is closed") as told:
        Postgres(closed / "inner", durable=False).start()

    assert "\n" not in str(told.value)
    assert closed.stat().st_mode & 0o777 == 0o700, "nobody's folder is opened behind their back"


@as_root
def test_a_socket_folder_that_somebody_else_made_is_refused(data_dir: Path) -> None:
    trap = addresses_folder(data_dir)
    trap.mkdir(mode=0o777)
    os.chown(trap, 12345, 12345)

    with pytest.raises(ConfigurationError, match="belongs to somebody else"):
        Postgres(data_dir, durable=False).start()
