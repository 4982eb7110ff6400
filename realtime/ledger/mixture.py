"""Mixtures: what the statement `record_scores` is given, and what it says of each submission, of any leaderboard.

Owns the shape of its arguments and of its one row. Must never ask PostgreSQL anything. Assumes the lists that
sql/queries/scores.sql names, those of one thing in the same order, and that the catalogue is of the revision that the
statement was given: then every window that is not over is known, and the statement names the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from realtime.boards.board import ALL_TIME, Board, board_in, week_at, week_of
from realtime.boards.catalogue import Catalogue
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.making import in_the_making
from realtime.boards.standings import Profile, Row
from realtime.boards.windows import Window
from realtime.ledger.recorded import ACCEPTED, AGAIN, KNOWN, Judged, Recorded

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.submissions import Span, Submission

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Place(NamedTuple):
    """What submissions of a batch share: the source, the moment, and the window that they are to be recorded in."""

    source: int
    moment: datetime | None
    within: Span | None


class Columns:
    """A batch as the lists that the statement takes. Every leaderboard in it must be one that takes submissions."""

    def __init__(self, batch: Sequence[Submission], catalogue: Catalogue) -> None:
        leaderboards = catalogue.leaderboards
        places: dict[_Place, int] = {}
        self.at = [
            places.setdefault(_Place(leaderboards[one.leaderboard].source, one.created_at, one.within), len(places) + 1)
            for one in batch
        ]
        """The place of each submission in the lists of places, from 1."""
        self.places = list(places)
        self._batch = batch

    @property
    def args(self) -> list[Any]:
        """The first ten arguments."""
        user_ids, submission_ids, scores, reasons, _, _, metadata, *_ = (
            list(of) for of in zip(*self._batch, strict=True)
        )
        places = self.places
        return [
            user_ids, submission_ids, scores, reasons, metadata, self.at,
            [place.source for place in places], [place.moment for place in places],
            [place.within and place.within.starts for place in places],
            [place.within and place.within.ends for place in places],
        ]  # fmt: skip


def as_recorded(batch: Sequence[Submission], catalogue: Catalogue) -> list[Any]:
    """A batch as the lists that `recorded_scores` takes."""
    user_ids, submission_ids, scores, reasons, moments, _, metadata, *_ = (list(of) for of in zip(*batch, strict=True))
    sources = [catalogue.leaderboards[one.leaderboard].source for one in batch]
    return [user_ids, submission_ids, scores, reasons, metadata, moments, sources]


def cleared_columns(cleared: Iterable[tuple[str, str | None, Sequence[int]]]) -> list[Any]:
    """Rows of the outbox, as in `Cleared`, as the lists that the statement takes."""
    every = [(row, partition, epoch) for partition, epoch, ids in cleared for row in ids]
    return [[one[place] for one in every] for place in range(3)]


def judged_of_recorded(
    batch: Sequence[Submission], rows: Sequence[asyncpg.Record], catalogue: Catalogue
) -> list[Judged]:
    """What `recorded_scores` says of each submission."""
    by_id = {leaderboard.id: leaderboard for leaderboard in catalogue.leaderboards.values()}
    judged: list[Judged] = []
    for one, row in zip(batch, rows, strict=True):
        own = catalogue.leaderboards[one.leaderboard]
        scores: dict[str, int] | None = None
        improved: bool | None = None
        if row["outcome"] == "duplicate" and is_told(one):
            scores = _published_scores(own, row["total_score"], row["week_score"], None)
            improved = _always_counts(own)
            for number, name, score, at_id in _lists(row, "leaderboards", "names", "scores", "at_ids"):
                leaderboard = by_id.get(number)
                if leaderboard is not None and (leaderboard is own or one.with_all):
                    scores[_id(leaderboard, name)] = score
                    improved = improved or (leaderboard is own and at_id == row["id"])
        judged.append(Judged(row["outcome"], row["total_score"], row["week_score"], scores, improved))
    return judged


def is_told(one: Submission) -> bool:
    """Whether the outcome names scores by board: of `default` only where all were asked for."""
    return one.with_all or one.leaderboard != DEFAULT.slug


def _id(leaderboard: Leaderboard, name: str) -> str:
    return name if leaderboard.slug == DEFAULT.slug else f"{leaderboard.slug}:{name}"


def _always_counts(leaderboard: Leaderboard) -> bool:
    """Whether every submission is a counting one."""
    return leaderboard.definition.operator in ("sum", "count")


def _published_scores(own: Leaderboard, total: int | None, of_week: int | None, week: Board | None) -> dict[str, int]:
    """The scores of default's published boards, where `own` is that."""
    scores: dict[str, int] = {}
    if own.id == DEFAULT.id:
        if total is not None:
            scores[ALL_TIME.id] = total
        if week is not None and of_week is not None:
            scores[week.id] = of_week
    return scores


