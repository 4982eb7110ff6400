"""The catalogue: which leaderboards there are, and which boards they have around now.

Owns what an id or an alias stands for. Must never read a clock or the ledger: `now` is an argument, and who needs a
window of long ago hears NotAtHand and asks the ledger. Assumes that the ledger's rows say where windows begin and end,
and that those of a kind are in order and do not overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from realtime.boards.board import (
    CURRENT_WEEK,
    PREVIOUS_WEEK,
    Board,
    board_in,
    live_boards,
    no_such_board,
    parse_board,
    resolve,
    told_boards,
    week_at,
)
from realtime.boards.definitions import SLUG
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.making import in_the_making
from realtime.boards.windows import ALWAYS, CLOSE_GRACE, Window, read_name
from realtime.errors import RealtimeError

CURRENT: Final = "current_"
PREVIOUS: Final = "previous_"

LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last moment that anybody asks about."""

PUBLISHED_KINDS: Final = ("all_time", "week")
"""Kinds of windows of `default` that have tables of their own; its boards are read from there unless they have ever
shown metadata."""


class NotAtHand(RealtimeError):
    """A window that this process does not know by itself: the ledger knows whether there is one."""

    def __init__(self, leaderboard: Leaderboard | None, slug: str, window: str) -> None:
        super().__init__("unknown_board", "There is no such board.")
        self.leaderboard = leaderboard
        """None where the slug is not known either."""
        self.slug = slug
        self.window = window


def split_id(text: str) -> tuple[str, str]:
    """The slug and the window's part of a board's id or alias; `default` where it names no slug."""
    slug, colon, window = text.rpartition(":")
    return (slug, window) if colon else (DEFAULT.slug, window)


def is_alias(text: str) -> bool:
    """Whether `text` stands for one board now and for another later."""
    return split_id(text)[1].startswith((CURRENT, PREVIOUS))


def check_name(text: str, now: datetime) -> None:
    """Raises RealtimeError `unknown_board` for what can be no board's id or alias, whatever leaderboards there are."""
    slug, name = split_id(text)
    if slug == DEFAULT.slug and (name in (CURRENT_WEEK, PREVIOUS_WEEK) or name.startswith(("all_time", "week_of_"))):
        resolve(name, now)
    elif not SLUG.fullmatch(slug) or not (is_alias(name) or _is_name(name)):
        raise no_such_board()


def _is_name(name: str) -> bool:
    try:
        return read_name(name) is not None
    except ValueError:
        return False


