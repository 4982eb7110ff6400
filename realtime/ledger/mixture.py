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
from realtime.boards.windows import Window, monday_of
from realtime.ledger.batch import Published, published
from realtime.ledger.recorded import ACCEPTED, AGAIN, KNOWN, Judged, Recorded

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.submissions import Span, Submission

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Columns:
    """A batch as the lists that the statement takes. Every leaderboard in it must be one that takes submissions.

    Submissions share a place that are of one leaderboard and one moment, and are to be recorded in one window.
    """

    def __init__(self, batch: Sequence[Submission], catalogue: Catalogue) -> None:
        self._batch = batch
        self._catalogue = catalogue
        self.places: dict[tuple[str, datetime | None, Span | None], int] = {}
        """Their leaderboard, moment and window, with their number, from 1."""
        self.at: list[int] = []
        """The place of each submission."""
        for one in batch:
            place = one.leaderboard, one.created_at, one.within
            number = self.places.get(place)
            if number is None:
                number = self.places[place] = len(self.places) + 1
            self.at.append(number)

    @property
    def args(self) -> list[Any]:
        """The first ten arguments."""
        user_ids, submission_ids, scores, reasons, _, _, metadata, *_ = (
            list(of) for of in zip(*self._batch, strict=True)
        )
        leaderboards = self._catalogue.leaderboards
        return [
            user_ids, submission_ids, scores, reasons, metadata, self.at,
            [leaderboards[slug].source for slug, _, _ in self.places],
            [moment for _, moment, _ in self.places],
            [within and within.starts for _, _, within in self.places],
            [within and within.ends for _, _, within in self.places],
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


class _At(NamedTuple):
    """What submissions of one place have in common."""

    leaderboard: Leaderboard
    moment: datetime


class Assembly:
    """Puts together what the lists of `record_scores` say of a batch."""

    def __init__(
        self, batch: Sequence[Submission], columns: Columns, row: asyncpg.Record, catalogue: Catalogue
    ) -> None:
        self._batch = batch
        self._columns = columns
        self._row = row
        self._catalogue = catalogue
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
        of_default = published(row, recorded)
        closed = [week_of(monday) for monday in row["closed_weeks"] or ()]
        if not self._catalogue.has_published:  # its boards are told by the rows of its rule
            recorded.rows.clear()
            closed.clear()
        by_rule = self._others(recorded)
        for number, key in self._windows:
            for leaderboard in self._catalogue.shown.values():
                if leaderboard.id == number and (board := self._board(leaderboard.rule or 0, key)) is not None:
                    recorded.closed.append(board)
        recorded.closed += closed
        seen: set[int] = set()
        for source, user_id, username, version in _lists(row, "new_sources", "new_users", "usernames", "user_versions"):
            recorded.new_to.add(source)
            if user_id not in seen:
                seen.add(user_id)
                recorded.profiles.append(Profile(user_id, version, username))
        for outbox_id, source in _lists(row, "outbox_ids", "outbox_sources"):
            recorded.outbox.append((outbox_id, self._catalogue.partition_of(source) or ""))
        recorded.judged = self._judged(of_default, by_rule)
        return recorded

    def _others(self, recorded: Recorded) -> dict[int, list[tuple[Board, dict[int, Row]]]]:
        """The rows of all other boards; by rule, board and user id as the ledger has them."""
        row = self._row
        found: dict[tuple[int, int], dict[int, Row]] = {}
        names = "rules", "windows", "row_users", "scores", "row_versions", "row_at", "row_at_ids", "row_metadata"
        for rule, key, user_id, score, version, at, at_id, metadata in _lists(row, *names):
            of_board = found.get((rule, key))
            if of_board is None:
                of_board = found[rule, key] = {}
            of_board[user_id] = Row(user_id, version, score, (at, at_id), metadata)
        hidden = {(DEFAULT.id, user_id) for user_id, is_hidden in _lists(row, "users", "hidden") if is_hidden}
        barred = set(_lists(row, "barred_sources", "barred_users", "barred_on"))
        by_rule: dict[int, list[tuple[Board, dict[int, Row]]]] = {}
        for (rule, key), of_board in found.items():
            board = self._board(rule, key)
            if board is None:
                continue
            by_rule.setdefault(rule, []).append((board, of_board))
            recorded.rows[board] = of_board
            if hidden or barred:
                source, number = board.leaderboard.source, board.leaderboard.id
                recorded.rows[board] = {
                    user_id: Row(user_id, one.version, None)
                    if (source, user_id) in hidden or (source, user_id, number) in barred
                    else one
                    for user_id, one in of_board.items()
                }
        return by_rule

    def _board(self, rule: int, key: int) -> Board | None:
        """The board of a rule in a window: of one that is being made, the one beside what is shown."""
        if (rule, key) not in self._boards:
            self._boards[rule, key] = self._found(rule, key)
        return self._boards[rule, key]

    def _found(self, rule: int, key: int) -> Board | None:
        shown, making = self._catalogue.shown.get(rule), self._catalogue.making.get(rule)
        if shown is not None:
            known = self._catalogue.board_of(shown.id, key)
            window = self._windows.get((shown.id, key))
            return board_in(shown, window) if known is None and window is not None else known
        if making is None:
            return None
        made = making.leaderboard
        window = next((one for one in making.windows if one.key == key), self._windows.get((made.id, key)))
        return None if window is None else in_the_making(board_in(made, window), made)

    def _judged(self, of_default: Published, by_rule: Mapping[int, list[tuple[Board, dict[int, Row]]]]) -> list[Judged]:
        row = self._row
        verdicts = dict(_lists(row, "ords", "verdicts"))
        ids = dict(_lists(row, "new_ords", "new_ids"))
        twins = frozenset(row["twins"] or ())
        places = [
            _At(self._catalogue.leaderboards[slug], moment)
            for (slug, _, _), moment in zip(self._columns.places, self._moments, strict=True)
        ]
        counting: dict[tuple[int, bool], list[tuple[str, dict[int, Row], bool]]] = {}
        judged: list[Judged] = []
        for ord_, (one, number) in enumerate(zip(self._batch, self._columns.at, strict=True), 1):
            number_of_transaction = ids.get(ord_)
            if ord_ in verdicts:
                verdict = verdicts[ord_]
                judged.append(Judged(KNOWN if verdict == "duplicate" else verdict))
            elif ord_ in twins:
                judged.append(Judged(KNOWN))
            elif number_of_transaction is None:
                judged.append(Judged(AGAIN))
            else:
                own, moment = places[number - 1]
                total = week_score = None
                week: Board | None = None
                if own.id == DEFAULT.id:
                    week = week_at(moment)
                    total, week_score = of_default.scores(one.user_id, monday_of(moment))
                if not is_told(one):
                    judged.append(Judged(ACCEPTED, total, week_score))
                    continue
                scores = _published_scores(own, total, week_score, week)
                improved = _always_counts(own)
                boards = counting.get((number, one.with_all))
                if boards is None:
                    boards = counting[number, one.with_all] = self._counting(own, moment, one.with_all, by_rule)
                for board_id, of_board, is_own in boards:
                    known = of_board.get(one.user_id)
                    if known is not None and known.score is not None:
                        scores[board_id] = known.score
                        if is_own and known.at is not None and known.at[1] == number_of_transaction:
                            improved = True
                judged.append(Judged(ACCEPTED, total, week_score, scores, improved))
        return judged

    def _counting(
        self,
        own: Leaderboard,
        moment: datetime,
        with_all: bool,
        by_rule: Mapping[int, list[tuple[Board, dict[int, Row]]]],
    ) -> list[tuple[str, dict[int, Row], bool]]:
        """The boards that a submission of a moment counts on and its outcome names: the id, the rows, and whether it is
        one of the leaderboard that it was handed in to."""
        told = self._catalogue.of_source(own.source) if with_all else (own,)
        return [
            (board.id, rows, one is own)
            for one in told
            if one.rule is not None
            for board, rows in by_rule.get(one.rule, ())
            if _holds(board.window, moment)
        ]


def _holds(window: Window, moment: datetime) -> bool:
    return (window.starts is None or window.starts <= moment) and (window.ends is None or moment < window.ends)


def _lists(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)
