"""A recording: what a batch came to, however many statements that took.

Owns the outcomes, and one row for each user on a board: a batch cut in halves meets a user twice, and a script that is
told both would compare both with what it read before either. Must never tell anybody. Assumes that statements are taken
over in the order in which they ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from realtime.boards.board import Board
from realtime.boards.catalogue import PUBLISHED, Catalogue
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Outcome, Submission
from realtime.intake.outcomes import out_of_range, outcome_of, refused
from realtime.ledger.recorded import AGAIN, KNOWN

if TYPE_CHECKING:
    from realtime.errors import RowRefused
    from realtime.ledger.recorded import Recorded


class Recording:
    """What one batch came to: an outcome for each submission, and what the store must hear."""

    def __init__(self, catalogue: Catalogue = PUBLISHED) -> None:
        self.catalogue = catalogue
        """The one that it was recorded by last."""
        self.outcomes: list[tuple[Submission, Outcome]] = []
        self.held: list[Submission] = []
        """What has no outcome: somebody else's lock is in its way."""
        self.profiles: list[Profile] = []
        self.outbox: dict[str, list[int]] = {}
        """Rows of the outbox by the partition that they are for."""
        self.refusals: list[RowRefused] = []
        """What PostgreSQL said of submissions that nothing here expects to be refused."""
        self.closed: list[Board] = []
        """Boards that are over by PostgreSQL's word, and that the batch changed: what is kept of them is to follow."""
        self._rows: dict[Board, dict[int, Row]] = {}
        self._new_to: set[int] = set()  # sources in which somebody is new

    @property
    def rows(self) -> dict[Board, list[Row]]:
        """By board, the newest row of each user whom the batch changed there."""
        return {board: list(rows.values()) for board, rows in self._rows.items()}

    @property
    def user_ids(self) -> list[int]:
        """Users whom the batch changed anywhere."""
        return list({user_id: None for rows in self._rows.values() for user_id in rows})

    def live_rows(self, now: datetime) -> dict[Board, Sequence[Row]]:
        """What the store must hear: the rows of boards that are live."""
        rows: dict[Board, Sequence[Row]] = {b: of for b, of in self.rows.items() if not b.is_closed(now)}
        if self._new_to:  # boards may show a new player by now, told by somebody who had no name for them
            rows = dict.fromkeys(self.catalogue.written_boards_of(self._new_to, now), ()) | rows
        return rows

    def take(self, batch: Sequence[Submission], recorded: Recorded) -> tuple[list[Submission], list[Submission]]:
        """Takes over what a statement came to; returns the submissions that are recorded already, or that met a twin,
        and those that are to be recorded again."""
        known: list[Submission] = []
        again: list[Submission] = []
        for submission, judged in zip(batch, recorded.judged, strict=True):
            if judged.outcome == KNOWN:
                known.append(submission)
            elif judged.outcome == AGAIN:
                again.append(submission)
            else:
                self.outcomes.append((submission, outcome_of(submission, *judged)))
        for board, rows in recorded.rows.items():
            if self._rows.setdefault(board, rows) is not rows:
                self._rows[board] |= rows
        self.profiles += recorded.profiles
        self._new_to |= recorded.new_to
        for outbox_id, partition in recorded.outbox:
            self.outbox.setdefault(partition, []).append(outbox_id)
        self.closed += [board for board in recorded.closed if board not in self.closed]
        return known, again

    def refuse(self, submission: Submission, error: RowRefused) -> None:
        """Takes over what PostgreSQL said of one submission alone."""
        if error.out_of_range:
            self.outcomes.append((submission, out_of_range(submission)))
            return
        self.refusals.append(error)
        self.outcomes.append((submission, refused(submission, for_good=error.for_good)))
