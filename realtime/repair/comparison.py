"""Comparison: finds where the store does not hold what the ledger says, page by page of a board.

Owns what counts as a difference, and how it is told from a change on its way. Must never call a healthy store wrong,
however busy it is, or hold more than a page. Assumes the order in which changes travel: the ledger commits a row, then
the store applies it, then the outbox forgets it.

Because of that order the second look is certain. It reads the ledger, then the outbox, then the store, then the ledger
again. Of a user without an outbox row the store holds what the ledger said at one of the two readings or in between;
anything else is a difference. The first look only finds the users for whom a second is worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from realtime.boards.board import ALL_TIME, Board
from realtime.boards.standings import Profile, Row
from realtime.ledger.ranked import RankedRows
from realtime.store.members import DIGITS, digits_of, is_complemented
from realtime.validation import ID_MAX

if TYPE_CHECKING:
    from realtime.store.replies import Held

PAGE: Final = 500
"""Users compared at a time."""


class Ledger(Protocol):
    """What comparing needs of PostgreSQL."""

    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    async def waiting_of(self, user_ids: Collection[int]) -> set[int]: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Audit(Protocol):
    """What comparing needs of the store."""

    async def held(self, board: Board, user_ids: Sequence[int | bytes]) -> list[Held]: ...
    async def held_members(self, board: Board, members: Sequence[bytes]) -> list[Held]: ...
    async def held_profiles(self, user_ids: Sequence[int], partition: str = "") -> list[Held]: ...
    async def top_members(self, board: Board) -> list[bytes]: ...
    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, set[bytes]]: ...
    async def players(self, board: Board) -> int: ...


class Kind(Enum):
    """How the store differs from the ledger; the value is for people."""

    OTHER = "differs"
    """The store's row is missing, older, or another one of the same version: telling it again heals it."""
    AHEAD = "is ahead of that"
    """The store has a version that the ledger never gave: the ledger went back to a backup, or somebody wrote to the
    store by hand. Only a rebuild heals it."""
    STRAY = "should not be there"
    """The member is nobody whom the ledger knows, or a version is no number: it must go before anything else heals."""
    WAITING = "is on its way to that"
    """This is no difference: the outbox holds a change of this user."""


class Said(NamedTuple):
    """What the ledger or the store says of a user: the score on a board, or the name."""

    version: int | None
    """None where it says nothing, -1 where the version is no number."""
    value: float | str | None
    digits: bytes = b""
    """Of a board where the moment decides between equal scores: what stands in front of the user id."""
    metadata: str | None = None
    """Of a board that shows it."""

    def __str__(self) -> str:
        if self.version is None and self.value is None:
            return "nothing"
        value = f"{self.value:g}" if isinstance(self.value, float) and self.value % 1 else _whole(self.value)
        since = f" at {self.digits.decode(errors='replace')}" if self.digits else ""
        described = f" with {self.metadata!a}" if self.metadata is not None else ""
        version = "none" if self.version is None else self.version if self.version >= 0 else "?"
        return f"{value}{since}{described} (version {version})"


def _whole(value: float | str | None) -> str:
    return ascii(value) if isinstance(value, str) else "nothing" if value is None else str(int(value))


@dataclass(frozen=True, slots=True)
class Finding:
    """A member of a board, as the store has it, of which ledger and store do not say the same."""

    board: Board
    member: bytes
    kind: Kind
    ledger: Said | None
    """None where the ledger knows no such user."""
    store: Said
    seen: bytes | None
    """The version that the store had, unparsed."""
    is_leftover: bool = False
    """Whether the user's record names another member, or none: then only this one must go."""

    @property
    def user_id(self) -> int | None:
        """The user id that the member is, or ends with; None where it cannot be one."""
        return user_id_of(_user_part(self.board, self.member))

    def __str__(self) -> str:
        who = f"member {ascii(self.member)[1:]}" if self.user_id is None else f"user {self.user_id}"
        ledger = self.ledger or "nobody like that"
        return f"{self.board.id}, {who}: PostgreSQL has {ledger}, the store {self.store}, which {self.kind.value}"