class Assembly:
    """Puts together what the lists of `record_scores` say of a batch."""

    def __init__(
        self, batch: Sequence[Submission], columns: Columns, row: asyncpg.Record, catalogue: Catalogue
    ) -> None:
        self._batch = batch
        self._columns = columns
        self._row = row
        self._catalogue = catalogue
        self._shown = {one.rule: one for one in catalogue.leaderboards.values() if one.rule is not None}
        self._partitions = {one.source: one.partition for one in catalogue.leaderboards.values()}
        self._windows = {
            (number, window): Window(kind, name, starts, ends, window)
            for number, window, kind, name, starts, ends in _lists(
                row, "over_leaderboards", "over_windows", "over_kinds", "over_names", "over_starts", "over_ends"
            )
        }
        self._boards: dict[tuple[int, int], Board | None] = {}  # by rule and window
        self._moments = [_EPOCH + timedelta(microseconds=micros) for micros in row["moments"] or ()]

    def recorded(self) -> Recorded:
        """All of it."""
        row = self._row
        recorded = Recorded()
        totals = self._published(recorded)
        rows = self._others(recorded)
        for number, key in self._windows:
            for leaderboard in self._shown.values():
                if leaderboard.id == number and (board := self._board(leaderboard.rule or 0, key)) is not None:
                    recorded.closed.append(board)
        recorded.closed += map(week_of, row["closed_weeks"] or ())
        seen: set[int] = set()
        for user_id, username, version in _lists(row, "new_users", "usernames", "user_versions"):
            if user_id not in seen:
                seen.add(user_id)
                recorded.profiles.append(Profile(user_id, version, username))
        for outbox_id, source in _lists(row, "outbox_ids", "outbox_sources"):
            recorded.outbox.append((outbox_id, self._partitions.get(source, "")))
        recorded.judged = self._judged(totals, rows)
        return recorded

    def _published(self, recorded: Recorded) -> tuple[Mapping[int, int], Mapping[tuple[int, Board], int]]:
        """The rows of default's published boards; the total by user, and the week's score by user and board."""
        row = self._row
        hidden: set[int] = set()
        totals: dict[int, int] = {}
        for user_id, total, version, is_hidden in _lists(row, "users", "totals", "versions", "hidden"):
            totals[user_id] = total
            if is_hidden:
                hidden.add(user_id)
            recorded.rows.setdefault(ALL_TIME, {})[user_id] = Row(user_id, version, None if is_hidden else total)
        weeks: dict[tuple[int, Board], int] = {}
        for user_id, week, score, version in _lists(row, "week_users", "weeks", "week_scores", "week_versions"):
            board = week_of(week)
            weeks[user_id, board] = score
            recorded.rows.setdefault(board, {})[user_id] = Row(user_id, version, None if user_id in hidden else score)
        return totals, weeks

    def _others(self, recorded: Recorded) -> dict[tuple[int, int], list[tuple[Board, Row]]]:
        """The rows of all other boards; by rule and user, as the ledger has them."""
        row = self._row
        hidden = {user_id for user_id, is_hidden in _lists(row, "users", "hidden") if is_hidden}
        barred = set(_lists(row, "barred_sources", "barred_users", "barred_on"))
        found: dict[tuple[int, int], list[tuple[Board, Row]]] = {}
        names = "rules", "windows", "row_users", "scores", "row_versions", "row_at", "row_at_ids", "row_metadata"
        for rule, key, user_id, score, version, at, at_id, metadata in _lists(row, *names):
            board = self._board(rule, key)
            if board is None:
                continue
            one = Row(user_id, version, score, (at, at_id), metadata)
            found.setdefault((rule, user_id), []).append((board, one))
            source = board.leaderboard.source
            is_hidden = (source, user_id, board.leaderboard.id) in barred if barred else False
            if is_hidden or (source == DEFAULT.id and user_id in hidden):
                one = Row(user_id, version, None)
            recorded.rows.setdefault(board, {})[user_id] = one
        return found

    def _board(self, rule: int, key: int) -> Board | None:
        """The board of a rule in a window: of one that is being made, the one beside what is shown."""
        if (rule, key) not in self._boards:
            self._boards[rule, key] = self._found(rule, key)
        return self._boards[rule, key]

    def _found(self, rule: int, key: int) -> Board | None:
        shown, making = self._shown.get(rule), self._catalogue.making.get(rule)
        if shown is not None:
            known = self._catalogue.board_of(shown.id, key)
            window = self._windows.get((shown.id, key))
            return board_in(shown, window) if known is None and window is not None else known
        if making is None:
            return None
        made = making.leaderboard
        window = next((one for one in making.windows if one.key == key), self._windows.get((made.id, key)))
        return None if window is None else in_the_making(board_in(made, window), made)

    def _judged(
        self,
        published: tuple[Mapping[int, int], Mapping[tuple[int, Board], int]],
        rows: Mapping[tuple[int, int], list[tuple[Board, Row]]],
    ) -> list[Judged]:
        row = self._row
        verdicts = dict(_lists(row, "ords", "verdicts"))
        ids = dict(_lists(row, "new_ords", "new_ids"))
        twins = frozenset(row["twins"] or ())
        totals, weeks = published
        of_source: dict[int, list[int]] = {}
        for rule, leaderboard in self._shown.items():
            of_source.setdefault(leaderboard.source, []).append(rule)
        judged: list[Judged] = []
        for ord_, one in enumerate(self._batch, 1):
            if ord_ in twins or verdicts.get(ord_) == "duplicate":
                judged.append(Judged(KNOWN))
            elif ord_ in verdicts:
                judged.append(Judged(verdicts[ord_]))
            elif ord_ not in ids:
                judged.append(Judged(AGAIN))
            else:
                own = self._catalogue.leaderboards[one.leaderboard]
                moment = self._moments[self._columns.at[ord_ - 1] - 1]
                total = week_score = None
                week: Board | None = None
                if own.id == DEFAULT.id:
                    week = week_at(moment)
                    total, week_score = totals.get(one.user_id), weeks.get((one.user_id, week))
                if not is_told(one):
                    judged.append(Judged(ACCEPTED, total, week_score))
                    continue
                scores = _published_scores(own, total, week_score, week)
                improved = _always_counts(own)
                shown = of_source.get(own.source, ()) if one.with_all else (() if own.rule is None else (own.rule,))
                for rule in shown:
                    for board, known in rows.get((rule, one.user_id), ()):
                        if _holds(board.window, moment) and known.score is not None:
                            scores[board.id] = known.score
                            if rule == own.rule and known.at is not None and known.at[1] == ids[ord_]:
                                improved = True
                judged.append(Judged(ACCEPTED, total, week_score, scores, improved))
        return judged


def _holds(window: Window, moment: datetime) -> bool:
    return (window.starts is None or window.starts <= moment) and (window.ends is None or moment < window.ends)


def _lists(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)
