"""Metrics: several processes are told as one, and what is true of all of them is told once."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import StartupError
from realtime.metrics import Metrics, exposed, summed


def values(text: bytes | str) -> dict[str, float]:
    """The samples of an exposition, by name and labels as written."""
    lines = (text if isinstance(text, str) else text.decode()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


def process(refusals: dict[str, int], sizes: list[int]) -> Metrics:
    made = Metrics()
    for code, count in refusals.items():
        made.refusals.labels(code).inc(count)
    for size in sizes:
        made.batch_size.observe(size)
    made.read([("gauge", "connections", "Open sockets", lambda: float(len(sizes)))])
    return made


processes = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["forbidden", "too_many", 'a "b"\\c']), st.integers(0, 1000)),
        st.lists(st.integers(1, 2000), max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@given(processes)
def test_sum_of_processes_is_what_one_would_have_counted(each: list[tuple[dict[str, int], list[int]]]) -> None:
    refusals: dict[str, int] = {}
    for codes, _ in each:
        for code, count in codes.items():
            refusals[code] = refusals.get(code, 0) + count
    one = process(refusals, [size for _, sizes in each for size in sizes])
    texts = [process(*of).own().decode() for of in each]
    assert values(exposed(summed(texts))) == values(one.own())
    assert values(exposed(summed(reversed(texts)))) == values(one.own()), "in any order"


def test_sum_can_be_summed_again() -> None:
    """What dead processes counted is kept as one text, and added to the living ones' later."""
    own = process({"forbidden": 2}, [5]).own().decode()
    twice = exposed(summed([exposed(summed([own])).decode(), own]))
    assert values(twice)['realtime_refusals_total{code="forbidden"}'] == 4
    assert values(twice)['realtime_batch_size_bucket{le="5.0"}'] == 2


def test_what_is_true_of_all_processes_is_never_added_up() -> None:
    other = process({}, [1, 2])
    here = Metrics(lambda: [other.own().decode()])
    here.read([("gauge", "connections", "Open sockets", lambda: 1.0)])
    here.read_once([("gauge", "outbox_rows", "Rows that wait", lambda: 9.0)])
    shown = values(here.exposition())
    assert (shown["realtime_connections"], shown["realtime_outbox_rows"]) == (3, 9)
    assert "realtime_outbox_rows" not in values(here.own()), "others would add it to theirs"


def test_value_is_read_when_it_is_asked_for_and_a_dictionary_is_one_a_label() -> None:
    made, now = Metrics(), {"away": 0.0, "unfit": 1.0}
    made.read([("counter", "store_refusals", "How often, by cause", lambda: now)])
    assert values(made.own())['realtime_store_refusals_total{of="unfit"}'] == 1
    now["unfit"] = 2.0
    assert values(made.own())['realtime_store_refusals_total{of="unfit"}'] == 2
    assert "_created" not in made.own().decode(), "the moment a counter began says nothing of a sum"


def test_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartupError, match="Cannot show metrics on"):
        Metrics().serve("127.0.0.1", taken.getsockname()[1])
