"""What an operator relies on: settings, several processes, leaving, metrics, health and logs of the real commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from realtime import resources
from realtime.ledger import migrations
from realtime.server.draining import longest_leave
from realtime.settings import Settings, variables
from tests.support.clients import Client, asking, metrics
from tests.support.processes import environment, free_port, running
from tests.support.servers import SECRET, RunningServer
from tests.support.waiting import eventually

Environment = Callable[..., dict[str, str]]


@pytest.fixture
def stores(dsn: str, store_url: str, filled: None) -> Environment:
    """The environment of a server on this test's stores."""

    def made(**variables: str) -> dict[str, str]:
        given = {"REALTIME_PORT": "0", "REALTIME_DRAIN_S": "0", "REALTIME_LOG_LEVEL": "info", **variables}
        return environment(DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, **given)

    return made


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


# Settings --------------------------------------------------------------------------------------------------------


async def test_settings_says_what_is_in_force_and_where_from_and_no_secret(tmp_path: Path) -> None:
    env = environment(
        DATABASE_URL="postgresql://anna:hush%40@host/db?password=hush", DRAGONFLY_URL="rediss://:hush@host:6379/0",
        REALTIME_SECRET="hush" * 9, REALTIME_BATCH_LANES="3", PORT="9001",
    )  # fmt: skip
    async with running("settings", "--data-dir", str(tmp_path / "none"), env=env) as command:
        assert await command.ends() == 0
    shown = {line.split()[0]: line.split()[1:] for line in command.lines}
    assert list(shown) == list(variables())
    assert "hush" not in "\n".join(command.lines)
    assert shown["DATABASE_URL"] == ["postgresql://anna:***@host/db?password=***", "environment"]
    assert shown["DRAGONFLY_URL"] == ["rediss://:***@host:6379/0", "environment"]
    assert shown["REALTIME_PORT"] == ["9001", "environment,", "as", "PORT"]
    assert shown["REALTIME_BATCH_LANES"] == ["3", "environment"]
    assert shown["REALTIME_BATCH_LIMIT"] == ["1000", "default"]


async def test_all_mistakes_are_told_at_once_and_nothing_starts() -> None:
    env = environment(REALTIME_PORT="far", REALTIME_PROCESSES="0", REALTIME_DRAIN_S="-1")
    async with running("serve", env=env) as command:
        assert await command.ends() == 1
    told = "\n".join(command.errors)
    assert all(name in told for name in ("REALTIME_PORT", "REALTIME_PROCESSES", "REALTIME_DRAIN_S"))
    assert "Traceback" not in told


async def test_an_address_that_is_taken_is_told_in_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with running("up", "--port", port, "--data-dir", str(tmp_path / "data"), env=environment()) as command:
            assert await command.ends() == 1
    (line,) = command.errors
    assert line.startswith(f"realtime: Cannot listen on 127.0.0.1, port {port}: ")
    assert not (tmp_path / "data").exists()


async def test_the_same_command_twice_is_told_what_runs_already_and_where(stores: Environment, tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    async with running("up", "--port", "0", *data, env=stores()) as first:
        url = await first.says("ready:")
        async with running("up", "--port", str(urlsplit(url).port), *data, env=stores()) as second:
            assert await second.ends() == 1
    (line,) = second.errors
    assert f"is in use by process {first.pid}, which answers at {url}; " in line


async def test_a_password_that_is_refused_is_told_in_one_line(stores: Environment) -> None:
    env = stores()
    parts = urlsplit(env["DATABASE_URL"])
    env["DATABASE_URL"] = parts._replace(netloc=f"realtime:wrong@{parts.netloc.rpartition('@')[2]}").geturl()
    async with running("serve", env=env) as command:
        assert await command.ends() == 1
    assert command.errors[-1].startswith("realtime: PostgreSQL lets nobody in: ")
    assert "Traceback" not in "\n".join(command.errors)


async def test_who_says_ready_has_boards(dsn: str, private_store: Any) -> None:
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=private_store.url, REALTIME_SECRET=SECRET, REALTIME_PORT="0",
        REALTIME_DRAIN_S="0",
    )  # fmt: skip
    for _ in range(2):  # an empty store, and one whose content is of another run
        async with running("serve", env=env) as command, asking(await command.says("ready:")) as http:
            assert (await http.get("/boards/all_time")).json()["stale"] is False
            assert (await http.get("/readyz")).status_code == 200
        await asyncio.to_thread(private_store.restart)


# Processes -------------------------------------------------------------------------------------------------------


