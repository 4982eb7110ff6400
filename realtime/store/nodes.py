"""Nodes: a store that is a list of a primary and its replicas, promoted by somebody else.

Owns the decision which of them is the primary. Must never hold on to a node that says that it is a replica. Assumes
that every node is in the list.

Two may say that they are: one was promoted while the other was cut off, and that one is back and believes that nothing
has happened. Then, in this order:
- one whose content was superseded (the ledger names another's as current) comes last: so processes that started at
  different times end at the same one;
- the one that replicas follow goes before one that none follows: whoever made the failover led them there;
- the one that is in use stays, and else the first of the list counts: so nobody goes to and fro.
Whichever it is, its content is met only under its own run: what it lacks is made anew from the ledger, never believed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

import redis.exceptions as failures

from realtime.errors import StoreUnavailable
from realtime.store.endpoints import Endpoint
from realtime.store.fitness import is_replica, parse_info, run_of
from realtime.store.inquiry import Answer, Inquiry
from realtime.store.way import Lost

SUPERSEDED_KEPT = 16
"""Runs that are remembered as superseded."""


class Told(NamedTuple):
    """What a node says of itself."""

    is_primary: bool
    replicas: int
    run: str


def decided(
    nodes: Sequence[Endpoint],
    told: Mapping[Endpoint, Told | None],
    *,
    current: Endpoint | None,
    superseded: Collection[str] = (),
    is_last_word: bool,
) -> Endpoint | None:
    """The primary, by what nodes have told so far (None: nothing to be had of it); None while more must be heard.

    With `is_last_word` nobody else is going to answer.
    """
    primaries = [node for node in nodes if (said := told.get(node)) is not None and said.is_primary]

    def rank(node: Endpoint) -> tuple[bool, bool, bool]:
        said = told[node]
        assert said is not None
        return said.run not in superseded, said.replicas > 0, node == current

    if not primaries:
        return None
    best = max(primaries, key=rank)  # of equals the first
    return best if is_last_word or len(told) == len(nodes) or all(rank(best)) else None


class Nodes:
    """Finds the primary among nodes."""

    def __init__(self, nodes: Sequence[Endpoint], inquiry: Inquiry) -> None:
        self._nodes = nodes
        self._inquiry = inquiry
        self._current: Endpoint | None = None
        self._superseded: dict[str, None] = {}

    async def find(self) -> Endpoint:
        """The primary now. Raises Lost, or what a node answers that refuses us."""
        told: dict[Endpoint, Told | None] = {}
        primary: Endpoint | None = None
        refusal: failures.RedisError | None = None
        async with aclosing(self._inquiry.ask(self._nodes, ("INFO",))) as answers:
            async for node, answer in answers:
                told[node] = _told(answer)
                refusal = _refusal(answer) or refusal
                primary = self._decided(told, is_last_word=False)
                if primary is not None:
                    break
        primary = primary or self._decided(told, is_last_word=True)
        if primary is None and refusal is not None:
            raise refusal
        if primary is None:
            raise Lost(_complaint(self._nodes, told))
        self._current = primary
        return primary

    def _decided(self, told: Mapping[Endpoint, Told | None], *, is_last_word: bool) -> Endpoint | None:
        return decided(self._nodes, told, current=self._current, superseded=self._superseded, is_last_word=is_last_word)

    def judge(self, run: str, is_superseded: bool) -> None:
        """See `Way.judge`."""
        if is_superseded:
            self._superseded[run] = None
            while len(self._superseded) > SUPERSEDED_KEPT:
                del self._superseded[next(iter(self._superseded))]
        else:
            self._superseded.pop(run, None)


def _told(answer: Answer) -> Told | None:
    if isinstance(answer, Exception) or not isinstance(answer[0], bytes):
        return None
    info = parse_info(answer[0])
    replicas = info.get("connected_slaves", "0")
    try:
        return Told(not is_replica(info), int(replicas) if replicas.isdigit() else 0, run_of(info))
    except StoreUnavailable:  # it tells no run
        return None


def _refusal(answer: Answer) -> failures.RedisError | None:
    """What a node says that answers, and lets us ask nothing."""
    said = answer if isinstance(answer, Exception) else answer[0]
    return said if isinstance(said, failures.AuthenticationError | failures.ResponseError) else None


def _complaint(nodes: Sequence[Endpoint], told: Mapping[Endpoint, Told | None]) -> str:
    words = [f"{node} {'is a replica' if told.get(node) else 'does not answer'}" for node in nodes]
    return f"none of its nodes is a primary now: {', '.join(words)}"
