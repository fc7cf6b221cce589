"""The embedded PostgreSQL with pgvector."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from cli import pidfiles
from cli.embedded.account import own
from cli.embedded.binaries import postgres_folder
from cli.embedded.service import STOP_PATIENCE_SECONDS, Service
from cli.embedded.sockets import DATABASE, USER, database_url
from core.errors import ConfigurationError

SETTINGS = {
    "listen_addresses": "",  # the socket only: nothing to guard on the network
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "synchronous_commit": "on",  # what a platform was told is stored, is stored
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "io_method": "sync",  # the I/O workers would cost more memory than they gain here
    "max_parallel_workers_per_gather": "0",  # the cores are for the models
    "max_parallel_maintenance_workers": "0",  # needs /dev/shm, which is small in containers
    "jit": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


class Postgres(Service):
    """PostgreSQL 18 with pgvector on a unix socket; its database `deskhand` is created.

    Args:
        data_dir: Deskhand's data folder.
        durable: Commits survive a loss of power; without it, only a crash of processes. Tests,
            whose data is thrown away, are several times as fast without.
    """

    role = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes all, leaves

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        super().__init__(data_dir)
        self._durable = durable

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of another database on this server."""
        return database_url(self.sockets, database)

    def _command(self) -> Sequence[str]:
        command = [str(postgres_folder() / "postgres"), "-D", str(self.home), "-k"]
        command.append(str(self.sockets))
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        if not self._durable:
            command += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        return command

    def _initialise(self) -> None:
        if self.home.exists():
            self._require_same_major()
            own(self.home, self._account)
            return
        # Made aside and renamed: an interrupted initdb never looks like a database.
        draft = self.home.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        own(draft, self._account)
        try:
            self._initdb(str(draft))
            draft.rename(self.home)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _initdb(self, folder: str) -> None:
        # The builtin provider lowers and compares all of Unicode alike on every machine.
        command = [str(postgres_folder() / "initdb"), "-D", folder, "-U", USER, "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--no-instructions"]
        if not self._durable:
            command.append("--no-sync")
        with self._log_file() as log:
            begun = log.tell()
            process = self.spawn(command, log)
            try:
                status = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        if status != 0:
            raise ConfigurationError(
                f"PostgreSQL's folder {self.home} cannot be made: {self._last_words(begun)} "
                f"(log: {self._log_path()})"
            )

    def _require_same_major(self) -> None:
        version = (self.home / "PG_VERSION").read_text().strip()
        answer = subprocess.run(
            [postgres_folder() / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        major = answer.stdout.split()[-1].partition(".")[0]
        if version != major:
            raise ConfigurationError(
                f"{self.home} was made by PostgreSQL {version} and the installed one is {major}; "
                "dump it with the old release and restore it with this one."
            )

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _after_start(self) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as conn:
            known = conn.execute("select from pg_database where datname = %s", (DATABASE,))
            if known.rowcount == 0:
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("create extension if not exists vector")

    def _passes(self, said: str) -> bool:
        # Backends of a killed postmaster hold its shared memory until they notice.
        return "shared memory" in said or "postmaster.pid" in said

    def _end_predecessor(self) -> None:
        super()._end_predecessor()
        note = self.home / "postmaster.pid"
        if not note.exists():
            return
        left = [process for process in psutil.process_iter() if self._works_here(process)]
        for process in left:
            pidfiles.end(process, signal.SIGTERM, STOP_PATIENCE_SECONDS)
        if not left and note.exists():
            # Nobody works here, so the pid in it is dead, or by now somebody else's.
            note.unlink()

    def _works_here(self, process: psutil.Process) -> bool:
        try:
            return process.name() == "postgres" and process.cwd() == str(self.home)
        except (psutil.Error, OSError):
            return False
