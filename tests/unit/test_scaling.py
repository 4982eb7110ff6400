"""The page on scaling against the arithmetic: each number is what the figures above it come to."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import pytest

from tests.benchmarks import capacity, plan

PAGE = capacity.PAGE.read_text(encoding="utf-8")
COSTS = capacity.costs_of(PAGE)


def test_the_page_has_every_figure_and_every_number_that_follows_from_them() -> None:
    assert set(capacity.WORDS) == set(plan.NAMES)
    assert capacity.rows_of(COSTS) in PAGE
    assert capacity.plan_of(COSTS) in PAGE
    assert len(re.findall(r'<th colspan="3" scope="rowgroup">', PAGE)) == len(plan.VIEWERS) * len(plan.RATES) + 4


def test_what_a_machine_is_stands_on_the_page() -> None:
    assert f"{plan.CORES} cores, {plan.MEMORY_GB} GB and {plan.NETWORK_GBIT} Gbit/s" in PAGE
    assert plan.HALF == 0.5 and "filled to one half of each" in PAGE


@pytest.mark.parametrize("name", plan.NAMES)
def test_each_figure_counts(name: str) -> None:
    """A figure that changed nothing would be there for show, or the arithmetic would have forgotten it."""
    dearer = dataclasses.replace(COSTS, **{name: 3 * getattr(COSTS, name)})
    both = zip(plan.everything(dearer), plan.everything(COSTS), strict=True)
    assert [now.what for now, then in both if now.value != then.value]


def test_machines_are_what_the_scarcest_of_three_needs() -> None:
    assert plan.machines() == 1
    assert plan.machines(cores=8) == 1
    assert plan.machines(cores=8.1) == 2
    assert plan.machines(cores=8, memory_gb=320.0, gbit=5) == 10
    assert plan.machines(cores=8, memory_gb=32, gbit=51) == 11


def test_the_arithmetic_by_hand() -> None:
    """10,000,000 viewers at 4 diffs a second, with round figures."""
    costs = plan.Costs(**{
        **dict.fromkeys(plan.NAMES, 1.0), "delivery_us": 5.0, "change_server_us": 0.0, "diff_bytes": 148.0,
        "viewer_kib": 6.0, "kernel_kib": 10.0, "connection_us": 200.0, "change_store_us": 100.0,
        "process_store_us": 1_000.0,
    })  # fmt: skip
    found = {number.what: number.value for number in plan.of_viewers(costs, 10_000_000, 4)}
    assert found["cores busy with it"] == "200"  # 40,000,000 deliveries of 5 us
    assert found["network"] == "64 Gbit/s"  # of 148 + 52 bytes
    assert found["memory"] == "153 GB"  # 16 KiB each
    assert found["serving machines"] == "25"  # 200 cores, half filled, 16 each
    assert found["serving processes"] == "400"
    assert found["of one core of the store"] == "56 %"  # 400 x (4 x 100 us + 1 ms)
    assert found["seconds until all are back when a machine dies"] == "0.42"  # 400,000 x 200 us on 24 x 8 cores
    costly = dataclasses.replace(costs, change_server_us=25_000.0)  # a fifth of what a process may spend on a diff
    found = {number.what: number.value for number in plan.of_viewers(costly, 10_000_000, 4)}
    assert found["serving processes"] == "500"
    assert found["cores busy with it"] == "250"


def test_every_row_says_what_it_rests_on() -> None:
    rows = re.findall(r"<tr><td>([^<]*)</td><td class=\"n\">([^<]*)</td><td>([^<]*)</td></tr>", PAGE)
    assert len(rows) == len(plan.everything(COSTS))
    assert all(html.unescape(cell) for row in rows for cell in row)


def test_files_that_it_names_exist() -> None:
    root = Path(__file__).parents[2]
    assert all((root / path).exists() for path in re.findall(r"\btests/\w+(?:/\w+)*\.py", PAGE))
    for name in re.findall(r"python -m tests\.benchmarks[. ](\w+)", PAGE):
        assert (root / "tests/benchmarks" / f"{name}.py").exists(), name
