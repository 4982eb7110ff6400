"""Environments as operators have them: secrets of any form, shells and clusters that set variables of their own, stores
that refuse. Real commands in each; whatever they say is looked through for what must not be there."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest
import redis.asyncio

from realtime import resources
from tests.support.clients import Client, asking
from tests.support.forking import forker
from tests.support.processes import Command, environment, free_port, running
from tests.support.servers import SECRET, RunningServer
from tests.support.stores import PROGRAMS, PrivateStore
from tests.support.waiting import eventually

ROOT = resources.folder("web").parent
PASSWORD = "hush/a#b?c@d:e%f&g=h;i [j]ü\"'\\hush"
"""Whatever a generator of passwords may come up with."""

PIECES = ("hush", "a#b", "a%23b", "c@d", "c%40d")
"""What none of it may be seen by."""

MALFORMED = (
    {"DATABASE_URL": f"postgresql://anna:{PASSWORD}@host/db", "DRAGONFLY_URL": f"redis://:{PASSWORD}@host:6379/0"},
    {"DATABASE_URL": "postgresql://anna:12/hush@host/db", "DRAGONFLY_URL": "redis://:12/hush@host:6379/0"},
    {"DATABASE_URL": "postgresql://anna:12#hush@host/db", "DRAGONFLY_URL": "redis://hush@host:6379/0"},
    {"DATABASE_URL": "anna:hush@host/db", "DRAGONFLY_URL": ":hush@host:6379"},
    {"DATABASE_URL": "postgresql://anna:[hush@[host/db", "DRAGONFLY_URL": "redis://:hush]@host:x"},
    {"DATABASE_URL": "postgresql://anna:%hush@host/db", "DRAGONFLY_URL": "redis://:hush%ff@host:6379/0"},
    {"DATABASE_URL": "postgresql://anna:12@hush@host/db", "DRAGONFLY_URL": "redis://:hush hush@host"},
    {"DATABASE_URL": "postgresql://host/db?password=a&hush=b", "DRAGONFLY_URL": "redis://host?password=hush&timeout=hush"},
    {"DATABASE_URL": "host=host password=hush", "DRAGONFLY_URL": "host:6379,password=hush"},
    {"DATABASE_URL": "postgresql://anna:hush\u2100@ho\u2100st/db", "DRAGONFLY_URL": "redis://:hush\ufe55hush@ho\u2100st"},
    {"DATABASE_URL": "postgresql://anna:hush@host:hush/db", "DRAGONFLY_URL": "redis://:hush@host/hush"},
)  # fmt: skip

COMMANDS = (
    ["up", "--port", "0"], ["serve"], ["serve", "--processes", "2"], ["worker"], ["migrate"], ["settings"],
    ["token", "--scope", "read"], ["token", "revoke", "x.y.z"], ["rebuild"], ["import", __file__], ["simulate", "--url",
    "http://127.0.0.1:1"], ["check"],
)  # fmt: skip


class Said(Protocol):
    """Runs a command to its end; gives everything that it says, its standard output first."""

    async def __call__(self, *arguments: str, env: Mapping[str, str], code: int | None = 1) -> str: ...


@pytest.fixture(scope="module")
def said() -> Iterator[Said]:
    with forker() as forked:

        async def said(*arguments: str, env: Mapping[str, str], code: int | None = 1) -> str:
            # It runs where there is no `.realtime`: the checkout's would be found, which is no test's.
            ended, everything = await forked.run(*arguments, env=env, cwd=Path(__file__).parent)
            assert code is None or ended == code, everything
            return everything

        yield said


def assert_nothing_is_told(text: str) -> None:
    assert not [piece for piece in PIECES if piece in text], text
    assert "Traceback" not in text, text


# Secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(COMMANDS)))
async def test_no_command_tells_a_secret_that_is_malformed(said: Said, number: int, tmp_path: Path) -> None:
    command, addresses = COMMANDS[number], MALFORMED[number % len(MALFORMED)]
    env = environment(**addresses, REALTIME_SECRET="hush", REALTIME_LOG_LEVEL="debug", PYTHONFAULTHANDLER="1")
    text = await said(*command, "--data-dir", str(tmp_path / "none"), env=env)
    assert_nothing_is_told(text)
    for name in ("DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET"):
        assert text.count(f"  {name}: ") == 1, text


@pytest.mark.parametrize("addresses", MALFORMED)
async def test_no_malformed_address_is_told(said: Said, addresses: dict[str, str], tmp_path: Path) -> None:
    text = await said("settings", "--data-dir", str(tmp_path / "none"), env=environment(**addresses))
    assert_nothing_is_told(text)
    assert len(text.splitlines()) == 3, "a heading, and a sentence for each"


async def test_no_help_tells_a_secret(said: Said) -> None:
    env = environment(**MALFORMED[0], REALTIME_SECRET="hush")
    for command in ([], ["up"], ["serve"], ["token"], ["import"], ["simulate"]):
        assert_nothing_is_told(await said(*command, "--help", env=env, code=0))


async def test_no_command_tells_a_secret_that_is_refused(said: Said, dsn: str, store_url: str, tmp_path: Path) -> None:
    parts = urlsplit(dsn)
    wrong = quote(PASSWORD, safe="")
    env = environment(
        DATABASE_URL=urlunsplit(parts._replace(netloc=f"realtime:{wrong}@{parts.hostname}:{parts.port}")),
        DRAGONFLY_URL=f"redis://anna:{wrong}@{urlsplit(store_url).netloc.rpartition('@')[2]}/0",
        REALTIME_SECRET=f"hush{SECRET}", REALTIME_LOG_LEVEL="debug", REALTIME_PORT="0",
    )  # fmt: skip
    scores = tmp_path / "scores.csv"
    scores.write_text("submission_id,username,score_added,created_at\n")
    for command in (["up"], ["serve"], ["worker"], ["migrate"], ["check"], ["import", str(scores)]):
        text = await said(*command, "--data-dir", str(tmp_path / "none"), env=env)
        assert_nothing_is_told(text)
        assert "DATABASE_URL" in text, text


@asynccontextmanager
async def role(sql: asyncpg.Connection, rights: str = "SUPERUSER") -> AsyncIterator[str]:
    """A role with that password; gives its name and the password as an address has them."""
    literal = PASSWORD.replace("'", "''")
    await sql.execute(f"DROP ROLE IF EXISTS anna; CREATE ROLE anna LOGIN {rights} PASSWORD '{literal}'")
    try:
        yield f"anna:{quote(PASSWORD, safe='')}"
    finally:
        await sql.execute("DROP OWNED BY anna; DROP ROLE anna")


async def allow(store: PrivateStore, *rules: str) -> str:
    """A user of the store with that password; gives its address."""
    async with redis.asyncio.Redis.from_url(store.url) as client:
        await client.execute_command("ACL", "SETUSER", "anna", "reset", "on", f">{PASSWORD}", *rules)
    place = urlsplit(store.url).netloc.rpartition("@")[2]
    return f"redis://anna:{quote(PASSWORD, safe='')}@{place}/0"


async def test_a_password_of_any_characters_works_and_is_told_nowhere(
    said: Said, dsn: str, sql: asyncpg.Connection, private_store: PrivateStore, tmp_path: Path
) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    async with role(sql) as account:
        place = urlsplit(dsn).netloc.rpartition("@")[2]
        env = environment(
            DATABASE_URL=dsn.replace(urlsplit(dsn).netloc, f"{account}@{place}"),
            DRAGONFLY_URL=await allow(private_store, "~*", "&*", "+@all"),
            REALTIME_SECRET=f"hush{SECRET}", REALTIME_PORT="0", REALTIME_LOG_LEVEL="debug", REALTIME_DRAIN_S="0",
        )  # fmt: skip
        token = (await said("token", "--scope", "admin", *data, env=env, code=0)).splitlines()[-1]
        async with running("up", *data, env=env) as command:
            url = await command.says("ready:")
            client = await Client.connect(f"{url.replace('http', 'ws')}/ws?token={token}")
            async with asking(url) as http:
                await eventually_ready(http)
                answers = [(await http.get(path)).text for path in ("/readyz", "/metrics", "/healthz")]
            await asyncio.to_thread(private_store.kill)
            await command.says("the store cannot be used", errors=True, within=True)
            for arguments in (["settings"], ["migrate"]):
                answers.append(await said(*arguments, *data, env=env, code=0))
            await client.aclose()
            await command.stop()
    text = "\n".join((*command.lines, *command.errors, *answers))
    assert_nothing_is_told(text)
    assert token not in text and token.rpartition(".")[2] not in text
    assert "database: postgresql://anna:***@" in text and "dragonfly: redis://anna:***@" in text


async def eventually_ready(http: Any) -> None:
    async def ready() -> bool:
        return bool((await http.get("/readyz")).status_code == 200)

    await eventually(ready)


# What others set -------------------------------------------------------------------------------------------------

KUBERNETES = {
    "REALTIME_SERVICE_HOST": "10.0.0.1", "REALTIME_SERVICE_PORT": "8000", "REALTIME_SERVICE_PORT_HTTP": "8000",
    "REALTIME_PORT": "tcp://10.0.0.1:8000", "REALTIME_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "REALTIME_PORT_8000_TCP_PROTO": "tcp", "REALTIME_PORT_8000_TCP_PORT": "8000",
    "REALTIME_PORT_8000_TCP_ADDR": "10.0.0.1", "REALTIME_WORKER_METRICS_PORT": "tcp://10.0.0.2:9000",
}  # fmt: skip

SHELL = {
    "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "standby", "PGPASSFILE": "/none", "PGSERVICE": "none",
    "PGOPTIONS": "-c nothing=none", "PGHOST": "elsewhere", "PGPORT": "1", "PGUSER": "nobody", "PGPASSWORD": "x",
    "PGDATABASE": "none", "PGSSLNEGOTIATION": "direct", "PGGSSLIB": "none", "PGSSLROOTCERT": "/none",
    "PGSERVICEFILE": "/none", "PGSSLMINPROTOCOLVERSION": "none", "PGKRBSRVNAME": "none",
    "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "all_proxy": "socks5h://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9", "ws_proxy": "http://127.0.0.1:9",
}  # fmt: skip
"""Of somebody who works with other servers, behind a company's proxy."""


