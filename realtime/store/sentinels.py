"""Sentinels: a store whose primary is known to Redis Sentinels, which also promote its replicas.

Owns the decision which of their answers counts. Must never believe the first one that comes: a Sentinel that was cut
off tells of the primary before. Assumes that a failover raises the epoch of the configuration that Sentinels tell
(redis.io/docs/latest/develop/reference/sentinel-clients).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from realtime.store.endpoints import Endpoint
from realtime.store.inquiry import Answer, Inquiry
from realtime.store.way import Lost


class Told(NamedTuple):
    """What a Sentinel says of a primary."""

    primary: Endpoint
    epoch: int
    """Of the configuration: higher with every failover."""
    sentinels: int
    """How many Sentinels it knows of, itself among them."""


def decided(told: Collection[Told], *, is_last_word: bool) -> Endpoint | None:
    """The primary by what Sentinels have told so far; None while more must be heard.

    Most Sentinels must have been heard, for one of any majority knows of the last failover; where no more answer, the
    highest epoch of those that do counts.
    """
    if not told or not (is_last_word or 2 * len(told) > max(one.sentinels for one in told)):
        return None
    newest = max(one.epoch for one in told)
    return Counter(one.primary for one in told if one.epoch == newest).most_common(1)[0][0]


class Sentinels:
    """Finds the primary that Sentinels know as `service`."""

    def __init__(self, sentinels: Sequence[Endpoint], service: str, inquiry: Inquiry) -> None:
        self._sentinels = sentinels
        self._service = service
        self._inquiry = inquiry
        self._last: Endpoint | None = None

    async def find(self) -> Endpoint:
        """The primary now; the last one where no Sentinel answers, for the store does not need them. Raises Lost."""
        told: list[Told] = []
        said: dict[Endpoint, Answer] = {}
        primary: Endpoint | None = None
        commands = (("SENTINEL", "get-master-addr-by-name", self._service), ("SENTINEL", "master", self._service))
        async with aclosing(self._inquiry.ask(self._sentinels, *commands)) as answers:
            async for sentinel, answer in answers:
                said[sentinel] = answer
                if (one := _told(answer)) is not None:
                    told.append(one)
                primary = decided(told, is_last_word=False)
                if primary is not None:
                    break
        primary = primary or decided(told, is_last_word=True) or self._last
        if primary is None:
            raise Lost(self._complaint(said))
        self._last = primary
        return primary

    def _complaint(self, said: Mapping[Endpoint, Answer]) -> str:
        words = [f"{sentinel} {_trouble_of(said.get(sentinel))}" for sentinel in self._sentinels]
        return f"no Sentinel tells where its primary is: {', '.join(words)}"


def _told(answer: Answer) -> Told | None:
    with suppress(ValueError, KeyError, TypeError, IndexError):
        address, described = answer  # type: ignore[misc]  # an exception is nothing to be taken apart: a TypeError
        fields: dict[bytes, Any] = dict(zip(described[::2], described[1::2], strict=True))
        primary = Endpoint(address[0].decode(), int(address[1]))
        return Told(primary, int(fields[b"config-epoch"]), int(fields[b"num-other-sentinels"]) + 1)
    return None


def _trouble_of(answer: Answer | None) -> str:
    if any(map(_is_refusal, answer if isinstance(answer, list) else [answer])):
        return "refuses sentinel_username or sentinel_password"
    return "does not know that name" if isinstance(answer, list) else "does not answer"


def _is_refusal(answer: object) -> bool:
    words = str(answer) if isinstance(answer, Exception) else ""
    return any(word in words for word in ("NOAUTH", "WRONGPASS", "NOPERM", "uthenticat", "password"))
