"""Engines: each PostgreSQL and each store that this machine has takes a server through its day, or is refused.

Other PostgreSQLs than Debian's are looked for in POSTGRES_PROGRAMS (folders with `postgres` and `initdb`, colons in
between); other stores are on PATH, or in DRAGONFLY_URL.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from realtime.errors import StartupError
from realtime.ledger import migrations
from realtime.ledger.versions import LATEST, LEAST
from tests.support.clients import asking
from tests.support.processes import environment, free_port, running
from tests.support.servers import SECRET, running_server
from tests.support.waiting import attempted, eventually

NOBODY = 65534 if os.geteuid() == 0 else None


def _programs() -> list[Path]:
    """Where PostgreSQLs of this machine have their programs."""
    given = [Path(folder) for folder in os.environ.get("POSTGRES_PROGRAMS", "").split(":") if folder]
    return [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *given]


def _major(programs: Path) -> int:
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].split(".")[0])


@contextmanager
def _postgres(programs: Path) -> Iterator[str]:
    """A new cluster of these programs; its address."""
    with tempfile.TemporaryDirectory(prefix="realtime-engine-") as name:
        folder = Path(name)
        if NOBODY is not None:
            os.chown(folder, NOBODY, NOBODY)
        port, data = free_port(), folder / "data"
        options = {"user": NOBODY, "group": NOBODY, "cwd": folder, "stderr": subprocess.DEVNULL}
        initdb = [programs / "initdb", "-D", data, "-U", "realtime", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        settings = f"port={port} listen_addresses=127.0.0.1 unix_socket_directories= fsync=off".split()
        command = [programs / "postgres", "-D", data, *(f"--{setting}" for setting in settings)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        url = f"postgresql://realtime@127.0.0.1:{port}/postgres"
        try:
            connect = lambda: asyncio.run(_answers(url))  # noqa: E731
            attempted(connect, OSError, asyncpg.CannotConnectNowError)
            yield url
        finally:
            process.send_signal(2)  # "fast"
            process.wait(60)


async def _answers(url: str) -> None:
    await (await asyncpg.connect(url)).close()


@pytest.fixture(scope="module", params=_programs() or [None], ids=lambda path: f"{path}")
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """The major version and the address of a PostgreSQL of this machine."""
    if request.param is None:
        pytest.skip("there is no PostgreSQL beside the one that all tests run on")
    with _postgres(request.param) as url:
        yield _major(request.param), url


async def _plays(url: str, store_url: str) -> None:
    """A server's day: an account, scores for two boards, a view, the command that compares the stores."""
    await migrations.migrate(url)
    async with running_server(url, store_url) as server:
        account = {"email": "a@example.com", "password": "long enough", "username": "anna"}
        made = (await server.http.post("/users", json=account)).json()
        headers = server.bearer(made["user_id"])
        rows = [{"submission_id": f"s{n}", "score_added": n} for n in range(100)]
        for _ in range(2):  # what is sent again counts once
            assert (await server.http.post("/scores", json=rows, headers=headers)).status_code == 200
        await server.told()
        for board in ("all_time", "current_week"):
            page = (await server.http.get(f"/boards/{board}")).json()
            assert [entry["score"] for entry in page["entries"]] == [sum(range(100))], board
        env = environment(DATABASE_URL=url, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET)
        async with running("check", env=env) as command:
            assert await command.ends() == 0, command.lines


async def test_a_server_plays_on_every_supported_postgresql_and_starts_on_no_other(
    engine: tuple[int, str], store_url: str
) -> None:
    major, url = engine
    if LEAST <= major <= LATEST:
        return await _plays(url, store_url)
    said = f"PostgreSQL {major}, which is not supported: PostgreSQL {LEAST} to {LATEST} are"
    with pytest.raises(StartupError, match=said):
        await migrations.migrate(url)
    env = environment(DATABASE_URL=url, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0")
    for arguments in (["migrate"], ["serve"], ["worker"]):
        async with running(*arguments, env=env) as command:
            assert await command.ends() == 1, arguments
            assert said in "".join(command.errors) and "Traceback" not in "".join(command.errors)


@pytest.mark.every_store
async def test_a_server_plays_on_every_store_of_this_machine(dsn: str, store_url: str) -> None:
    await _plays(dsn, store_url)
    async with running_server(dsn, store_url) as server, asking(server.base_url) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