async def test_a_development_instance_needs_nothing_of_its_shell(said: Said, tmp_path: Path) -> None:
    env = environment(**SHELL, **KUBERNETES)
    data = ("--data-dir", str(tmp_path / "data"))
    async with running("up", "--port", "0", *data, env=env) as command:
        database = await command.says("database:")
        await command.says("ready:")
        tally = await said("simulate", "--limit", "5", "--rate", "100", *data, env=env, code=0)
        assert tally.startswith("5 sent: 5 accepted, 0 rejected")
        assert "0 differences" in await said("check", *data, env=env, code=0)
        connection = await asyncpg.connect(database)
        assert await connection.fetchval("SELECT count(*) FROM user_score_transactions") == 5
        await connection.close()
        assert await command.stop() == 0


async def test_a_development_instance_does_not_warn_of_what_nobody_needs_there(tmp_path: Path) -> None:
    few = ["sh", "-c", 'ulimit -n 1100 && exec "$0" -m realtime "$@"', sys.executable]
    data = ("--data-dir", str(tmp_path / "data"))
    async with running("up", "--port", "0", *data, program=few, env=environment()) as command:
        await command.says("ready:")
        assert "INFO" in await command.says("open 1100 files", errors=True)
        assert not [line for line in command.errors if "WARNING" in line]
        assert await command.stop() == 0


