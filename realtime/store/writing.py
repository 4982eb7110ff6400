"""Writing: tells the content of one partition what the ledger has committed.

Owns the arguments of the scripts that write. Must never repeat a write that may have been done (the caller knows
whether that is safe), name keys of another partition, or cost a batch of published boards more than `apply` does.
Assumes that rows are absolute and carry versions. Every method raises StoreUnavailable and its kin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from realtime import resources
from realtime.boards.board import Board
from realtime.boards.making import in_the_making
from realtime.errors import DefinitionMoved, EpochMoved
from realtime.store.members import digits_of, is_complemented
from realtime.store.places import Place, Places
from realtime.store.pool import Script, executed, transaction
from realtime.store.reading import look_commands, look_of
from realtime.store.replies import Expectation, Look, as_text

if TYPE_CHECKING:
    from realtime.boards.leaderboard import Leaderboard
    from realtime.boards.standings import Profile, Row
    from realtime.store.link import Link
    from realtime.store.replies import ReadAfterWrite

ROWS_A_CALL: Final = 1_000
"""Rows of one board, and profiles, in one script call: Lua's `unpack` ends at about 8,000 values."""

BOARDS_A_CALL: Final = 250
"""Boards in one script call. A batch that is spread over more leaderboards takes several."""

Rows = Mapping[Board, "Sequence[Row]"]