def user_id_of(member: bytes) -> int | None:
    """The user id that a member of a board is; None where it cannot be one."""
    if not member.isdigit() or len(member) > 16 or member.startswith(b"0"):
        return None
    user_id = int(member)
    return user_id if user_id <= ID_MAX else None


def _user_part(board: Board, member: bytes) -> bytes:
    """What of a member stands for the user."""
    is_dated = board.leaderboard.order.by_time and len(member) > DIGITS
    return member[DIGITS:] if is_dated and member[:DIGITS].isdigit() else member


def _said(held: Held) -> Said:
    value = held.value.decode(errors="replace") if isinstance(held.value, bytes) else held.value
    metadata = None if held.metadata is None else held.metadata.decode(errors="replace")
    version = held.version
    if version is not None:
        number = int(version) if version.isdigit() and len(version) < 20 else -1
        return Said(number, value, held.digits, metadata)
    return Said(None, value, held.digits, metadata)


def _said_by_row(board: Board, row: Row) -> Said:
    digits, order = b"", board.leaderboard.order
    if order.by_time and row.score is not None and row.at is not None:
        digits = digits_of(row.at, is_complemented(order)).encode()
    return Said(row.version, row.score, digits, row.metadata if board.shows_metadata else None)


def judge(ledger: Said | None, store: Said) -> Kind | None:
    """How the store differs; None where it does not."""
    if ledger is None:
        return None if store.version is None and store.value is None else Kind.STRAY
    if store.version == -1:
        return Kind.STRAY
    assert ledger.version is not None
    if store.version is not None and store.version > ledger.version:
        return Kind.AHEAD
    return None if store == ledger else Kind.OTHER


def _record_of(held: Held) -> bytes | None:
    """What stands in `versions`, as it was read."""
    return held.version if held.version is None or not held.digits else held.version + b":" + held.digits


class _Known(NamedTuple):
    """What the ledger says of some users: their scores on one board and, for the board of all time, their names."""

    places: dict[int, Said]
    names: dict[int, Said]