async def test_the_variables_of_a_service_are_no_settings_and_a_misspelt_one_is_a_mistake(
    said: Said, tmp_path: Path
) -> None:
    data = ("--data-dir", str(tmp_path / "none"))
    shown = (await said("settings", *data, env=environment(**KUBERNETES, PORT="9001"), code=0)).splitlines()
    assert [line.split() for line in shown if line.startswith(("REALTIME_PORT", "REALTIME_WORKER_METRICS"))] == [
        ["REALTIME_PORT", "9001", "environment,", "as", "PORT"],
        ["REALTIME_WORKER_METRICS_PORT", "0", "default"],
    ]
    wrong = await said("settings", *data, env=environment(**KUBERNETES, REALTIME_ORIGIN="https://a.example"))
    assert "REALTIME_ORIGIN: there is no such setting; is REALTIME_ORIGINS meant?" in wrong


async def test_a_simulation_leaves_proxies_out_and_tells_nothing_of_an_address(
    said: Said, server: RunningServer, dsn: str
) -> None:
    env = environment(**SHELL, DATABASE_URL=f"{dsn}?sslmode=disable&target_session_attrs=any", REALTIME_SECRET=SECRET)
    tally = await said("simulate", "--url", server.base_url, "--limit", "3", env=env, code=0)
    assert tally.startswith("3 sent: 3 accepted")
    for address in ("hush", "ftp://anna:hush@host", "http://anna:hush@[host", "http://anna:hush@127.0.0.1:x"):
        assert_nothing_is_told(await said("simulate", "--url", address, env=env))


