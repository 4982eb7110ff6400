"""Demo: some weeks of scores for a board that nobody has played on yet, and a pace at which it goes on.

Owns what is invented: the same day brings the same scores, however often it is asked for. Must never be played on
anything but a development instance. Assumes that whoever imports the history counts each id once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from random import Random
from typing import Final

from realtime.dev.simulation import Play, invented
from realtime.intake.score_file import FileRow

DAYS: Final = 24
"""Days of history, so that there are closed weeks to look at."""

PLAYERS: Final = 120

SCORES_A_DAY: Final = 160

RATE: Final = 3.0
"""Scores a second from now on: one sees each of them move."""


EAGER: Final = 1.4
"""How much more some play than others: enough for a leader, too little for one that nobody can reach."""


def plays(random: Random) -> Iterator[Play]:
    """Endless scores."""
    return invented(PLAYERS, random, eager=EAGER)


def history(now: datetime) -> Iterator[FileRow]:
    """Scores of every day that has ended, and of today up to `now`, oldest first."""
    line = 1
    for ago in range(DAYS, -1, -1):
        day = (now - timedelta(days=ago)).date()
        random = Random(day.toordinal())  # noqa: S311  # no secret: the same day brings the same scores
        start = datetime.combine(day, time(), UTC)
        moments = sorted(random.uniform(0, 86_400) for _ in range(SCORES_A_DAY))
        scores = islice(plays(random), SCORES_A_DAY)
        for number, (seconds, play) in enumerate(zip(moments, scores, strict=True)):
            moment = start + timedelta(seconds=seconds)
            if moment >= now:
                return
            line += 1
            yield FileRow(line, play.player, f"demo-{day:%Y%m%d}-{number}", play.score, "demo", moment)
