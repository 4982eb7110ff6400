"""The development instance behind `realtime up`: real stores, all of it in one data folder.

Owns: the data folder as a whole: who holds it (`lock`, with the owner's pid in it), its `secret`, and the
records `instance.json` and `address` from which other commands find the running stores and the server. `postgres` and
`store` own the servers.
Must never: start anything for a URL that was given, or tell a secret to other users of the machine (files are
0600).
Assumes: a POSIX system; nobody else writes to the folder; a lock (flock) that is held means a living owner.
"""

import contextlib
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from realtime.dev.postgres import OPTIONS, start_postgres
from realtime.dev.process import InstanceError, Running, explained, holder_of, locked, read_private, write_private
from realtime.dev.store import start_store

__all__ = [
    "InstanceError",
    "Running",
    "Urls",
    "address_of",
    "development_secret",
    "ensure_free",
    "locate",
    "record_address",
    "start",
    "start_postgres",
    "start_store",
]

LET_GO = 1.0  # seconds a start waits for an owner that is just being killed


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the development stores are; they answer."""

    database_url: str = field(repr=False)  # for asyncpg and psql
    dragonfly_url: str = field(repr=False)  # for redis-py and redis-cli -u
    secret: str = field(repr=False)  # 64 hexadecimal characters, the same for the life of the data folder
    notes: tuple[str, ...]  # for people: which servers were started, and where they are from


@contextlib.contextmanager
def start(data_dir: Path, *, database_url: str | None = None, dragonfly_url: str | None = None) -> Iterator[Urls]:
    """Start the stores that have no URL yet, yield when they answer, stop what was started.

    They stop as well when this process is killed. Blocks for a second or so (several at the first start), so
    enter it before the event loop runs. Raises InstanceError, also where another process holds `data_dir`.
    """
    folder = data_dir.absolute()
    with contextlib.ExitStack() as stack:
        with explained(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(locked(folder / "lock", LET_GO))
            (folder / "instance.json").unlink(missing_ok=True)  # written again when all of it is true
            secret = development_secret(folder) or _new_secret(folder)
        started: dict[str, Running] = {}
        if database_url is None:
            started["postgres"] = stack.enter_context(start_postgres(folder))
        if dragonfly_url is None:
            started["dragonfly"] = stack.enter_context(start_store(folder))
        stores = Urls(
            database_url=database_url or f"{started['postgres'].url}?{OPTIONS}",
            dragonfly_url=dragonfly_url or started["dragonfly"].url,
            secret=secret,
            notes=tuple(server.note for server in started.values()),
        )
        with explained(folder):
            _record(folder, stores, {name: server.pid for name, server in started.items()})
        yield stores


def locate(data_dir: Path) -> Urls | None:
    """The running development instance of `data_dir`, for a command in a second terminal.

    None where there never was one. Raises InstanceError where there was one that does not run now, or not
    yet.
    """
    folder = data_dir.absolute()
    with explained(folder):
        holder = holder_of(folder / "lock")
        text = read_private(folder / "instance.json")
        secret = development_secret(folder)
    if secret is None:  # the first thing a start makes
        return None
    if holder is None:
        raise InstanceError(
            f"the development instance of {folder} is not running; "
            f"start it with `realtime up --data-dir {shlex.quote(str(data_dir))}`"
        )
    if text is None:
        raise InstanceError(
            f"the development instance of {folder} is still starting (process {holder}); try again in a moment"
        )
    record = json.loads(text)
    return Urls(record["database_url"], record["dragonfly_url"], secret, tuple(record["notes"]))


def record_address(data_dir: Path, address: str) -> None:
    """Notes where this process, which holds `data_dir`, answers: for `address_of`."""
    folder = data_dir.absolute()
    with explained(folder):
        write_private(folder / "address", f"{os.getpid()} {address}\n")


def address_of(data_dir: Path) -> str | None:
    """Where the server of the development instance of `data_dir` answers; None where none does."""
    folder = data_dir.absolute()
    with explained(folder):
        holder, text = holder_of(folder / "lock"), read_private(folder / "address")
    owner, _, address = (text or "").strip().partition(" ")
    return address if holder is not None and owner == str(holder) else None


def ensure_free(data_dir: Path) -> None:
    """Raises InstanceError where another process holds `data_dir`; says where its server answers."""
    folder = data_dir.absolute()
    with explained(folder):
        holder = holder_of(folder / "lock")
    if holder is None:
        return
    address = address_of(data_dir)
    raise InstanceError(
        f"{folder} is in use by process {holder}{f', which answers at {address}' if address else ''}; "
        "stop that one first, or choose another folder with --data-dir and another port with --port"
    )


def development_secret(data_dir: Path) -> str | None:
    """The secret of the development instance, whether it runs or not; None where there never was one."""
    with explained(data_dir):
        return read_private(data_dir / "secret")


def _new_secret(folder: Path) -> str:
    secret = secrets.token_hex(32)
    write_private(folder / "secret", secret)
    return secret


def _record(folder: Path, stores: Urls, pids: dict[str, int]) -> None:
    record = {
        "owner": os.getpid(),
        "database_url": stores.database_url,
        "dragonfly_url": stores.dragonfly_url,
        "notes": stores.notes,
        "pids": pids,
    }
    write_private(folder / "instance.json", json.dumps(record, indent=2) + "\n")
