"""Progress of a command, shown with rich on standard error, so that standard output stays for results.

Owns how it looks. Must never wrap or colour a message: those stand one a line, above the bars. Assumes that what moves
is told often; where standard error is no terminal, only the end is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bars:
    """Named bars; each appears when it is first told of."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int | None = None, note: str = "") -> None:
        """Where `name` has got to, of `total` where the end is known."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note)
        self._progress.update(self._tasks[name], completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        """One line for people, above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bars(*columns: ProgressColumn) -> Iterator[Bars]:
    """Bars of these columns behind the name, for the block."""
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)


@contextmanager
def counting(unit: str) -> Iterator[Callable[[str, int], None]]:
    """Shows counts that grow towards an unknown end: call with a name and its count so far."""
    with bars(SpinnerColumn(), TextColumn("{task.completed} " + unit), TimeElapsedColumn()) as shown:
        yield shown.show


@contextmanager
def shares() -> Iterator[Bars]:
    """Bars in per cent, with a note and the time that is left."""
    note = TextColumn("{task.fields[note]}")
    with bars(BarColumn(), TaskProgressColumn(), note, TimeElapsedColumn(), TimeRemainingColumn()) as shown:
        yield shown


@contextmanager
def towards() -> Iterator[Bars]:
    """Counts towards a total, or without an end, with a note."""
    note = TextColumn("{task.fields[note]}")
    with bars(BarColumn(), MofNCompleteColumn(), note, TimeElapsedColumn()) as shown:
        yield shown