class Writing:
    """Writes boards through one partition's `link`."""

    def __init__(self, link: Link, places: Places) -> None:
        self._link = link
        self._keys = link.keys
        self._places = places
        self._apply = Script(resources.script("apply"))
        self._apply_ranked = Script(resources.script("apply_ranked"))
        self._switch = Script(resources.script("switch"))
        self._discard = Script(resources.script("discard"))

    async def apply(
        self,
        rows: Rows,
        profiles: Sequence[Profile] = (),
        *,
        epoch: str | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> int:
        """See `Store.apply`; of boards of this partition."""
        applied = 0
        for part, of_users in _parts(rows, profiles):
            expected = read_after_write(part) if read_after_write is not None else None
            look: Look | None = None
            try:
                done, look = await self._apply_part(part, of_users, epoch or self._link.epoch, expected)
            finally:
                if expected is not None:
                    expected.fulfil(look)
            applied += done
        return applied

    async def _apply_part(
        self, rows: Rows, profiles: Sequence[Profile], epoch: str | None, expected: Expectation | None
    ) -> tuple[int, Look | None]:
        places = [self._places.of(board) for board in rows]
        are_published = all(place.definition is None for place in places)
        are_plain = are_published and not self._keys.tag  # `apply` announces on the published channels alone
        script = self._apply if are_plain else self._apply_ranked
        called = self._published if are_plain else self._ranked
        keys, args = called(rows, places, epoch or "", len(profiles))
        if profiles:
            keys += [self._keys.user(profile.user_id) for profile in profiles]
            args.append(" ".join([str(profile.user_id) for profile in profiles]))
            args.append(" ".join([str(profile.version) for profile in profiles]))
            args += [profile.username for profile in profiles]
        behind: Sequence[Any] = ()
        wanted: list[Place] = []
        if expected is not None:
            wanted = [self._places.of(board) for board in expected.wanted]
            behind = transaction(look_commands(self._keys, wanted, expected.names_of))
        with self._link.mapped():
            (verdict, value, *more), *replies = await self._link.checked.run(script, keys, args, *behind)
            if verdict == b"epoch":
                raise EpochMoved(as_text(value) or None)
            if verdict == b"definition":
                raise _moved(places, int(value), more[0], epoch)
            if expected is None:
                return int(value), None
            return int(value), look_of(wanted, expected.names_of, executed(replies))

    def _published(self, rows: Rows, places: Sequence[Place], epoch: str, users: int) -> tuple[list[str], list[Any]]:
        """Keys and arguments of `apply`, up to the users."""
        keys: list[str] = [self._keys.epoch, self._keys.users_version]
        args: list[Any] = [epoch, len(rows), users]
        ahead = self._ahead()
        for (board, of_board), place in zip(rows.items(), places, strict=True):
            keys += place[:3]
            args += (board.id, place.expire_at and place.expire_at + ahead)
            args.append(" ".join([str(row.user_id) for row in of_board]))
            args.append(" ".join([str(row.version) for row in of_board]))
            args.append(" ".join(["-" if row.score is None else str(row.score) for row in of_board]))
        return keys, args

    def _ranked(self, rows: Rows, places: Sequence[Place], epoch: str, users: int) -> tuple[list[str], list[Any]]:
        """Keys and arguments of `apply_ranked`, up to the users."""
        rules = _rules(places)
        keys: list[str] = [self._keys.epoch, self._keys.users_version, *rules]
        args: list[Any] = [epoch, self._keys.announcing, len(rules), len(rows), users, *rules.values()]
        ahead = self._ahead()
        for (board, of_board), place in zip(rows.items(), places, strict=True):
            keys += place[:4]
            args += (board.id, place.expire_at and place.expire_at + ahead, place.writing)
            args.append(" ".join([str(row.user_id) for row in of_board]))
            args.append(" ".join([str(row.version) for row in of_board]))
            args.append(" ".join(["-" if row.score is None else str(row.score) for row in of_board]))
            if place.order.by_time:
                complemented = is_complemented(place.order)
                args.append(" ".join([_digits(row, complemented) for row in of_board]))
            if place.shows_metadata:
                args += [row.metadata or "" for row in of_board]
        return keys, args

    def _ahead(self) -> int:
        """Seconds by which the store's clock is ahead: no key expires before it is due by the ledger's clock either."""
        return max(0, int(self._link.ahead or 0))

    # A leaderboard that is redefined ------------------------------------------------------------------------------

    async def switch(self, made: Leaderboard, boards: Iterable[Board], gone: Iterable[Board], epoch: str) -> bool:
        """See `Store.switch`; False where that rule is shown already."""
        assert made.next_rule is not None
        keys = [self._keys.epoch, self._keys.definition(made.slug)]
        args: list[Any] = [epoch, self._keys.announcing, made.next_rule]
        ahead = self._ahead()
        for board in (*boards, *gone):
            shown, beside = self._places.of(board), self._places.of(in_the_making(board, made))
            keys.append(shown.version)
            for pair in zip((shown.scores, *shown[2:4]), (beside.scores, *beside[2:4]), strict=True):
                keys += pair
            args += (board.id, shown.expire_at and shown.expire_at + ahead)
        with self._link.mapped():
            (verdict,) = await self._link.checked.run(self._switch, keys, args)
        if verdict == b"epoch":
            raise EpochMoved(None)
        return bool(verdict == b"ok")

    async def discard(self, boards: Iterable[Board], slug: str | None) -> None:
        """See `Store.discard`."""
        doomed: list[str] = [] if slug is None else [self._keys.definition(slug)]
        for board in boards:
            doomed += self._places.of(board)[:4]
        with self._link.mapped():
            for start in range(0, len(doomed), ROWS_A_CALL):
                keys = [self._keys.epoch, *doomed[start : start + ROWS_A_CALL]]
                (verdict,) = await self._link.checked.run(self._discard, keys, [self._link.epoch or ""])
                if verdict != b"ok":
                    raise EpochMoved(None)


def _parts(rows: Rows, profiles: Sequence[Profile]) -> Iterator[tuple[Rows, Sequence[Profile]]]:
    """What goes into one script call each."""
    longest = max((len(part) for part in [*rows.values(), profiles]), default=0)
    boards = list(rows)
    for start in range(0, longest, ROWS_A_CALL):
        end = start + ROWS_A_CALL
        for first in range(0, max(len(boards), 1), BOARDS_A_CALL):
            some = boards[first : first + BOARDS_A_CALL]
            yield {board: list(islice(rows[board], start, end)) for board in some}, profiles[start:end]


def _rules(places: Iterable[Place]) -> dict[str, str]:
    """The rules that boards are made by, by the key that names each."""
    return {place.definition: place.rule for place in places if place.definition is not None}


def _moved(places: Iterable[Place], number: int, there: bytes, epoch: str | None) -> DefinitionMoved:
    key = list(_rules(places))[number - 1]
    return DefinitionMoved(key.rpartition(":")[2], as_text(there) or None, epoch)


def _digits(row: Row, complemented: bool) -> str:
    if row.score is None:
        return "-"
    assert row.at is not None
    return digits_of(row.at, complemented)
