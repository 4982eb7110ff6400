"""Several servers: deployments that nobody notices, hosts that die or lose the store, samples as they stand."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from websockets.asyncio.client import connect

from realtime.dev.store import installed
from realtime.server.draining import LEAVING_A_SECOND
from tests.support.balancers import answering, haproxy
from tests.support.certificates import certified
from tests.support.clients import asking, metrics
from tests.support.crowd import Players, players
from tests.support.processes import Command, environment, free_port, running
from tests.support.servers import SECRET
from tests.support.waiting import eventually

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SAMPLE = Path(__file__).parents[2] / "web/docs/nginx.conf"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")

Environment = Callable[..., dict[str, str]]


@pytest.fixture
def stores(dsn: str, store_url: str, filled: None) -> Environment:
    def made(**variables: str) -> dict[str, str]:
        return environment(
            **{"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET,
               "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0", "REALTIME_DRAIN_S": "1", **variables}
        )  # fmt: skip

    return made


async def token_for_all(env: dict[str, str]) -> str:
    async with running("token", "--scope", "submit:any", env=env) as command:
        assert await command.ends() == 0, command.errors
    return command.lines[-1]


class Hosts:
    """Servers, each at an address of its own."""

    def __init__(self, stack: AsyncExitStack, port: int) -> None:
        self._stack = stack
        self.port = port
        self.commands: dict[str, Command] = {}

    async def start(self, host: str, env: dict[str, str]) -> None:
        env = env | {"REALTIME_HOST": host, "REALTIME_PORT": str(self.port)}
        command = await self._stack.enter_async_context(running("serve", env=env))
        await command.says("ready:")
        async with asking(f"http://{host}:{self.port}") as http:

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await eventually(ready)
        self.commands[host] = command


# The balancer ----------------------------------------------------------------------------------------------------


def sample_nginx(listen: str, servers: list[str]) -> str:
    """The sample with other addresses: nothing else is changed."""
    text = SAMPLE.read_text(encoding="utf-8").replace("listen 80 ", f"listen {listen} ")
    there = re.findall(r"server (10\.0\.0\.\d:8000)", text)
    assert len(there) == len(servers) and f"listen {listen} " in text
    for old, new in zip(there, servers, strict=True):
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def nginx(folder: Path, servers: list[str]) -> AsyncIterator[str]:
    """nginx with the sample configuration in front of `servers`; gives its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed: the sample configuration is not run")
    if os.geteuid() != 0:
        pytest.skip("nginx from a package needs root for its folders: the sample configuration is not run")
    listen = f"127.0.0.1:{free_port()}"
    config = folder / "nginx.conf"
    config.write_text(sample_nginx(listen, servers), encoding="utf-8")
    arguments = ["-p", str(folder), "-c", str(config), "-g", f"daemon off; pid {folder}/pid; error_log stderr error;"]
    async with answering(NGINX, arguments, listen) as address:
        yield address


@pytest.mark.parametrize("passes_on", ["only websocket", "every upgrade"])
async def test_nothing_hides_behind_an_upgrade_that_is_not_taken(
    stores: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes_on: str
) -> None:
    """What a body holds is read as no request, by the sample nginx and by one that passes every upgrade on."""
    if passes_on == "every upgrade":
        text = SAMPLE.read_text(encoding="utf-8").replace("Upgrade $upgrade_header", "Upgrade $http_upgrade")
        text = re.sub(r"map \$upgrade_header (.*?)\{.*?\}", r"map $http_upgrade \1{ default upgrade; '' ''; }", text,
                      flags=re.DOTALL)  # fmt: skip
        sample = tmp_path / "sample.conf"
        sample.write_text(text + "# passes every upgrade on", encoding="utf-8")
        monkeypatch.setattr(sys.modules[__name__], "SAMPLE", sample)
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack, free_port())
        for host in HOSTS:
            await hosts.start(host, stores(REALTIME_TRUSTED_PROXIES="127.0.0.1"))
        url = await stack.enter_async_context(nginx(tmp_path, [f"{host}:{hosts.port}" for host in HOSTS]))
        host, port = url.removeprefix("http://").split(":")
        inner = b"\r\n" * 12_000 + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        for upgrade in ("h2c", "websocket", "websocket, h2c", "TLS/1.0"):
            for _ in range(10):
                reader, writer = await asyncio.open_connection(host, int(port))
                head = f"POST /nope HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n"
                writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(inner) + inner)
                assert b" 404 " in await reader.readline()
                writer.close()
                async with asking(url) as http:
                    boards = (await http.get("/boards")).json()
                    assert "boards" in boards, "this is what was asked"
        async with connect(url.replace("http", "ws") + "/ws", proxy=None) as socket:
            assert '"hello"' in str(await socket.recv())


# Deployments -----------------------------------------------------------------------------------------------------


async def roll(hosts: Hosts, env: dict[str, str]) -> None:
    """Restarts each server, one after another."""
    for host in HOSTS:
        assert await hosts.commands[host].stop() == 0
        await hosts.start(host, env)