class Comparison:
    """Compares ledger and store, a page at a time. Raises StoreUnavailable and its kin, LedgerUnavailable."""

    def __init__(self, ledger: Ledger, audit: Audit, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._rows = RankedRows(ledger)
        self._audit = audit
        self._now = now

    # What the ledger has ---------------------------------------------------------------------------------------

    async def page(self, board: Board, after: int) -> list[int]:
        """The next page of users that the ledger has on a board, after user id `after`; empty at the end."""
        return await self._rows.users(board, after, PAGE)

    async def suspects(self, board: Board, user_ids: Sequence[int]) -> list[int]:
        """First look: the users who differ, or are just changing."""
        found = await self._compare(board, user_ids, await self._known(board, user_ids))
        return sorted({finding.user_id for finding in found if finding.user_id is not None})

    async def confirmed(self, board: Board, user_ids: Sequence[int]) -> list[Finding]:
        """Second look: what differs, and what waits in the outbox."""
        known = await self._known(board, user_ids)
        waiting = await self._ledger.waiting_of(user_ids)
        found = await self._compare(board, user_ids, known)
        if not found or board.is_closed(self._now()) or not await self._is_shown(board):
            return []
        later = await self._known(board, user_ids)
        return [
            replace(finding, kind=Kind.WAITING) if finding.user_id in waiting else finding
            for finding in found
            if not _overtaken(finding, later)
        ]

    async def _is_shown(self, board: Board) -> bool:
        """Whether the ledger still shows the board by what it was compared with. The ledger exchanges standings before
        the store does: asked after the store was read, it knows of those that were found there."""
        rule = None if board.is_published else board.leaderboard.rule
        ((is_shown,),) = await self._ledger.fetch("drift_shown", board.leaderboard.id, rule)
        return bool(is_shown)

    async def _known(self, board: Board, user_ids: Sequence[int]) -> _Known:
        asked = [ALL_TIME, board] if board.is_published and board != ALL_TIME else [board]
        rows = (await self._rows.standings_of(user_ids, asked)).get(board, [])
        names_matter = board == ALL_TIME or bool(board.leaderboard.partition)
        profiles = await self._ledger.profiles_of([row.user_id for row in rows]) if names_matter else []
        return _Known(
            {row.user_id: _said_by_row(board, row) for row in rows},
            {user_id: Said(version, username) for user_id, version, username in profiles},
        )

    async def _compare(self, board: Board, user_ids: Sequence[int], known: _Known) -> list[Finding]:
        places = zip(user_ids, await self._audit.held(board, user_ids) if user_ids else [], strict=True)
        named = list(known.names)
        partition = board.leaderboard.partition
        names = zip(named, await self._audit.held_profiles(named, partition) if named else [], strict=True)
        found = [_finding(board, user_id, known.places.get(user_id), held) for user_id, held in places]
        found += [_finding(board, user_id, known.names[user_id], held) for user_id, held in names]
        return [finding for finding in found if finding is not None]

    # What the store has ----------------------------------------------------------------------------------------

    async def top(self, board: Board) -> tuple[list[int], list[Finding]]:
        """First look at the board's top, which people see: suspects, and strays."""
        members = await self._audit.top_members(board)
        strays = await self._strays_among(board, members)
        gone = {finding.member for finding in strays}
        users = [user_id_of(_user_part(board, member)) for member in members if member not in gone]
        return await self.suspects(board, [user_id for user_id in users if user_id is not None]), strays

    async def strays(self, board: Board, cursor: int) -> tuple[int, list[Finding]]:
        """The next cursor and strays of a scan through all that the store holds of a board.

        It begins with cursor 0 and has ended when the cursor is 0 again.
        """
        in_versions = cursor % 2 == 1
        cursor, members = await self._audit.scan(board, cursor, PAGE)
        found = await self._strays_among(board, sorted(members))
        # A member that has a score too was found among the scores.
        return cursor, [finding for finding in found if not in_versions or finding.store.value is None]

    async def _strays_among(self, board: Board, members: Sequence[bytes]) -> list[Finding]:
        """The members whom the ledger does not know. One look is enough: the ledger has a row before the store does.

        Where the moment decides between equal scores, also those that their user's record does not name, of one moment.
        """
        users = {m: user_id for m in members if (user_id := user_id_of(_user_part(board, m))) is not None}
        known = await self._known(board, list({*users.values()}))
        if board.leaderboard.order.by_time:
            return await self._unnamed_among(board, members, users, known)
        lost = [member for member in members if member not in users or users[member] not in known.places]
        found = zip(lost, await self._audit.held(board, lost) if lost else [], strict=True)
        return [Finding(board, member, Kind.STRAY, None, _said(held), held.version) for member, held in found]

    async def _unnamed_among(
        self, board: Board, members: Sequence[bytes], users: dict[bytes, int], known: _Known
    ) -> list[Finding]:
        found: list[Finding] = []
        held = await self._audit.held_members(board, members) if members else []
        for member, of_it in zip(members, held, strict=True):
            said = known.places.get(users.get(member, 0))
            is_named = of_it.value is None or (of_it.digits != b"" and of_it.digits == member[:DIGITS])
            if said is None or not is_named:
                is_leftover = said is not None
                found.append(Finding(board, member, Kind.STRAY, said, _said(of_it), _record_of(of_it), is_leftover))
        return found

    async def counts_agree(self, board: Board) -> bool:
        """Whether as many members are on the board as the ledger says. It may be wrong while players come and go."""
        before = await self._rows.players(board)
        players = await self._audit.players(board)
        after = await self._rows.players(board)
        return bool(min(before, after) <= players <= max(before, after))


def _finding(board: Board, user_id: int, ledger: Said | None, held: Held) -> Finding | None:
    store = _said(held)
    kind = judge(ledger, store)
    return None if kind is None else Finding(board, b"%d" % user_id, kind, ledger, store, _record_of(held))


def _overtaken(finding: Finding, later: _Known) -> bool:
    """Whether the ledger moved on during the look, to or beyond what the store holds."""
    assert finding.user_id is not None
    of = later.names if isinstance(finding.store.value, str) else later.places
    said = of.get(finding.user_id)
    if said is None or said.version is None:
        return False
    return finding.ledger is None or (finding.kind is Kind.AHEAD and said.version >= (finding.store.version or 0))
