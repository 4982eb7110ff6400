"""A PostgreSQL with a standby: two servers of Debian's, each of which may be killed, paused, cut off and promoted.

Owns both, their folders, and the network namespaces where a server is to be cut off: `pull` takes its cable out. Must
never promote anything by itself: a test says when a failover manager does so. Assumes what `lacking` looks for.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from realtime.dev.process import connects
from tests.support import namespaces as hosts
from tests.support.balancer import haproxy
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE

_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_basebackup"), reverse=True)), Path("none")).parent
SETTINGS = {
    "fsync": "off",  # nothing here cuts the power
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "100",
    "unix_socket_directories": "",
    "wal_sender_timeout": "3s",
    "wal_receiver_timeout": "3s",
    "wal_retrieve_retry_interval": "200ms",
    "hot_standby": "on",
    "timezone": "UTC",
}


def lacking(*, namespaces: bool) -> str | None:
    """Why no pair can be had here; None where it can."""
    if not (_BIN / "postgres").exists() or shutil.which("psql") is None:
        return "PostgreSQL's programs are not in /usr/lib/postgresql: nothing is promoted"
    return (hosts.refused() or None) if namespaces else None


def _account() -> dict[str, Any]:
    """How PostgreSQL's programs are run: not as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


class Server:
    """One server. Its methods block."""

    def __init__(self, folder: Path, name: str, host: str, port: int, namespace: str | None = None) -> None:
        self.name, self.host, self.port, self.namespace = name, host, port, namespace
        self._folder = folder
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its own, whatever it is."""
        return f"postgresql://realtime@{self.place}/realtime?sslmode=disable"

    def create(self) -> None:
        """A primary with an empty database."""
        _run(str(_BIN / "initdb"), "-D", str(self.data), "-U", "realtime", "-A", "trust", "-E", "UTF8", "--locale=C",
             "--no-sync", "--no-instructions", cwd="/", **_account())  # fmt: skip
        with (self.data / "pg_hba.conf").open("a") as access:
            access.write("host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")
        self.start()
        self.sql("CREATE DATABASE realtime", database="postgres")

    def follow(self, primary: Server, address: str | None = None) -> None:
        """A standby of `primary`, made from a copy of it, that reaches it at `address`."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        _run(*self._within(), str(_BIN / "pg_basebackup"), "-D", str(self.data), "-h", address or primary.host,
             "-p", str(primary.port), "-U", "realtime", "-R", "-c", "fast", "--no-sync", cwd="/",
             **({} if self.namespace else _account()))  # fmt: skip
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host={address or primary.host} port={primary.port} user=realtime "
                           f"application_name={self.name}'\n")  # fmt: skip
            settings.write("synchronous_standby_names = ''\n")
        self.start()

    def _within(self) -> list[str]:
        if self.namespace is None:
            return []
        nobody = pwd.getpwnam("nobody")
        return ["ip", "netns", "exec", self.namespace, "setpriv", f"--reuid={nobody.pw_uid}",
                f"--regid={nobody.pw_gid}", "--clear-groups"]  # fmt: skip

    def start(self) -> None:
        """Starts it and waits until it answers."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed: it says that it is ready
        settings = {**SETTINGS, "listen_addresses": "*" if self.namespace else self.host, "port": str(self.port)}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within(), str(_BIN / "postgres"), "-D", str(self.data), *given],
                stdout=log, stderr=log, cwd="/", **({} if self.namespace else _account()),
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.02)

    def _answers(self) -> bool:
        """By its own word: it may be cut off."""
        with suppress(OSError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() in ("ready", "standby")
        return False

    def sql(self, statement: str, *, database: str = "realtime") -> str:
        """What a statement says there, asked from within its own host."""
        host = "127.0.0.1" if self.namespace else self.host
        return _run(*self._within(), "psql", "-qAtX", "-h", host, "-p", str(self.port), "-U", "realtime",
                    "-d", database, "-c", statement,
                    env={"PATH": os.environ["PATH"], "PGCONNECT_TIMEOUT": "5"}).strip()  # fmt: skip

    def promote(self) -> None:
        """Returns once it is a primary."""
        assert self.sql("SELECT pg_promote(true, 30)") == "t"

    def configure(self, **settings: str) -> None:
        """Sets what the running server takes over."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _family(self) -> list[int]:
        if self._process is None or not self.is_running:
            return []
        pid = self._process.pid
        with suppress(FileNotFoundError):
            return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        return []

    def pause(self) -> None:
        """It hangs: sockets stay open, nobody answers."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._family():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        for pid in self._family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def pull(self, *cables: str) -> None:
        """Takes cables out, `outside` and `beside`, which leads to the other one: who is at their end hears nothing
        more, and nothing is closed."""
        for cable in cables:
            _run("ip", "-n", str(self.namespace), "link", "set", "dev", cable, "down")

    def plug(self, *cables: str) -> None:
        for cable in cables:
            _run("ip", "-n", str(self.namespace), "link", "set", "dev", cable, "up")


class Pair:
    """A primary and its standby, called `a` and `b`."""

    def __init__(self, a: Server, b: Server, address_of_a: str | None = None) -> None:
        self.a, self.b = a, b
        self._address = address_of_a

    @property
    def url(self) -> str:
        """Both, the second in front: an order says nothing."""
        return f"postgresql://realtime@{self.b.place},{self.a.place}/realtime?sslmode=disable"

    def prepare(self) -> None:
        """`b` follows `a`, whatever was before."""
        self.b.follow(self.a, self._address)

    def turn(self) -> None:
        """What `b` has is what `a` has from now on; `b` is ended."""
        for server in (self.a, self.b):
            server.kill()
        shutil.rmtree(self.a.data)
        shutil.move(self.b.data, self.a.data)
        self.a.start()

    def wait_for_standby(self) -> None:
        """Returns once `b` has all that `a` has."""
        deadline = time.monotonic() + PATIENCE
        while self.b.sql(f"SELECT pg_last_wal_replay_lsn() >= '{self.a.sql('SELECT pg_current_wal_lsn()')}'") != "t":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def synchronous(self, on: bool) -> None:
        """Whether commits of `a` wait for `b`. Returns once it is so."""
        self.a.configure(synchronous_standby_names="b" if on else "")
        deadline = time.monotonic() + PATIENCE
        wanted = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        while self.a.sql(wanted) != str(int(on)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextmanager
def replicated(folder: Path) -> Iterator[Pair]:
    """A pair on this host."""
    folder.chmod(0o755)
    own = folder / "servers"
    own.mkdir()
    _give(own)
    first = free_port()
    pair = Pair(Server(own, "a", "127.0.0.1", first), Server(own, "b", "127.0.0.1", free_port()))
    with _running(pair):
        yield pair


@contextmanager
def apart(folder: Path) -> Iterator[Pair]:
    """A pair whose servers are hosts of their own, which may be cut off."""
    number = 20 + os.getpid() % 80
    folder.chmod(0o755)
    own = folder / "hosts"
    own.mkdir()
    _give(own)
    names = [f"realtime-{os.getpid() % 100_000}-{which}" for which in "ab"]
    try:
        for place, name in enumerate(names):
            _run("ip", "netns", "add", name)
            ours = f"rt{os.getpid() % 100_000}{'ab'[place]}"
            _run("ip", "link", "add", ours, "type", "veth", "peer", "name", "outside", "netns", name)
            _run("ip", "addr", "add", f"10.{number}.{place}.1/24", "dev", ours)
            _run("ip", "link", "set", ours, "up")
            _run("ip", "-n", name, "addr", "add", f"10.{number}.{place}.2/24", "dev", "outside")
            for device in ("lo", "outside"):
                _run("ip", "-n", name, "link", "set", device, "up")
        _run("ip", "-n", names[0], "link", "add", "beside", "type", "veth", "peer", "name", "beside", "netns", names[1])
        for place, name in enumerate(names):
            _run("ip", "-n", name, "addr", "add", f"10.{number}.9.{place + 1}/24", "dev", "beside")
            _run("ip", "-n", name, "link", "set", "beside", "up")
        servers = [Server(own, which, f"10.{number}.{place}.2", 5432, names[place]) for place, which in enumerate("ab")]
        pair = Pair(servers[0], servers[1], f"10.{number}.9.1")
        with _running(pair):
            yield pair
    finally:
        for which, name in zip("ab", names, strict=True):
            ours = f"rt{os.getpid() % 100_000}{which}"  # a namespace whose sockets have yet to end keeps its cable
            subprocess.run(["ip", "link", "del", ours], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _give(folder: Path) -> None:
    if account := _account():
        os.chown(folder, account["user"], account["group"])


@contextmanager
def _running(pair: Pair) -> Iterator[None]:
    try:
        pair.a.create()
        yield
    finally:
        for server in (pair.a, pair.b):
            server.go_on()
            server.kill()


@contextmanager
def led(folder: Path, servers: Sequence[Server]) -> Iterator[str]:
    """A place at which HAProxy leads to the first of the servers that says it is a primary, for the block."""
    program = haproxy()
    assert program is not None
    port = free_port()
    parts = b"user\0realtime\0database\0realtime\0\0"
    startup = (8 + len(parts)).to_bytes(4, "big") + (196_608).to_bytes(4, "big") + parts
    question = b"SELECT pg_is_in_recovery()\0"
    asked = b"Q" + (4 + len(question)).to_bytes(4, "big") + question
    no = b"D" + bytes([0, 0, 0, 11, 0, 1, 0, 0, 0, 1]) + b"f"
    places = "".join(f"    server {one.name} {one.place} check\n" for one in servers)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1h\n    timeout server 1h\n"
        f"listen postgresql\n    bind 127.0.0.1:{port}\n    balance first\n    option tcp-check\n"
        f"    tcp-check connect\n    tcp-check send-binary {startup.hex()}\n    tcp-check send-binary {asked.hex()}\n"
        f"    tcp-check expect binary {no.hex()}\n    timeout check 500ms\n"
        f"    default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions\n{places}"
    )
    process = subprocess.Popen([program, "-db", "-f", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not connects(port):
            assert process.poll() is None and time.monotonic() < deadline, configuration.read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
