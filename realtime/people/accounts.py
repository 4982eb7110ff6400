"""Accounts: people, and what happens to them.

Owns registration, passwords, renames, bans and deletions. Must never let a hash run on the event loop, more than one
hash at a time, or say whether it was the address or the password that was wrong. Assumes the caller checked rights.

A ban or deletion takes the locks of the user's heads and total first, in one statement, and acts in later ones: a batch
of that user either ended before, and is seen, or waits, and then finds the row hidden and its version moved on. Who is
banned is what `bans` says; where that hides them is computed anew with each change.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from realtime.boards.catalogue import Directory
from realtime.boards.leaderboard import DEFAULT
from realtime.errors import EpochMoved, LedgerConflict, LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.people.passwords import Passwords, check_password
from realtime.people.usernames import check_username
from realtime.validation import ID_MAX, plain_text

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often a change is tried that PostgreSQL ends for somebody else's."""

Pending = Sequence[tuple[int, int]]
"""Outbox rows of a change, each with the source that it is for; none where nothing changed."""

IMPORT_DOMAIN: Final = "imported.invalid"
"""The domain of imported players' addresses (RFC 2606): nobody can register there."""


# What an <input type=email> takes (HTML Living Standard, "valid e-mail address").
_EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\Z"
)


class Hiding(Protocol):
    """The steps of a ban, a deletion and a renaming, in the transaction that is open: see `ledger.hiding`."""

    async def held(self, connection: Any, user_id: int, sources: Sequence[int] | None) -> None: ...
    async def anew(self, connection: Any, user_id: int, sources: Sequence[int] | None, kind: str) -> Pending: ...
    async def renamed(self, connection: Any, user_id: int) -> Pending: ...
    async def committed(self) -> None: ...


class Ledger(Protocol):
    """What accounts need of PostgreSQL."""

    @property
    def hiding(self) -> Hiding: ...
    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    async def clear_told(self, cleared: Sequence[tuple[str, str | None, Sequence[int]]]) -> None: ...
    async def settled(self) -> None: ...


class Reads(Protocol):
    """Who is asked what may be a little old."""

    async def fetch(self, name: str, *args: Any, source: int = ...) -> Sequence[Any]: ...


class Resync(Protocol):
    """What accounts need to reach the store."""

    async def each(self, user_ids: Collection[int]) -> dict[str, str | None]: ...


@dataclass(frozen=True, slots=True)
class Person:
    """A user, as shown to themselves."""

    user_id: int
    email: str | None
    username: str
    created_at: datetime
    banned: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a user's log."""

    id: int
    submission_id: str
    score_added: int | None
    """None where a leaderboard counts submissions and got no score."""
    reason: str | None
    created_at: datetime


def check_email(value: Any) -> str:
    """`value` where it can be an address. Raises RealtimeError `bad_message` or `out_of_range`."""
    email = plain_text(value, "email", 3, 254)
    if not _EMAIL.match(email) or email.lower().endswith("@" + IMPORT_DOMAIN):
        raise RealtimeError("bad_message", "email is not an e-mail address.")
    return email


