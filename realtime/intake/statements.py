"""Statements: a batch, whatever is in it -> the one statement that records it.

Owns which statement that is: what counts on the published boards alone has one of its own, any mixture the general one.
Must never record what the catalogue of the moment does not know, or ask twice whether a catalogue has other boards.
Assumes that no triple of leaderboard, user and submission id is twice in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol

from realtime.boards.catalogue import Catalogue, Directory
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.submissions import Submission
from realtime.intake.told import Told
from realtime.ledger.recorded import Judged, Recorded

if TYPE_CHECKING:
    from realtime.ledger.recorded import Cleared


class Ledger(Protocol):
    """The two statements."""

    async def record_batch(
        self,
        batch: Sequence[Submission],
        cleared: Sequence[int],
        *,
        told: str | None,
        around: bool,
        revision: int | None,
    ) -> Recorded: ...
    async def record_scores(
        self, batch: Sequence[Submission], catalogue: Catalogue, cleared: Sequence[Cleared], *, around: bool
    ) -> Recorded: ...


class Statements:
    """Records batches through one ledger; with each go the rows of the outbox that were `told`.

    Without a `directory` nobody knows of other leaderboards: batches are recorded whatever the catalogue's revision is.
    """

    def __init__(self, ledger: Ledger, told: Told, directory: Directory | None) -> None:
        self._ledger = ledger
        self._told = told
        self._is_fenced = directory is not None
        self._last: tuple[Catalogue, bool] | None = None  # whether a catalogue has published boards alone

    async def record(self, batch: Sequence[Submission], catalogue: Catalogue, *, around: bool) -> Recorded:
        """Records a batch by a catalogue. Raises what the statements of `Ledger` raise: then nothing was recorded."""
        if self._counts_on_published_alone(batch, catalogue):
            with self._told.taken(_PUBLISHED) as taken:
                _, told, ids = taken[0] if taken else ("", None, ())
                revision = catalogue.revision if self._is_fenced else None
                return await self._ledger.record_batch(batch, ids, told=told, around=around, revision=revision)
        slugs = {submission.leaderboard for submission in batch}
        takers = {slug for slug in slugs if (one := catalogue.leaderboards.get(slug)) and one.takes_submissions}
        if takers == slugs:
            return await self._mixture(batch, catalogue, around)
        taken_on = [submission for submission in batch if submission.leaderboard in takers]
        recorded = await self._mixture(taken_on, catalogue, around) if taken_on else Recorded()
        judged = iter(recorded.judged)
        recorded.judged = [next(judged) if one.leaderboard in takers else Judged("removed") for one in batch]
        return recorded

    async def _mixture(self, batch: Sequence[Submission], catalogue: Catalogue, around: bool) -> Recorded:
        with self._told.taken(self._told.partitions) as taken:
            return await self._ledger.record_scores(batch, catalogue, taken, around=around)

    def _counts_on_published_alone(self, batch: Sequence[Submission], catalogue: Catalogue) -> bool:
        """Whether all of it counts there, and asks for nothing else."""
        if self._last is None or self._last[0] is not catalogue:
            self._last = catalogue, catalogue.is_published_alone
        return self._last[1] and all(map(_PUBLISHED_ALONE.__eq__, map(_BEYOND_PUBLISHED, batch)))


_PUBLISHED: Final = ("",)
"""The partition of the published content."""

_PUBLISHED_ALONE: Final = (DEFAULT.slug, None, None, False)
"""The leaderboard, metadata, window and question of a submission that the published system knows."""

_BEYOND_PUBLISHED: Final = itemgetter(slice(5, None))
"""The same four of any submission."""