async def deploy(
    env: dict[str, str], url: str, hosts: Hosts, users: list[int], *, viewers: int, rate: float, audience: int = 0
) -> Players:
    """A rolling restart under a crowd; every promise about it is asserted here."""
    token = await token_for_all(env)
    async with players(url) as people:
        await people.view(viewers)
        if audience:
            await people.fill(audience)
        for _ in range(3):
            await people.submit(token, users, rate / 3)
        await eventually(lambda: sum(people.accepted.values()) > rate)
        assert sum((await people.moved()).values()) == viewers + audience + 3
        began = time.monotonic() + 1  # in a second of its own
        await asyncio.sleep(1)
        await roll(hosts, env)
        await asyncio.sleep(1)
        moved = await people.moved(began)
        await people.finish()
        await people.all_show(people.accepted)
        assert set(people.outcomes) == {"Accepted"}, "whatever was refused was sent again"
        report = await people.report()
        print(sorted(moved.items()), people.outcomes, report["closes"], report["lateness"], sep="\n")
        # Each process asks so many clients a second to leave; that is what a deployment's usual second looks like.
        assert max(moved.values()) <= 2 * LEAVING_A_SECOND, moved
        assert sum(moved.values()) >= viewers + audience, "each server was left by all of its clients"
    return people


@asynccontextmanager
async def behind_haproxy(folder: Path, servers: list[str]) -> AsyncIterator[str]:
    """The other sample in front of `servers`; gives its address."""
    async with haproxy(folder, servers) as balancer:
        yield balancer.url


@pytest.mark.parametrize("balancer", [nginx, behind_haproxy])
async def test_a_rolling_restart_behind_a_sample_loses_nothing_and_stampedes_nobody(
    stores: Environment, tmp_path: Path, make_users: Any, sql: Any, balancer: Any
) -> None:
    users = await make_users(20)
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack, free_port())
        env = stores(REALTIME_TRUSTED_PROXIES="127.0.0.1")
        for host in HOSTS:
            await hosts.start(host, env)
        url = await stack.enter_async_context(balancer(tmp_path, [f"{host}:{hosts.port}" for host in HOSTS]))
        people = await deploy(env, url, hosts, users, viewers=150, rate=60)
    assert await totals(sql) == people.accepted, "no acknowledged score lost, none counted twice"
    assert people.outcomes["Accepted"] > 300


@pytest.mark.long
async def test_a_rolling_restart_under_2000_viewers_and_500_submissions_a_second(
    stores: Environment, tmp_path: Path, make_users: Any, sql: Any, request: pytest.FixtureRequest
) -> None:
    if "long" not in str(request.config.getoption("-m")):
        pytest.skip("two minutes and both cores: run with -m long")
    users = await make_users(100)
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack, free_port())
        env = stores(REALTIME_TRUSTED_PROXIES="127.0.0.1", REALTIME_RECONNECT_SPREAD_S="20")
        for host in HOSTS:
            await hosts.start(host, env)
        url = await stack.enter_async_context(nginx(tmp_path, [f"{host}:{hosts.port}" for host in HOSTS]))
        people = await deploy(env, url, hosts, users, viewers=25, audience=1_975, rate=500)
    assert await totals(sql) == people.accepted


async def totals(sql: Any) -> dict[int, int]:
    return {row["user_id"]: row["total_score"] for row in await sql.fetch("SELECT * FROM user_total_scores")}


GUIDE = Path(__file__).parents[2] / "web/docs/operations.html"