async def test_several_processes_share_a_port_and_their_metrics_and_one_that_dies_is_replaced(
    stores: Environment, tmp_path: Path
) -> None:
    refused = 'realtime_refusals_total{code="bad_message"}'

    def shared() -> float:
        """What each process last showed the others, together; what comes after that dies with it."""
        return sum(metrics(path.read_text()).get(refused, 0.0) for path in tmp_path.rglob("*.prom"))

    async with running("serve", "--processes", "2", env=stores(TMPDIR=str(tmp_path))) as command:
        url = await command.says("ready:")
        viewers = [await Client.connect(url.replace("http", "ws") + "/ws") for _ in range(12)]
        for viewer in viewers:
            await viewer.raw("nonsense")
        async with asking(url) as http:

            async def connections() -> float:
                return metrics((await http.get("/metrics")).text)["realtime_connections"]

            async def counts(wanted: int) -> bool:
                return await connections() == wanted

            await eventually(lambda: counts(12))
            before = metrics((await http.get("/metrics")).text)
            assert before["realtime_live"] == 2, "one for each process"
            assert before["realtime_outbox_rows"] == 0, "told once, not once for each process"
            await eventually(lambda: shared() == len(viewers))
            first, second = children_of(command.pid)
            os.kill(first, signal.SIGKILL)
            await command.says("another takes its place", errors=True)
            await eventually(lambda: len(children_of(command.pid)) == 2)
            assert second in children_of(command.pid)

            async def all_live() -> bool:
                return metrics((await http.get("/metrics")).text)["realtime_live"] == 2

            await eventually(all_live)
            after = metrics((await http.get("/metrics")).text)
            assert after[refused] == len(viewers), "what the dead one counted still happened"
            assert after["realtime_connections"] < 12, "what it held is gone"
        for viewer in viewers:
            await viewer.aclose()
        assert await command.stop() == 0


async def test_children_end_when_their_parent_is_killed(stores: Environment) -> None:
    async with running("serve", "--processes", "2", env=stores()) as command:
        await command.says("ready:")
        children = children_of(command.pid)
        command.signal(signal.SIGKILL)
        await command.ends()
        await eventually(lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children))