class Making(NamedTuple):
    """Standings that are being made beside those that a leaderboard shows."""

    leaderboard: Leaderboard
    """With the definition that they are made by, their number as `next_rule`, and as `rule` the one that is shown."""
    windows: Sequence[Window]
    """From the one before the last to the next, by kind, in order of time; the published ones are not among them."""

    @property
    def boards(self) -> list[Board]:
        """The boards that are to show them."""
        return [board_in(self.leaderboard, window) for window in self.windows]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What one process knows of all leaderboards, as of one revision."""

    revision: int = 0
    """Moves with every change of a definition, a rule or a window."""
    leaderboards: Mapping[str, Leaderboard] = field(default_factory=lambda: {DEFAULT.slug: DEFAULT})
    """By slug; those without boards yet too."""
    windows: Mapping[int, Sequence[Window]] = field(default_factory=dict)
    """By a leaderboard's number: its windows from the one before the last to the next, by kind, in order of time. The
    published ones are not among them."""
    making: Mapping[int, Making] = field(default_factory=dict)
    """By their number: the standings that are being made."""
    default: Leaderboard = field(init=False, repr=False, compare=False)
    """The published leaderboard."""
    has_published: bool = field(init=False, compare=False)
    """Whether the boards of `default` of all time and of the weeks are the published ones. Else they are boards of its
    rule as any others are: so it is from when they first show metadata, which the published tables do not have."""
    has_private: bool = field(init=False, compare=False)
    """Whether there is a leaderboard that not everybody may read, whatever the deployment says of others."""
    shown: Mapping[int, Leaderboard] = field(init=False, repr=False, compare=False)
    """By the number of the standings that it shows; those without boards yet are not among them."""
    _of_source: dict[int, list[Leaderboard]] = field(init=False, repr=False, compare=False)
    _by_key: dict[tuple[int, int], Board] = field(init=False, repr=False, compare=False)
    _boards_of_source: dict[int, list[Board]] = field(init=False, repr=False, compare=False)
    _edges: list[datetime] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", self.leaderboards[DEFAULT.slug])
        object.__setattr__(self, "has_published", not _are_ranked(self.windows.get(DEFAULT.id, ())))
        boards = {
            (leaderboard.id, window.key): board_in(leaderboard, window)
            for leaderboard in self.leaderboards.values()
            for window in self.windows.get(leaderboard.id, ())
        }
        object.__setattr__(self, "_by_key", boards)
        of_source: dict[int, list[Leaderboard]] = {}
        for one in self.leaderboards.values():
            of_source.setdefault(one.source, []).append(one)
        boards_of_source: dict[int, list[Board]] = {}
        for board in boards.values():
            boards_of_source.setdefault(board.leaderboard.source, []).append(board)
        shown = {one.rule: one for one in self.leaderboards.values() if one.rule is not None}
        object.__setattr__(self, "_of_source", of_source)
        object.__setattr__(self, "_boards_of_source", boards_of_source)
        object.__setattr__(self, "shown", shown)
        edges = {edge for board in boards.values() for edge in (board.window.starts, board.window.ends) if edge}
        object.__setattr__(self, "_edges", sorted(edges))
        has_private = any(one.definition.visible == "private" for one in self.leaderboards.values())
        object.__setattr__(self, "has_private", has_private)

    @property
    def partitions(self) -> frozenset[str]:
        """The partitions that hold boards; the published one always."""
        return frozenset({"", *(leaderboard.partition for leaderboard in self.leaderboards.values())})

    @property
    def is_published_alone(self) -> bool:
        """Whether submissions of `default` count on the published boards and on no others."""
        if not self.has_published or any(_are_ranked(making.windows) for making in self._making_of_default):
            return False
        counted = [*self.leaderboards.values(), *(making.leaderboard for making in self.making.values())]
        return not any(one.source == DEFAULT.id and _has_rows(one) for one in counted)

    @property
    def _making_of_default(self) -> Iterator[Making]:
        return (making for making in self.making.values() if making.leaderboard.id == DEFAULT.id)

    def leaderboard(self, slug: str) -> Leaderboard:
        """The leaderboard of that slug. Raises RealtimeError `unknown_leaderboard`."""
        found = self.leaderboards.get(slug)
        if found is None:
            raise RealtimeError("unknown_leaderboard", f"There is no leaderboard {slug!a} here.")
        return found

    def source(self, slug: str) -> Leaderboard:
        """The leaderboard of that slug, where submissions are handed in to it.

        Raises RealtimeError `unknown_leaderboard`, and `bad_message` for one that ranks another's.
        """
        found = self.leaderboard(slug)
        if not found.takes_submissions:
            raise RealtimeError(
                "bad_message", f"{slug} ranks what is handed in to {found.source_slug}: send it there."
            )
        return found

    def partition_of(self, source: int) -> str | None:
        """The partition of the boards that rank the submissions of a source; None where it is not known."""
        if source == DEFAULT.id:
            return DEFAULT.partition
        return next((one.partition for one in self.of_source(source)), None)

    def of_source(self, source: int) -> Sequence[Leaderboard]:
        """The leaderboards that rank the submissions of a source."""
        return self._of_source.get(source, ())

    def board_of(self, leaderboard: int, key: int) -> Board | None:
        """The board of a leaderboard's number and a window's; None where the window is not at hand."""
        return self._by_key.get((leaderboard, key))

    def of(self, leaderboard: Leaderboard, kind: str) -> Iterator[Window]:
        """The windows at hand of a leaderboard and a kind, in order of time."""
        return (window for window in self.windows.get(leaderboard.id, ()) if window.kind == kind)

    # What a name stands for ------------------------------------------------------------------------------------

    def resolve(self, text: object, now: datetime) -> Board:
        """The board that an id or an alias stands for at `now`.

        Raises RealtimeError `unknown_board`, also for a window that has not begun, and NotAtHand.
        """
        if not isinstance(text, str):
            raise no_such_board()
        slug, name = split_id(text)
        leaderboard = self.leaderboards.get(slug)
        if leaderboard is None:
            if not SLUG.fullmatch(slug):
                raise no_such_board()
            raise NotAtHand(None, slug, name)
        if leaderboard.id == DEFAULT.id and self.has_published and self._is_published(name):
            return self._as_defined(resolve(name, now))
        if not leaderboard.is_live:
            raise no_such_board(f"The boards of {slug} are being made.")
        for prefix in (CURRENT, PREVIOUS):
            if name.startswith(prefix):
                return self._of_alias(leaderboard, name.removeprefix(prefix), now, previous=prefix == PREVIOUS)
        return self._of_name(leaderboard, name, now)

    def _as_defined(self, board: Board) -> Board:
        """A published board with what this deployment has defined of `default`."""
        return board if board.leaderboard == self.default else Board(board.id, self.default, board.window)

    def _is_published(self, name: str) -> bool:
        if name in (ALWAYS.name, CURRENT_WEEK, PREVIOUS_WEEK) or name.startswith("week_of_"):
            return True
        return not any(kind not in PUBLISHED_KINDS for kind in self.default.definition.windows)

    def _of_alias(self, leaderboard: Leaderboard, kind: str, now: datetime, *, previous: bool) -> Board:
        kinds = leaderboard.definition.windows
        if kind not in kinds or kind == ALWAYS.kind:
            raise no_such_board(_has(leaderboard))
        begun = [window for window in self.of(leaderboard, kind) if window.starts is None or window.starts <= now]
        ended = [window for window in begun if window.ends is not None and window.ends <= now]
        running = begun[len(ended) :]
        found = ended[-1:] if previous else running
        if previous and kind != "season" and running:  # seasons lie apart, days do not
            found = [window for window in found if window.ends == running[0].starts]
        if not found:
            raise no_such_board(f"There is no {'previous' if previous else 'current'} {kind} of {leaderboard.slug}.")
        return board_in(leaderboard, found[0])

    def _of_name(self, leaderboard: Leaderboard, name: str, now: datetime) -> Board:
        try:
            said = read_name(name)
        except ValueError:
            raise no_such_board("That date is not in the calendar.") from None
        if said is None or said.kind not in leaderboard.definition.windows:
            raise no_such_board(_has(leaderboard))
        for window in self.windows.get(leaderboard.id, ()):
            if window.name == name:
                board = board_in(leaderboard, window)
                if not board.has_started(now):
                    raise no_such_board(f"That {window.kind} has not begun.")
                return board
        raise NotAtHand(leaderboard, leaderboard.slug, name)

    def edge_after(self, moment: datetime) -> datetime:
        """The first moment after `moment` at which an alias may stand for another board."""
        place = bisect_right(self._edges, moment)
        week = week_at(moment).ends or LAST
        return min(week, self._edges[place]) if place < len(self._edges) else week

    def now_called(self, board: Board) -> Board | None:
        """A board of an earlier catalogue as it is in this one; None where there is none of its id any more."""
        if board.is_published:
            return self._as_defined(board) if self.has_published else self._ranked(board)
        leaderboard = self.leaderboards.get(board.leaderboard.slug)
        if leaderboard is None or not leaderboard.is_live or board.window.kind not in leaderboard.definition.windows:
            return None
        return self.parse(board.id) or board_in(leaderboard, board.window)

    def _ranked(self, board: Board) -> Board:
        """What was a published board and is one of the rule by now; whoever reads one of long ago looks for its row."""
        return self.parse(board.id) or board_in(self.default, board.window._replace(key=-1))

    # Which boards are live -------------------------------------------------------------------------------------

    def live_boards(self, now: datetime) -> list[Board]:
        """The boards that scripts may write at `now`: those whose window has begun, and has not ended for longer than
        the grace."""
        return (live_boards(now) if self.has_published else []) + [
            board for board in self._by_key.values() if _is_shown(board) and _is_live(board.window, now)
        ]

    def current_boards(self, slug: str, now: datetime) -> list[Board]:
        """The boards of a leaderboard whose window holds `now`."""
        return [
            board
            for board in self.live_boards(now)
            if board.leaderboard.slug == slug and (board.ends is None or now < board.ends)
        ]

    def told_boards(self, now: datetime) -> list[Board]:
        """The boards that the store is told of at `now`: the live ones and the next of each kind; why the next, see
        `board.told_boards`."""
        return (told_boards(now) if self.has_published else []) + [
            board for board in self._by_key.values() if _is_shown(board) and not board.is_closed(now)
        ]

    def written_boards(self, now: datetime) -> list[Board]:
        """The boards that the store is told of at `now`, and those that stand beside them while standings are made."""
        return self.told_boards(now) + self._beside(now)

    def written_boards_of(self, sources: Collection[int], now: datetime) -> list[Board]:
        """Those of them that rank the submissions of these sources."""
        boards = [board for source in sources for board in self._boards_of_source.get(source, ())]
        told = [board for board in boards if _is_shown(board) and not board.is_closed(now)]
        if DEFAULT.id in sources and self.has_published:
            told += told_boards(now)
        return told + [board for board in self._beside(now) if board.leaderboard.source in sources]

    def _beside(self, now: datetime) -> list[Board]:
        return [
            in_the_making(board, making.leaderboard)
            for making in self.making.values()
            for board in making.boards
            if not board.is_closed(now)
        ]

    def parse(self, text: object) -> Board | None:
        """The board of an id, where it is at hand; None for anything else, and for an alias."""
        if not isinstance(text, str):
            return None
        slug, name = split_id(text)
        leaderboard = self.leaderboards.get(slug)
        if leaderboard is None:
            return None
        for window in self.windows.get(leaderboard.id, ()):
            if window.name == name:
                return board_in(leaderboard, window)
        try:
            return parse_board(name) if leaderboard.id == DEFAULT.id and self.has_published else None
        except RealtimeError:
            return None


def _are_ranked(windows: Iterable[Window]) -> bool:
    """Whether they are of a rule of `default` that has the boards of all time and of the weeks too."""
    return any(window.kind == ALWAYS.kind for window in windows)


def _has_rows(leaderboard: Leaderboard) -> bool:
    """Whether it has standings beside the published ones."""
    return leaderboard.id != DEFAULT.id or any(kind not in PUBLISHED_KINDS for kind in leaderboard.definition.windows)


def _is_shown(board: Board) -> bool:
    return board.leaderboard.is_live


def _is_live(window: Window, now: datetime) -> bool:
    begun = window.starts is None or window.starts <= now
    return begun and (window.ends is None or now < window.ends + CLOSE_GRACE)


def _has(leaderboard: Leaderboard) -> str:
    """What boards a leaderboard has, for who asked for one that it has not."""
    kinds = leaderboard.definition.windows
    names = [kind if kind == ALWAYS.kind else CURRENT + kind for kind in kinds]
    of = "" if leaderboard.slug == DEFAULT.slug else f"{leaderboard.slug}:"
    return f"There is no such board. {leaderboard.slug} has {', '.join(of + name for name in names)}."


PUBLISHED: Final = Catalogue()
"""What there is where nobody has defined anything."""


class Directory:
    """Which catalogue is current, for all who ask by names. This one knows nobody who knows more."""

    def __init__(self, current: Catalogue = PUBLISHED) -> None:
        self.current = current

    def resolve(self, text: object, now: datetime) -> Board:
        """See `Catalogue.resolve`."""
        return self.current.resolve(text, now)

    def edge_after(self, moment: datetime) -> datetime:
        """See `Catalogue.edge_after`."""
        return self.current.edge_after(moment)

    async def look_soon(self) -> None:
        """Something shows that there may be a newer catalogue: looks for it. Never raises."""

    async def find(self, text: object, now: datetime) -> Board:
        """The same as `resolve`, also of windows that are not at hand. Raises RealtimeError `unknown_board`."""
        return self.current.resolve(text, now)

    async def refresh(self) -> None:
        """Reads the catalogue anew, where there is more to know. Raises LedgerUnavailable."""
