"""Progress: a standby's delay, told by what the primary had written and when."""

from __future__ import annotations

from realtime.ledger.progress import KEPT, Progress


def test_a_standby_is_as_far_behind_as_the_last_moment_of_which_it_has_everything() -> None:
    progress = Progress()
    assert progress.lag(100, 1.0) is None, "nobody has asked the primary"
    for second in range(10):
        progress.take(1_000 + 100 * second, float(second))
    assert progress.lag(1_900, 9.5) == 0.5
    assert progress.lag(99_999, 9.5) == 0.5, "nobody knows what came since"
    assert progress.lag(1_899, 9.5) == 1.5
    assert progress.lag(1_000, 9.5) == 9.5
    assert progress.lag(999, 9.5) is None


def test_an_idle_primary_leaves_nobody_behind_and_one_that_is_away_leaves_everybody() -> None:
    progress = Progress()
    for second in range(100):
        progress.take(500, float(second))
    assert progress.lag(500, 99.2) < 1.0  # type: ignore[operator]
    assert progress.lag(500, 160.0) == 61.0


def test_what_is_remembered_is_bounded_and_ends_with_another_primary() -> None:
    progress = Progress()
    for second in range(KEPT + 10):
        progress.take(second, float(second))
    assert progress.lag(9, 1e6) is None and progress.lag(10, 1e3) == 990.0
    progress.forget()
    assert progress.lag(10**9, 1e3) is None
