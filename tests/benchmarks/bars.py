"""Bars: figures of a benchmark beside what they must be.

Owns the table of them. Must never round a figure to its bar. Assumes that each figure was found several times, and that
their median counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.benchmarks.harness import Table, median


class Line(NamedTuple):
    """One figure and its bar."""

    what: str
    bar: float
    found: Sequence[float]
    """By window; empty where it was not measured."""
    is_least: bool = False
    """Whether the figure must be at least the bar, not at most."""
    more: str = ""
    """What it is made of, or why it was not measured."""

    @property
    def holds(self) -> bool:
        """Whether it is as it must be."""
        figure = median(self.found)
        return figure >= self.bar if self.is_least else figure <= self.bar


def table_of(title: str, lines: Iterable[Line]) -> Table:
    """All of them."""
    table = Table(title, ("line", "median", "bar", "holds", "lowest", "highest", "more"))
    for line in lines:
        bar = f"{'at least' if line.is_least else 'at most'} {line.bar:,g}"
        if line.found:
            holds = "yes" if line.holds else "no"
            table.add(line.what, median(line.found), bar, holds, min(line.found), max(line.found), line.more)
        else:
            table.add(line.what, "not measured", bar, "", "", "", line.more)
    return table


def ratios(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Of windows side by side."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]