class Accounts:
    """People, in both stores."""

    def __init__(
        self,
        ledger: Ledger,
        resync: Resync,
        passwords: Passwords,
        directory: Directory | None = None,
        reads: Reads | None = None,
    ) -> None:
        self._ledger = ledger
        self._reads: Reads = reads or ledger
        self._resync = resync
        self._passwords = passwords
        self._directory = directory or Directory()

    # Coming ------------------------------------------------------------------------------------------------------

    async def register(self, email: Any, password: Any, username: Any) -> int:
        """A new user's id. Raises RealtimeError: `bad_message`, `out_of_range`, `conflict`, `overloaded`."""
        email, username, password = check_email(email), check_username(username), check_password(password)
        async with self._passwords.turn():
            hashed = await self._passwords.hash(password)
        rows = await self._ledger.fetch("register", email, hashed, username)
        if not rows:
            ((in_place,),) = await self._ledger.fetch("ledger_is_in_place")
            if not in_place:
                raise LedgerUnavailable("PostgreSQL was restored, which is being noticed")
            raise RealtimeError("conflict", "This e-mail address is taken. Sign in, or use another.")
        return int(rows[0]["id"])

    async def sign_in(self, email: Any, password: Any) -> int:
        """The user id that the credentials belong to. Raises RealtimeError `unauthorized`, `overloaded`."""
        email = plain_text(email, "email", 1, 254)
        password = check_password(password, 1)
        async with self._passwords.turn():
            rows = await self._ledger.fetch("credentials", email)
            known = rows[0]["password_hash"] if rows else None
            matches = await self._passwords.verify(known, password)
        if not matches:
            # In the same words and after the same time, whichever it was.
            raise RealtimeError("unauthorized", "The e-mail address or the password is wrong.")
        return int(rows[0]["id"])

    async def person(self, user_id: int) -> Person:
        """A user. Raises RealtimeError `unknown_user`."""
        rows = await self._ledger.fetch("person", user_id)
        if not rows:
            raise _unknown()
        return Person(*rows[0])

    async def entries(self, user_id: int, before: int | None, limit: int, source: int = DEFAULT.id) -> list[Entry]:
        """A user's log, newest first, from below the id `before` on; of the submissions to leaderboard `source`. It may
        lack what came within the last seconds.

        Raises RealtimeError `unknown_user`.
        """
        below = ID_MAX if before is None else before
        if source == DEFAULT.id:
            rows = await self._reads.fetch("transactions", user_id, below, limit)
        else:
            rows = await self._reads.fetch("transactions_of", source, user_id, below, limit, source=source)
        if not rows and not await self._ledger.fetch("user_exists", user_id):
            raise _unknown()
        return [Entry(*row) for row in rows]

    # Changing ------------------------------------------------------------------------------------------------

    async def rename(self, user_id: int, username: Any) -> None:
        """Gives a user another name, everywhere. Raises RealtimeError `unknown_user`, `bad_message`, `out_of_range`."""
        name = check_username(username)
        if pending := await self._again(lambda: self._rename(user_id, name)):
            await self._tell_store(user_id, pending)

    async def _rename(self, user_id: int, name: str) -> Pending:
        async with self._ledger.connection() as connection, connection.transaction():
            is_other = await connection.fetchval(self._ledger.query("rename"), user_id, name)
            if is_other is None:
                raise _unknown()
            return await self._ledger.hiding.renamed(connection, user_id) if is_other else ()

    async def ban(self, user_id: int, *, actor: str, reason: str | None, leaderboard: str | None = None) -> None:
        """Hides a user from every board, or from those of a leaderboard and what is `of` it, and refuses their scores
        there. Banning again changes nothing.

        Raises RealtimeError `unknown_user`, `unknown_leaderboard`, `bad_message`, `out_of_range`.
        """
        await self._changed(user_id, True, "ban", actor, reason, leaderboard)

    async def unban(self, user_id: int, *, actor: str, reason: str | None, leaderboard: str | None = None) -> None:
        """Ends that ban, and shows the user again where no other holds, with all that was theirs. Raises as `ban`."""
        await self._changed(user_id, False, "unban", actor, reason, leaderboard)

    async def delete(self, user_id: int, *, actor: str) -> None:
        """Takes a person off every board for good and makes what remains anonymous. Can be repeated.

        Raises RealtimeError `unknown_user` where there never was one.
        """
        await self._tell_store(user_id, await self._again(lambda: self._delete(user_id, actor)))

    async def _delete(self, user_id: int, actor: str) -> Pending:
        async with self._ledger.connection() as connection, connection.transaction():
            if not await connection.fetchval(self._ledger.query("user_exists"), user_id):
                raise _unknown()
            await connection.execute("SELECT while_sources_stay()")
            await self._ledger.hiding.held(connection, user_id, None)
            forgotten = await connection.execute(self._ledger.query("forget"), user_id)
            pending = await self._ledger.hiding.anew(connection, user_id, None, "deletion")
            if forgotten == "UPDATE 1":
                await self._audit(connection, actor, "delete", user_id, {})
        return pending

    async def _again(self, change: Callable[[], Awaitable[Pending]]) -> Pending:
        """Does a change, and again where PostgreSQL ends it for somebody else's: then nothing of it was done. What was
        done before may be on the primary alone, so who asked is answered once it is settled."""
        for attempt in range(ATTEMPTS):
            with suppress(LedgerConflict) if attempt < ATTEMPTS - 1 else nullcontext():
                pending = await change()
                break
        if not pending:
            await self._ledger.settled()
        return pending

    async def _changed(
        self, user_id: int, hidden: bool, action: str, actor: str, reason: str | None, slug: str | None
    ) -> None:
        if reason is not None:
            reason = plain_text(reason, "reason", 0, 255)
        pending = await self._again(lambda: self._hide(user_id, hidden, action, actor, reason, slug))
        if pending:
            await self._tell_store(user_id, pending)

    async def _hide(
        self, user_id: int, hidden: bool, action: str, actor: str, reason: str | None, slug: str | None
    ) -> Pending:
        async with self._ledger.connection() as connection, connection.transaction():
            if not await connection.fetchval(self._ledger.query("person_exists"), user_id):
                raise _unknown()
            await connection.execute("SELECT while_sources_stay()")
            leaderboard, sources = await self._leaderboard(connection, slug)
            if hidden == await connection.fetchval(self._ledger.query("is_banned"), user_id, leaderboard):
                return ()
            await self._ledger.hiding.held(connection, user_id, sources)
            # Again, now that all of it is locked: a deletion in between must not be undone.
            if not await connection.fetchval(self._ledger.query("person_exists"), user_id):
                raise _unknown()
            await connection.execute(self._ledger.query("ban_of_before"), user_id)
            await connection.execute(self._ledger.query("banned" if hidden else "unbanned"), user_id, leaderboard)
            pending = await self._ledger.hiding.anew(connection, user_id, sources, action)
            detail = {"reason": reason, "leaderboard": slug}
            await self._audit(connection, actor, action, user_id, detail)
        return pending

    async def _leaderboard(self, connection: Any, slug: str | None) -> tuple[int, list[int] | None]:
        """The number of a leaderboard, and the source on which a ban from it holds; 0 and None for the deployment."""
        if slug is None:
            return 0, None
        row = await connection.fetchrow(self._ledger.query("leaderboard_source"), slug)
        if row is None:
            raise RealtimeError("unknown_leaderboard", f"There is no leaderboard {slug!a} here.")
        return row["id"], [row["source"]]

    async def _audit(
        self, connection: Any, actor: str, action: str, user_id: int, detail: Mapping[str, str | None]
    ) -> None:
        written = orjson.dumps({name: value for name, value in detail.items() if value is not None}).decode()
        await connection.execute(self._ledger.query("audit"), actor, action, user_id, written)

    async def _tell_store(self, user_id: int, pending: Pending) -> None:
        """At once where the store is there; otherwise the sweeper does it from the outbox rows, given with their
        sources."""
        await self._ledger.hiding.committed()
        partitions: dict[str | None, list[int]] = {}
        for outbox_id, source in pending:
            partitions.setdefault(self._directory.current.partition_of(source), []).append(outbox_id)
        try:
            told = await self._resync.each([user_id])
            cleared = [(name, epoch, partitions[name]) for name, epoch in told.items() if name in partitions]
            if cleared:
                await self._ledger.clear_told(cleared)
        except (StoreUnavailable, LedgerUnavailable, EpochMoved) as error:
            log.warning("a change of user %d waits for the store: %s", user_id, error, extra={"action": "outbox"})


def _unknown() -> RealtimeError:
    return RealtimeError("unknown_user", "There is no such user.")