# A container's health check --------------------------------------------------------------------------------------


def health_check() -> list[str]:
    """The command that Docker would run."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    program, *arguments = json.loads(line.partition(" CMD ")[2])
    assert program == "python"
    return arguments


@pytest.mark.parametrize("name", ["REALTIME_PORT", "PORT"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_the_health_check_of_the_image_asks_where_the_server_is(
    name: str, host: str, dsn: str, store_url: str, filled: None
) -> None:
    variables = {**SHELL, name: f"{free_port()}", "REALTIME_HOST": host, "REALTIME_DRAIN_S": "0"}
    if name == "PORT":
        variables |= KUBERNETES
    stores = {"DATABASE_URL": f"{dsn}?sslmode=disable&target_session_attrs=any", "DRAGONFLY_URL": store_url}
    env = environment(**variables, **stores, REALTIME_SECRET=SECRET)
    check = shlex.join([sys.executable, *health_check()])

    async def asked() -> int:
        return (await asyncio.to_thread(subprocess.run, check, shell=True, env=env, capture_output=True)).returncode

    assert await asked() == 1
    async with running("serve", env=env) as command:
        await command.says("ready:")
        assert await asked() == 0


async def checked(env: Mapping[str, str]) -> str:
    """Everything that the health check says of what is wrong."""
    async with running(*health_check(), program=[sys.executable], env=env) as command:
        ended = await command.ends()
    everything = "\n".join((*command.lines, *command.errors))
    assert ended == 1, everything
    return everything


async def test_the_health_check_tells_what_is_wrong_with_settings_and_no_secret() -> None:
    env = environment(**MALFORMED[0], REALTIME_PORT="0")
    assert_nothing_is_told(await checked(env))
    assert "REALTIME_PORT" in await checked(environment(REALTIME_PORT="0"))


# Stores that refuse ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def unready(part: str, says: str, **variables: str) -> AsyncIterator[Command]:
    """A server that is not ready for a reason, which /readyz and the log tell in the same words."""
    env = environment(**variables, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0")
    async with running("serve", env=env) as command, asking(await command.says("ready:")) as http:
        yield command

        async def why() -> bool:
            answer = await http.get("/readyz")
            return answer.status_code == 503 and says in answer.json()["why"].get(part, "")

        await eventually(why)
        reason = (await http.get("/readyz")).json()["why"][part]
        await eventually(lambda: any(reason in json.loads(line)["message"] for line in command.errors))
        await command.stop()
    assert_nothing_is_told("\n".join((*command.errors, reason)))


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (("off",), "refuses the user or the password"),
        (("~*", "&*", "+@all", "nopass", "resetpass", ">another"), "refuses the user or the password"),
        (("~*", "&*", "+@all", "-info"), "permission denied"),
        (("~other:*", "&*", "+@all"), "permission denied"),
        (("~*", "&*", "+@all", "-setrange"), "permission denied"),
        (("~*", "&*", "+@all", "-evalsha", "-eval"), "permission denied"),
    ],
    ids=["off", "password", "info", "keys", "writes", "scripts"],
)
async def test_why_a_store_refuses_is_told_where_one_looks(
    rules: tuple[str, ...], says: str, dsn: str, private_store: PrivateStore
) -> None:
    address = await allow(private_store, *rules)
    async with unready("store", says, DATABASE_URL=dsn, DRAGONFLY_URL=address):
        pass


async def test_a_store_in_cluster_mode_is_told_as_such(dsn: str, tmp_path: Path) -> None:
    port = free_port()
    options = ["--port", str(port), "--save", "", "--cluster-enabled", "yes", "--dir", str(tmp_path)]
    async with running(*options, program=[str(_redis())]) as store:
        await store.says("Ready to accept connections", within=True)
        url = f"redis://127.0.0.1:{port}"
        async with unready("store", "cluster mode", DATABASE_URL=dsn, DRAGONFLY_URL=url):
            pass


async def test_a_store_at_a_socket_of_the_file_system_works(dsn: str) -> None:
    with tempfile.TemporaryDirectory(prefix="realtime-socket-") as folder:  # a socket's path is short
        path = f"{folder}/a b.sock"
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder, "--requirepass", PASSWORD]
        async with running(*options, program=[str(_redis())]) as store:
            await store.says("accept connections", within=True)
            url = f"unix://{quote(path)}?db=2&password={quote(PASSWORD, safe='')}"
            env = environment(DATABASE_URL=dsn, DRAGONFLY_URL=url, REALTIME_SECRET=SECRET, REALTIME_PORT="0")
            async with running("serve", env=env) as command, asking(await command.says("ready:")) as http:
                await eventually_ready(http)
    assert_nothing_is_told("\n".join((*command.lines, *command.errors)))


def _redis() -> Path:
    if not (found := next((path for name, path in PROGRAMS.items() if not name.startswith("dragonfly")), None)):
        pytest.skip("no Redis here")
    return found


async def test_what_is_no_store_is_told_as_such(dsn: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        url = f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        async with unready("store", "the store cannot be used: ", DATABASE_URL=dsn, DRAGONFLY_URL=url):
            pass


async def test_why_a_database_refuses_is_told_where_one_looks(
    dsn: str, store_url: str, sql: asyncpg.Connection, filled: None
) -> None:
    """A password that is changed while a server is connected: its next connection meets that."""
    async with role(sql) as account:
        parts = urlsplit(dsn)
        address = dsn.replace(parts.netloc, f"{account}@{parts.netloc.rpartition('@')[2]}")
        says = "it refuses the user or the password of DATABASE_URL"
        async with unready("database", says, DATABASE_URL=address, DRAGONFLY_URL=store_url):
            await sql.execute("ALTER ROLE anna PASSWORD 'another'")
            await sql.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'anna'")


@pytest.mark.parametrize("command", ["serve", "migrate", "check", "up"])
async def test_missing_rights_are_told_in_a_sentence(
    said: Said, command: str, dsn: str, store_url: str, sql: asyncpg.Connection, filled: None, tmp_path: Path
) -> None:
    async with role(sql, "NOSUPERUSER") as account:
        parts = urlsplit(dsn)
        address = dsn.replace(parts.netloc, f"{account}@{parts.netloc.rpartition('@')[2]}")
        env = environment(DATABASE_URL=address, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0")
        text = await said(command, "--data-dir", str(tmp_path / "none"), env=env)
    assert_nothing_is_told(text)
    assert "permission denied: the user of DATABASE_URL lacks rights" in text.splitlines()[-1], text