async def test_the_guide_s_lines_lead_to_three_servers_behind_nginx(tmp_path: Path) -> None:
    if NGINX is None or shutil.which("curl") is None or os.geteuid() != 0:
        pytest.skip("nginx, curl or root are missing: the guide's lines are not run")
    (lines,) = re.findall(r'<code id="try">(.*?)</code></pre>', GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    script = html.unescape(lines)
    ports = {port: str(free_port()) for port in ("8001", "8080")}
    for port, free in ports.items():  # nothing else is changed
        script = script.replace(port, free)
    places = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
    env = environment(PATH=os.pathsep.join(places))
    url = f"http://127.0.0.1:{ports['8080']}"
    async with running("-c", script + "\nwait", program=["sh"], env=env, cwd=tmp_path, start_new_session=True) as shell:
        try:
            for base, path in [*((f"http://{host}:8000", "/readyz") for host in HOSTS), (url, "/boards/all_time")]:
                async with asking(base) as http:

                    async def answers(http: httpx.AsyncClient = http, path: str = path) -> bool:
                        with suppress(httpx.HTTPError):
                            return (await http.get(path)).status_code == 200
                        return False

                    await eventually(answers, 60)
            async with players(url) as people:
                await people.view(9)
                followers = []
                for host in HOSTS:
                    async with asking(f"http://{host}:8000") as http:
                        shown = metrics((await http.get("/metrics")).text)
                        followers.append(shown['realtime_subscribers{of="all_time"}'])
                assert sum(followers) == 9
                assert min(followers) > 0, "nobody is left out"
        finally:
            os.killpg(shell.pid, signal.SIGTERM)


# Hosts that fail -------------------------------------------------------------------------------------------------


class Relay:
    """A way to the store that can be cut: what is under way breaks, what is new goes nowhere."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._to = parts.hostname or "", parts.port or 6379
        self._parts = parts
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        from_store, to_store = await asyncio.open_connection(*self._to)
        self._open |= {writer, to_store}
        await asyncio.gather(_pump(reader, to_store), _pump(from_store, writer))
        self._open -= {writer, to_store}

    async def aclose(self) -> None:
        self.cut()
        self._server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Balancer:
    """Passes connections on to servers whose /readyz says yes: what HAProxy, a cloud's balancer or Kubernetes do."""

    def __init__(self, hosts: tuple[str, ...], port: int) -> None:
        self._at = [(host, port) for host in hosts]
        self.ready: list[tuple[str, int]] = []
        self._turn = 0

    async def start(self) -> str:
        self._checks = [asyncio.ensure_future(self._check(at)) for at in self._at]
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        await eventually(lambda: len(self.ready) == len(self._at))
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _check(self, at: tuple[str, int]) -> None:
        async with asking("http://{}:{}".format(*at)) as http:
            while True:
                ready = False
                with suppress(Exception):
                    ready = (await http.get("/readyz", timeout=1)).status_code == 200
                if ready != (at in self.ready):
                    (self.ready.append if ready else self.ready.remove)(at)
                await asyncio.sleep(0.2)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        try:
            from_server, to_server = await asyncio.open_connection(*self.ready[self._turn % len(self.ready)])
        except (OSError, ZeroDivisionError):
            writer.close()
            return
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))

    async def aclose(self) -> None:
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        self._server.close()


async def test_of_three_hosts_one_is_killed_and_one_cut_off_and_clients_move_on(
    stores: Environment, store_url: str, make_users: Any, sql: Any
) -> None:
    users = await make_users(10)
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack, free_port())
        relay = Relay(store_url)
        await relay.start()
        stack.push_async_callback(relay.aclose)
        good, killed, cut_off = HOSTS
        env = stores(REALTIME_CUT_OFF_S="1", REALTIME_RECONNECT_SPREAD_S="2")
        for host in (good, killed):
            await hosts.start(host, env)
        await hosts.start(cut_off, env | {"DRAGONFLY_URL": relay.url})
        worker = await stack.enter_async_context(running("worker", env=env))
        balancer = Balancer(HOSTS, hosts.port)
        url = await balancer.start()
        stack.push_async_callback(balancer.aclose)
        async with players(url) as people:
            await people.view(30)
            for _ in range(3):
                await people.submit(await token_for_all(env), users, 10)
            await eventually(lambda: sum(people.accepted.values()) > 20)
            hosts.commands[killed].signal(signal.SIGKILL)
            relay.cut()
            async with asking(f"http://{cut_off}:{hosts.port}") as http:

                async def nobody_follows() -> bool:
                    text = (await http.get("/metrics")).text
                    return 'realtime_subscribers{of="all_time"} 0.0' in text

                await eventually(lambda: balancer.ready == [(good, hosts.port)])
                await eventually(nobody_follows, 60)
            await people.finish()
            await people.all_show(people.accepted)
            assert set(people.outcomes) == {"Accepted"}
            relay.mend()
            await eventually(lambda: (cut_off, hosts.port) in balancer.ready)
        assert await worker.stop() == 0
        assert await totals(sql) == people.accepted


# A store elsewhere ----------------------------------------------------------------------------------------------


async def test_a_store_is_reached_by_tls_and_only_where_its_certificate_is_trusted(
    dsn: str, make_users: Any, tmp_path: Path
) -> None:
    program = installed("redis-server")  # the wheel's knows no TLS
    if program is None:
        pytest.skip("redis-server is not installed: no store is reached by TLS")
    certificate, key = certified(tmp_path)
    port = free_port()
    options = f"--port 0 --tls-port {port} --tls-cert-file {certificate} --tls-key-file {key}"
    options += f" --tls-ca-cert-file {certificate} --tls-auth-clients no --requirepass hush --dir {tmp_path}"
    async with running(*options.split(), program=[str(program)]) as store:
        await store.says("Ready to accept", within=True)
        url = f"rediss://:hush@127.0.0.1:{port}/0"
        env = environment(DATABASE_URL=dsn, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0")
        for trusted in (True, False):
            query = f"?ssl_ca_certs={certificate}" if trusted else ""
            async with running("serve", env=env | {"DRAGONFLY_URL": url + query}) as server:
                async with asking(await server.says("ready:")) as http:

                    async def ready() -> bool:
                        return (await http.get("/readyz")).status_code == 200

                    if trusted:
                        await eventually(ready)
                    else:
                        assert list((await http.get("/readyz")).json()["why"]) == ["store"]
        store.signal()
