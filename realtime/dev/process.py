"""One server process of the development instance: started, awaited, stopped, never left behind.

Owns: for a server called NAME, in its folder: `NAME.log`, `NAME.lock`, `NAME.url` (port and password, kept
for the next start); the choice of a port; the keeper process.
Must never: leave a process behind, or show a password to other users of the machine (files are 0600, and no
command line has one).
Assumes: a POSIX system with flock; loopback TCP.

Nothing stays behind: the server is the child of a keeper (`keeper`), which stops it when the pipe
from this process closes. A clean stop closes that pipe and a SIGKILL closes it too, so both take the same
way. And the next start knows that nothing stayed: keeper, server and all the server's children inherit the
held `NAME.lock`, so it is free exactly when the last of them is gone.
"""

import contextlib
import fcntl
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

HOST = "127.0.0.1"
# Below the ephemeral ports of Linux and macOS: a client that keeps knocking at one of those while its server
# is away is sooner or later given that very port, connects to itself, and holds it against the server.
PORTS = range(20_000, 32_000)
KEEPER = Path(__file__).with_name("keeper.py")

GRACE = 10.0  # seconds a server gets to stop cleanly
ENDING = GRACE + 10.0  # seconds a start waits until the servers of a killed owner are gone
READY = 60.0  # seconds a server gets to answer: a long crash recovery, a big snapshot
LOOK = 0.02  # seconds between two looks


class InstanceError(Exception):
    """The development stores cannot be had; the message says what was wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """One server that answers."""

    url: str = field(repr=False)
    pid: int
    note: str  # for people: what it is and where it is from


class Server(Protocol):
    """What this module needs to know of a server."""

    folder: Path
    name: str  # of its files in the folder
    title: str  # for people
    note: str

    def prepare(self, lock: int) -> None: ...  # make its data ready; no process of an earlier run is alive
    def launch(self, port: int, lock: int) -> "Keeper": ...  # hand `lock` on to every process
    def answers(self, port: int, pid: int) -> bool: ...
    def url(self, port: int) -> str: ...


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Running]:
    """Start the server, yield when it answers, stop it. Raises InstanceError."""
    with contextlib.ExitStack() as stack:
        with explained(server.folder):
            server.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context(locked(server.folder / f"{server.name}.lock", ENDING))
            server.prepare(lock)
            keeper, port = _launch(server, lock)
            stack.callback(keeper.stop)
            url = server.url(port)
            write_private(server.folder / f"{server.name}.url", url)
        yield Running(url, keeper.pid, server.note)


def _launch(server: Server, lock: int) -> tuple["Keeper", int]:
    """Start on the port of last time, else on a free one; once more where somebody takes it in between."""
    port = remembered(server.folder, server.name)[0]
    for last_try in (False, True):
        if port is None or not _is_free(port):
            port = _free_port()
        keeper = server.launch(port, lock)
        try:
            _wait_until_ready(server, keeper, port)
            return keeper, port
        except BaseException as error:
            keeper.stop()
            if last_try or not isinstance(error, InstanceError) or _is_free(port):
                raise
    raise AssertionError("the last try returns or raises")


def _wait_until_ready(server: Server, keeper: "Keeper", port: int) -> None:
    deadline = time.monotonic() + READY
    while not server.answers(port, keeper.pid):
        if keeper.has_ended():
            raise InstanceError(f"{server.title} did not start. {keeper.log.last_words()}")
        if time.monotonic() > deadline:
            raise InstanceError(f"{server.title} did not answer in {READY:.0f} s. {keeper.log.last_words()}")
        time.sleep(LOOK)


class Keeper:
    """A server process (`pid`) under its keeper process, in a session of their own."""

    def __init__(
        self,
        program: list[str],
        log: "Log",
        stop: signal.Signals,
        *,
        inherit: tuple[int, ...],
        cwd: Path = Path("/"),
        account: pwd.struct_passwd | None = None,
    ) -> None:
        self.log = log
        user, group = (account.pw_uid, account.pw_gid) if account else (-1, -1)
        orders = map(str, (os.getpid(), int(stop), GRACE, user, group, *program))
        with log.opened() as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-I", "-S", KEEPER, *orders],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=environment(),
                pass_fds=inherit,
                start_new_session=True,  # Ctrl-C is for this process, which stops its servers when it is done
            )
        assert self._process.stdin and self._process.stdout
        self._line = self._process.stdin
        with self._process.stdout as answer:
            self.pid = int(answer.readline() or -1)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Stop the server; returns when it is gone."""
        self._line.close()
        try:
            self._process.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Log:
    """A server's log file, and where in it the present run begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file to hand to a process."""
        with open(self.path, "ab", opener=_private) as file:
            self._begin = file.seek(0, os.SEEK_END)
            yield file

    def last_words(self, lines: int = 12) -> str:
        with self.path.open("rb") as file:
            file.seek(self._begin)
            words = file.read().decode(errors="replace").splitlines()[-lines:]
        return "\n    ".join((f"The end of {self.path}:", *words)) if words else f"{self.path} says nothing."


def environment() -> dict[str, str]:
    """For a server: without this process's secrets and without settings (PGPORT, DFLY_port) for others."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Tell an error of the file system as an InstanceError."""
    try:
        yield
    except OSError as error:
        raise InstanceError(
            f"{error.filename or folder}: {error.strerror or error}. The development stores live in "
            f"{folder}; make it writable for the present user, or choose another folder with --data-dir"
        ) from error


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[int]:
    """Hold the lock in `path`; yields its descriptor.

    Waits up to `patience` seconds, then raises InstanceError. The file is never removed: two processes could
    then hold "the" lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not _takes(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise InstanceError(
                    f"{path.parent} is in use by process {_pid_in(descriptor)}; "
                    "stop that one first, or choose another folder with --data-dir"
                )
            time.sleep(LOOK)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> int | None:
    """The pid of the process that holds the lock in `path`, None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _takes(descriptor, fcntl.LOCK_SH) else _pid_in(descriptor)
    finally:
        os.close(descriptor)


def _takes(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(descriptor: int) -> int:
    return int(os.pread(descriptor, 20, 0) or 0)  # empty for a moment after the lock was taken


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    with open(new, "w", opener=_private) as file:
        file.write(text)
    new.replace(path)


def read_private(path: Path) -> str | None:
    """The text of a file; None where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def remembered(folder: Path, name: str) -> tuple[int | None, str | None]:
    """Port and password of the server's last run in `folder`."""
    url = urlsplit(read_private(folder / f"{name}.url") or "")
    return url.port, url.password


def connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for _ in range(1000):
        if _is_free(port := secrets.choice(PORTS)):
            return port
    raise InstanceError(f"no free port between {PORTS.start} and {PORTS.stop} on {HOST}: is loopback up?")
