"""Progress of a command, shown with rich on standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@contextmanager
def counting(unit: str) -> Iterator[Callable[[str, int], None]]:
    """Shows counts that grow towards an unknown end: call with a name and its count so far."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed} " + unit))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, count: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.update(tasks[name], completed=count)

        yield show


@contextmanager
def towards(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar towards `total`: call with the count so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.update(task, completed=count)
