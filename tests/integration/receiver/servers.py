"""PostgreSQL and Redis, started for the tests alone: each in a folder, on a socket of that folder.

They come from packages of the system. Where they are not installed, tests that need them are
skipped and say so; with `TIMEMACHINE_SERVERS_REQUIRED=1` they fail.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import psycopg
import pytest
import redis

from tests.cluster.process import wait_until

SERVERS_REQUIRED: Final = "TIMEMACHINE_SERVERS_REQUIRED"
"""If it is `1`, tests fail when a server is not installed; otherwise they are skipped."""

_USER: Final = "nobody"
"""Who runs PostgreSQL when the tests are run by root, as which it refuses to run."""


def _absent(what: str) -> NoReturn:
    if os.environ.get(SERVERS_REQUIRED) == "1":
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"needs {what}")


def _postgres_folder() -> Path | None:
    """Where the programs of the newest PostgreSQL are. Debian does not put them on the path."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: [int(part) for part in path.parts[4].split(".")],
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


@contextmanager
def _running(
    command: Sequence[str], folder: Path, how: dict[str, Any], end: signal.Signals
) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **how)
    try:
        yield server
    finally:
        server.send_signal(end)
        try:
            server.wait(20)
        finally:
            server.kill()


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server with nothing in it; yields how to connect to it."""
    programs = _postgres_folder()
    if programs is None:
        _absent("PostgreSQL (postgresql)")
    # Not in pytest's folder, which nobody but its owner may enter, and whose name is too long for
    # a socket.
    with tempfile.TemporaryDirectory(prefix="tm-pg-", dir="/tmp") as name:
        folder = Path(name)
        how: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(folder, user.pw_uid, user.pw_gid)
            how = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        subprocess.run(
            [
                *(f"{programs}/initdb", "--pgdata=data", "--username=tests", "--auth=trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
            **how,
        )
        command = [f"{programs}/postgres", "-D", "data", "-k", name, "-F"]
        command += ["-c", "listen_addresses=", "-c", "max_connections=64"]
        place = f"host={name} user=tests dbname=postgres"
        with _running(command, folder, how, signal.SIGQUIT) as server:

            def answers() -> bool:
                assert server.poll() is None, (folder / "log").read_text()[-3_000:]
                try:
                    psycopg.connect(place).close()
                except psycopg.OperationalError:
                    return False
                return True

            wait_until(answers, "PostgreSQL does not answer", 60)
            yield place


@contextmanager
def redis_in(folder: Path, *flags: str, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """A Redis server with what it finds in the folder; yields the path of its socket.

    In the end it is told so, or killed.
    """
    program = shutil.which("redis-server")
    if program is None:
        _absent("Redis (redis-server)")
    path = f"{folder}/socket"
    command = [program, "--port", "0", "--unixsocket", path, "--dir", str(folder)]
    command += ["--save", "", "--maxmemory-policy", "noeviction", *flags]
    with (
        _running(command, folder, {}, end) as server,
        redis.Redis(unix_socket_path=path) as client,
    ):

        def answers() -> bool:
            assert server.poll() is None, (folder / "log").read_text()[-3_000:]
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers, "Redis does not answer", 60)
        yield path


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server with nothing in it; yields the path of its socket."""
    with (
        tempfile.TemporaryDirectory(prefix="tm-redis-", dir="/tmp") as name,
        redis_in(Path(name)) as path,
    ):
        yield path
