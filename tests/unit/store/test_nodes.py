"""Nodes and Sentinels: which one is the primary, by what they say."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.store import nodes, sentinels
from realtime.store.endpoints import Endpoint
from realtime.store.nodes import SUPERSEDED_KEPT, Nodes
from realtime.store.way import Known

A, B, C = (Endpoint(name, 1) for name in "abc")
ALL = (A, B, C)


def primary(replicas: int = 0, run: str = "r") -> nodes.Told:
    return nodes.Told(True, replicas, run)


REPLICA = nodes.Told(False, 0, "r")


@pytest.mark.parametrize(
    ("told", "current", "superseded", "expected"),
    [
        ({A: primary(2), B: REPLICA, C: REPLICA}, None, (), A),
        ({A: None, B: primary(), C: REPLICA}, A, (), B),
        ({A: REPLICA, B: primary(1), C: REPLICA}, A, (), B),
        ({A: REPLICA, B: REPLICA, C: None}, A, (), None),
        ({A: primary(), B: primary(), C: None}, B, (), B),  # the one in use stays
        ({A: primary(), B: primary(), C: None}, None, (), A),  # the first of the list
        ({A: primary(), B: primary(1), C: REPLICA}, A, (), B),  # the one that is followed
        ({A: primary(1), B: primary(1), C: primary()}, B, (), B),
        ({A: primary(1, "old"), B: primary(0, "new"), C: None}, A, ("old",), B),  # the ledger names B's
        ({A: primary(1, "old"), B: None, C: None}, A, ("old",), A),  # there is no other
    ],
)
def test_which_of_several_nodes_is_the_primary(
    told: dict[Endpoint, nodes.Told | None],
    current: Endpoint | None,
    superseded: tuple[str, ...],
    expected: Endpoint | None,
) -> None:
    for order in itertools.permutations(ALL):
        heard = {node: told[node] for node in order}
        found = nodes.decided(ALL, heard, current=current, superseded=superseded, is_last_word=True)
        assert found == expected


@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            ALL,
            st.none() | st.builds(nodes.Told, st.booleans(), st.integers(0, 2), st.sampled_from(["x", "y"])),
        )
    ),
    st.sampled_from([None, *ALL]),
    st.sets(st.sampled_from(["x", "y"])),
    st.permutations(ALL),
)
def test_a_decision_that_waits_for_no_more_answers_is_what_all_answers_give(
    told: dict[Endpoint, nodes.Told | None], current: Endpoint | None, superseded: set[str], order: list[Endpoint]
) -> None:
    last = nodes.decided(ALL, told, current=current, superseded=superseded, is_last_word=True)
    for count in range(len(order)):
        heard = {node: told[node] for node in order[:count]}
        early = nodes.decided(ALL, heard, current=current, superseded=superseded, is_last_word=False)
        assert early is None or early == last
    if last is not None:
        said = told[last]
        assert said is not None and said.is_primary, "a replica is never led to"


def test_memory_of_superseded_runs_has_a_bound() -> None:
    found = Nodes(ALL, None)  # type: ignore[arg-type]  # nothing is asked here
    for n in range(100):
        found.judge(f"run-{n}", True)
    found.judge("run-99", False)
    assert len(found._superseded) == SUPERSEDED_KEPT - 1 and "run-99" not in found._superseded


def told(primary: Endpoint, epoch: int, of: int = 3) -> sentinels.Told:
    return sentinels.Told(primary, epoch, of)


@pytest.mark.parametrize(
    ("answers", "is_last_word", "expected"),
    [
        ([], True, None),
        ([told(A, 1)], False, None),  # it may be the one that was cut off
        ([told(A, 1)], True, A),
        ([told(A, 1), told(B, 2)], False, B),
        ([told(B, 2), told(A, 1), told(A, 1)], False, B),
        ([told(A, 0, 1)], False, A),  # it is alone
        ([told(A, 1, 5), told(B, 2, 5)], False, None),
        ([told(A, 3), told(B, 3), told(B, 3)], True, B),
    ],
)
def test_the_newest_configuration_that_most_sentinels_can_know_counts(
    answers: list[sentinels.Told], is_last_word: bool, expected: Endpoint | None
) -> None:
    assert sentinels.decided(answers, is_last_word=is_last_word) == expected


# What is known ---------------------------------------------------------------------------------------------------


class Finder:
    def __init__(self) -> None:
        self.found = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.error: Exception | None = None

    async def find(self) -> int:
        self.found += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.found


async def test_what_is_known_is_found_once_however_many_wait_and_again_where_it_is_doubtful() -> None:
    finder = Finder()
    known = Known(finder.find)
    assert await asyncio.gather(*(known.get() for _ in range(5))) == [1] * 5
    assert await known.get(fresh=True) == 1, "a look of a moment ago is fresh enough"
    known._found_at -= 10
    assert (await known.get(), await known.get(fresh=True)) == (1, 2)
    known.doubt()
    assert await known.get() == 3


async def test_a_doubt_that_comes_while_something_is_found_out_is_not_lost() -> None:
    finder = Finder()
    known = Known(finder.find)
    finder.may_end.clear()
    waiting = asyncio.create_task(known.get())
    await asyncio.sleep(0)
    known.doubt()
    finder.may_end.set()
    assert (await waiting, await known.get()) == (1, 2)


async def test_who_waits_meets_what_was_met_and_who_goes_takes_nobody_along() -> None:
    finder = Finder()
    known = Known(finder.find)
    finder.may_end.clear()
    waiting, gone = (asyncio.create_task(known.get()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    finder.error = ValueError("nothing there")
    finder.may_end.set()
    with pytest.raises(ValueError, match="nothing there"):
        await waiting
    finder.error = None
    assert await known.get() == 2
    await known.aclose()
