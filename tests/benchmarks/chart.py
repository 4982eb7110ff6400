"""The chart of the fan-out: `python -m tests.benchmarks chart`, from the results of the last run of `fanout`.

Owns the README's chart. Must never measure. Its colours are the pages' own, and follow the reader's scheme, light or
dark, on a ground of its own: it can be read on any page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

CHART = Path(__file__).parents[2] / "web/docs/pictures/fanout.svg"

WIDTH, ROW, EDGE = 760, 28, 16
NAMES, VALUES = 310, 48
"""Room for the names at the left and the figures at the right; the bars have what is between."""

STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: #14211b }
.title, .ours { font-weight: 700 } .value { font-variant-numeric: tabular-nums }
.ground { fill: #ffffff } rect.bar { fill: #7ba18e } rect.bar.ours { fill: #0b6847 }
@media (prefers-color-scheme: dark) {
text { fill: #e9f0eb } .ground { fill: #0f1a16 } rect.bar { fill: #3f6f5b } rect.bar.ours { fill: #7fd3ae } }
"""


class Bar(NamedTuple):
    """One row: who, how much, and whether it is us."""

    name: str
    value: float
    ours: bool


def svg(title: str, bars: Sequence[Bar]) -> str:
    """A chart of horizontal bars in the order given, each with its figure."""
    height = 2 * EDGE + ROW * (len(bars) + 1)
    longest = max(bar.value for bar in bars)
    room = WIDTH - 2 * EDGE - NAMES - VALUES
    said = "; ".join(f"{bar.name}: {bar.value:.2f}" for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(said)}</desc><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="4"/>',
        f'<text class="title" x="{EDGE}" y="{EDGE + 14}">{escape(title)}</text>',
    ]
    for place, bar in enumerate(bars, 1):
        top, long = EDGE + place * ROW, bar.value / longest * room
        kind = " ours" if bar.ours else ""
        lines += [
            f'<text class="name{kind}" x="{EDGE}" y="{top + 19}">{escape(bar.name)}</text>',
            f'<rect class="bar{kind}" x="{EDGE + NAMES}" y="{top + 5}" width="{long:.1f}" height="{ROW - 10}" rx="3"/>',
            f'<text class="value{kind}" x="{EDGE + NAMES + long + 6:.1f}" y="{top + 19}">{bar.value:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def draw(results: Path, chart: Path = CHART) -> None:
    """Draws the chart anew. Raises SystemExit where the fan-out was not measured."""
    tables = json.loads(results.read_text())["tables"] if results.is_file() else []
    rows = next((table["rows"] for table in tables if table["benchmark"] == "fanout"), None)
    if rows is None:
        raise SystemExit(f"{results.name} has no figures of the fan-out: run `python -m tests.benchmarks fanout` first")
    measured = [Bar(str(row[0]), float(row[2]), str(row[0]).startswith("realtime")) for row in rows if row[2] != ""]
    chart.write_text(svg("Server CPU a delivery, bare C loop over send() = 1", measured))