async def test_processes_that_cannot_start_end_the_command(stores: Environment) -> None:
    env = stores(REALTIME_PROCESSES="2") | {"DRAGONFLY_URL": "redis://127.0.0.1:1/0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env["REALTIME_PORT"] = str(taken.getsockname()[1])
        async with running("serve", env=env) as command:
            assert await command.ends() == 1
    assert "Cannot listen on 127.0.0.1" in "\n".join(command.errors)


async def test_the_procfile_runs_as_it_stands(stores: Environment) -> None:
    port = free_port()
    env = stores(PORT=str(port))
    del env["REALTIME_PORT"]
    scripts = Path(sys.executable).parent
    env["PATH"] = f"{scripts}{os.pathsep}{env['PATH']}"
    arguments = ("start", "-p", str(port), "web", "worker")
    root = Path(__file__).parents[2]
    async with running(*arguments, program=[str(scripts / "honcho")], env=env, cwd=root) as command:
        async with asking(f"http://127.0.0.1:{port}") as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except Exception:
                    return False

            await eventually(ready)
        await command.stop()


# Leaving ---------------------------------------------------------------------------------------------------------


async def farewell(client: Client) -> tuple[dict[str, Any], float, int]:
    """The `reconnect` a client got, when, and the close code that followed."""
    message = await client.until("reconnect")
    heard = time.monotonic()
    try:
        while True:
            await client.socket.recv()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return message, heard, closed.rcvd.code


async def test_a_process_that_leaves_lets_balancers_look_away_then_asks_each_client_then_closes(
    stores: Environment,
) -> None:
    async with running("serve", env=stores(REALTIME_DRAIN_S="1.5", REALTIME_RECONNECT_SPREAD_S="2")) as command:
        url = await command.says("ready:")
        ws = url.replace("http", "ws") + "/ws"
        clients = [await Client.connect(ws) for _ in range(100)]
        for client in clients:
            await client.subscribe("all_time")
        farewells = [asyncio.ensure_future(farewell(client)) for client in clients]
        async with asking(url) as http:
            assert (await http.get("/readyz")).status_code == 200
            began = time.monotonic()
            command.signal()
            await eventually(lambda: _says_no(http), 1.0)
            assert (await http.get("/healthz")).status_code == 200, "alive, and it still serves"
            late = await Client.connect(ws)  # a balancer that has not looked yet
            assert time.monotonic() - began < 1.5
            heard = await asyncio.gather(*farewells)
            await farewell(late)
        assert await command.ends() == 0
        moments = sorted(moment - began for _, moment, _ in heard)
        assert moments[0] > 1.4, "not before balancers could look"
        assert moments[-1] - moments[0] > 0.6, "not all at once: 100 a second"
        halves = sum(moment < (moments[0] + moments[-1]) / 2 for moment in moments)
        assert 25 < halves < 75, "evenly"
        assert {code for _, _, code in heard} == {1012}
        assert all(0 < message["after_ms"] <= 1000 for message, _, _ in heard)


async def _says_no(http: Any) -> bool:
    answer = await http.get("/readyz")
    return answer.status_code == 503 and "leaving" in answer.json()["why"]


def stalled(port: int) -> socket.socket:
    """A client that follows a board and never reads."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    return sock


async def test_clients_that_never_read_do_not_hold_a_process(stores: Environment) -> None:
    async with running("serve", env=stores()) as command:
        port = int((await command.says("ready:")).rpartition(":")[2])
        kept = [stalled(port) for _ in range(5)]
        half_sent = socket.create_connection(("127.0.0.1", port))
        half_sent.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await command.stop() == 0
        assert time.monotonic() - began < 12
        for sock in [*kept, half_sent]:
            sock.close()


async def test_a_second_signal_hastens(stores: Environment) -> None:
    async with running("serve", env=stores(REALTIME_DRAIN_S="600")) as command:
        await command.says("ready:")
        command.signal()
        await command.says("leaving", errors=True)
        command.signal()
        assert await command.ends() == 0


async def test_a_process_whose_loop_hangs_ends_all_the_same(stores: Environment) -> None:
    env = stores(REALTIME_RECONNECT_SPREAD_S="0")
    hang = (
        "import sys, time, realtime.server.draining as d; d.FLUSH_SECONDS = d.SHUTDOWN_SECONDS = d.CLOSE_AFTER = 0.5;"
        "d.Draining.leave = lambda *_: time.sleep(3600); sys.argv[1:] = ['serve'];"
        "from realtime.cli.main import main; main()"
    )
    async with running("-c", hang, program=[sys.executable], env=env) as command:
        await command.says("ready:")
        assert await command.stop() == 1
    assert "Timeout" in "\n".join(command.errors), "and says where it hung"


def test_how_long_leaving_may_take_is_known() -> None:
    assert longest_leave(Settings.load({"REALTIME_DRAIN_S": "0", "REALTIME_RECONNECT_SPREAD_S": "0"})) <= 30


async def test_what_was_queued_is_recorded_before_the_end(stores: Environment, sql: Any, make_users: Any) -> None:
    (user,) = await make_users(1)
    env = stores(REALTIME_BATCH_LANES="1")
    async with running("token", "--scope", "submit:any", env=env) as command:
        await command.ends()
    headers = {"authorization": f"Bearer {command.lines[-1]}"}
    async with running("serve", env=env) as server:
        url = (await server.says("ready:")).replace("http", "ws") + "/ws"
        async with connect(url, additional_headers=headers, proxy=None) as ws:
            for n in range(3000):
                score = {"type": "submit", "submission_id": f"s{n}", "score_added": 1, "user_id": user}
                await ws.send(json.dumps(score))
            answers = 0
            signalled = False
            try:
                async for raw in ws:
                    answers += json.loads(raw)["type"] == "accepted"
                    if not signalled:
                        signalled = True
                        server.signal()
            except ConnectionClosed:
                pass
        assert await server.ends() == 0
    recorded = await sql.fetchval("SELECT count(*) FROM user_score_transactions")
    assert recorded == answers == 3000
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0, "and the store has heard of all"


# Upgrades --------------------------------------------------------------------------------------------------------

NEXT_VERSION = """-- what a next version may need
-- depends: 0002_revoked_tokens

-- migrate: apply
ALTER TABLE users ADD COLUMN country TEXT;
ALTER TABLE user_score_transactions ADD COLUMN source TEXT;
ALTER TABLE user_total_scores ADD COLUMN best_week DATE;
ALTER TABLE user_weekly_scores ADD COLUMN games BIGINT NOT NULL DEFAULT 0;
CREATE TABLE teams (id BIGSERIAL PRIMARY KEY, name TEXT NOT NULL);

-- migrate: rollback
DROP TABLE teams;
"""


async def test_the_next_version_s_migration_runs_while_this_one_serves(
    server: RunningServer, dsn: str, make_users: Any, sql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(resources.folder("sql"), tmp_path / "sql")
    (tmp_path / "sql/migrations/0003_next.sql").write_text(NEXT_VERSION, encoding="utf-8")
    (user,) = await make_users(1)
    viewer = await server.client()
    await viewer.subscribe("all_time")
    player = await server.client(server.token(user))
    outcomes: list[str] = []
    enough = asyncio.Event()

    async def play() -> None:
        while not enough.is_set():
            await player.send("submit", submission_id=f"s{len(outcomes)}", score_added=1)
            answer = await player.until("accepted")
            outcomes.append(answer["submission_id"])

    playing = asyncio.ensure_future(play())
    try:
        await eventually(lambda: len(outcomes) > 50)
        monkeypatch.setattr(resources, "folder", lambda name: tmp_path / name)
        await migrations.migrate(dsn)
        assert await sql.fetchval("SELECT to_regclass('teams') IS NOT NULL"), "it has run"
        reached = len(outcomes)
        await eventually(lambda: playing.done() or len(outcomes) > reached + 50)
        page = await server.http.get("/users/me", headers=server.bearer(user))
        assert page.status_code == 200
    finally:
        enough.set()
        await playing
    total = await sql.fetchval("SELECT total_score FROM user_total_scores")
    assert total == len(outcomes)
    await viewer.until("diff", lambda diff: diff["upsert"][0]["score"] == total)


# Seeing ----------------------------------------------------------------------------------------------------------


async def test_readiness_says_what_is_missing(dsn: str, private_store: Any) -> None:
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=private_store.url, REALTIME_SECRET=SECRET, REALTIME_PORT="0",
        REALTIME_DRAIN_S="0",
    )  # fmt: skip
    async with running("serve", env=env) as command, asking(await command.says("ready:")) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
        await asyncio.to_thread(private_store.kill)

        async def misses_the_store() -> bool:
            answer = await http.get("/readyz")
            return answer.status_code == 503 and list(answer.json()["why"]) == ["store"]

        await eventually(misses_the_store)
        assert (await http.get("/healthz")).status_code == 200
        await asyncio.to_thread(private_store.start)
        await eventually(ready)


async def test_readiness_tells_of_a_difference_that_is_being_repaired(server: RunningServer) -> None:
    answer = await server.http.get("/readyz")
    assert answer.json() == {"ready": True, "why": {}, "outbox_age_s": 0.0, "read_lag_s": {}, "drift": 0}


async def test_logs_are_one_json_object_a_line(stores: Environment) -> None:
    async with running("serve", env=stores()) as command:
        await command.says("ready:")
        await command.stop()
    events = [json.loads(line) for line in command.errors]
    assert events
    assert all({"level", "logger", "message", "at"} <= set(event) for event in events)


async def test_every_socket_that_ends_is_counted_by_its_close_code(server: RunningServer) -> None:
    async def ended(act: Callable[[Client], Awaitable[object]]) -> None:
        client = await server.client()
        await act(client)
        await client.socket.wait_closed()

    await ended(lambda client: client.raw(b"binary"))
    await ended(lambda client: client.raw("x" * 70_000))
    await ended(lambda client: client.socket.close())
    await ended(lambda client: client.socket.close(code=4999))
    await ended(lambda client: client.socket.close(code=4998))
    (await server.client()).socket.transport.abort()
    with pytest.raises(ConnectionClosed):
        await (await server.client(token="no good")).next()
    wanted = {"1003": 1, "1009": 1, "1000": 1, "other": 2, "1006": 1, "4401": 1}

    async def counted() -> bool:
        shown = metrics((await server.http.get("/metrics")).text)
        found = {code: shown.get(f'realtime_closes_total{{code="{code}"}}') for code in wanted}
        return found == wanted and shown["realtime_connections"] == 0

    await eventually(counted)


async def test_the_worker_shows_metrics_of_its_own(stores: Environment) -> None:
    port = free_port()
    env = stores(REALTIME_WORKER_METRICS_PORT=str(port))
    async with running("worker", env=env) as command, asking(f"http://127.0.0.1:{port}") as http:

        async def shown() -> bool:
            try:
                names = set(metrics((await http.get("/metrics")).text))
                return {"realtime_outbox_age_seconds", "realtime_drift", "realtime_drift_found_total"} <= names
            except Exception:
                return False

        await eventually(shown)
        assert await command.stop() == 0
