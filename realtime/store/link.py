"""The way to the store, and which content it may meet.

Owns the run and the epoch whose content was adopted last, whether commands are let through, and how far the store's
clock is ahead of the ledger's. Must never send a write twice by itself (who may repeat a command is the caller's to
know), or hand out redis-py's exceptions: they become `StoreUnavailable` and its kin here.

Every new connection compares the store's run with the one whose content we adopted (`adopt`). A store that
restarted, was replaced or failed over has another; its connections are refused with `StoreChanged` until the content
is verified or rebuilt. So no command ever meets content it was not meant for. Each look has a connection of its own: it
meets the store that a new connection leads to, also where those in use still lead to one that was left.

Where `adopt` finds the store away, or answering but of no use, commands are refused at once until it finds it well:
nobody waits for a time-out twice, and what can no longer be told changes is not shown as if it could.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import redis.exceptions as failures

from realtime.boards import board
from realtime.errors import ForeignContent, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store import keys
from realtime.store.fitness import Content, _parse_info, run_of, unfitness
from realtime.store.pool import Connection, Pool, Refused
from realtime.store.replies import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)


CAUSES: Final = ("away", "unfit", "foreign", "superseded", "expired")
"""Why a store cannot be used: it does not answer; answers, but refuses us, may drop keys, is a replica or takes no
writes; holds what cannot be ours; another store is the one in use; its clock was set ahead, and keys may have gone with
that."""

_DOUBTS: Final = {
    "foreign": (
        "its content cannot be ours",
        "something else writes under this program's keys; boards are about to be rebuilt",
    ),
    "superseded": (
        "another store holds this deployment's boards; see where DRAGONFLY_URL leads",
        "another store holds this deployment's boards: see that DRAGONFLY_URL leads every process to the same one",
    ),
    "expired": (
        "its clock was set ahead, and weeks may have expired with that",
        "the store's clock was set ahead; boards are about to be rebuilt",
    ),
}
"""Of content that is there and not to be used: what the log says, and what people are told."""

LEFT: Final = 64
"""Epochs remembered that were left."""

CLOCK_STEP: Final = 86_400.0
"""Seconds by which a store's clock may go ahead at once: by more, and keys may have expired that are not due."""


@contextmanager
def mapped() -> Iterator[None]:
    """redis-py's errors as ours."""
    try:
        yield
    except _WrongRun as error:
        raise StoreChanged(str(error)) from None
    except Refused as error:
        raise StoreUnavailable(str(error)) from error
    except (failures.RedisError, OSError, TimeoutError) as error:
        if isinstance(error, failures.ResponseError) and _FOREIGN.search(str(error)):
            raise ForeignContent(str(error)) from error
        meaning = _meaning(error)
        raise (StoreUnfit if meaning.unfit else StoreUnavailable)(_words(error), meaning.reason) from error


_FOREIGN: Final = re.compile("WRONGTYPE|not an integer|not a valid float")


class _Meaning(NamedTuple):
    """What an error of redis-py means for people."""

    errors: type[BaseException] | tuple[type[BaseException], ...]
    says: str
    """What is in its words, whatever their case."""
    reason: str
    unfit: bool = False
    """Whether the store answers, and waiting does not help."""


_CLUSTER: Final = "it runs in cluster mode, which is not supported"
_REFUSED: Final = "it refuses the user or the password of DRAGONFLY_URL"

_MEANINGS: Final = (
    _Meaning(failures.AuthenticationError, "", _REFUSED, unfit=True),
    _Meaning(failures.NoPermissionError, "", "permission denied: the user of DRAGONFLY_URL lacks rights", unfit=True),
    _Meaning(failures.AskError, "", _CLUSTER, unfit=True),  # also "moved"
    _Meaning(failures.RedisError, "cluster|same slot|hash slot", _CLUSTER, unfit=True),
    _Meaning(failures.ReadOnlyError, "", "it is a read-only replica: point DRAGONFLY_URL at its primary", unfit=True),
    _Meaning(failures.OutOfMemoryError, "", "it has no memory left for writes", unfit=True),
    _Meaning(failures.ResponseError, "misconf|snapshot", "it takes no writes: it cannot save to its disk", unfit=True),
    _Meaning(failures.BusyLoadingError, "", "it is loading its content"),
    _Meaning(failures.RedisError, "max number of clients", "it has no connection left"),
    _Meaning(failures.RedisError, "protected mode", "it is in protected mode: give it a password", unfit=True),
    _Meaning(failures.RedisError, "db index", "it has no database of the number in DRAGONFLY_URL", unfit=True),
    _Meaning(failures.ResponseError, "auth|password", _REFUSED, unfit=True),
    _Meaning(
        Exception, "ssl|certificate", "TLS fails: see rediss:// and ssl_... in DRAGONFLY_URL, and its certificate"
    ),
    _Meaning((failures.TimeoutError, TimeoutError), "", "it does not answer in time"),
    _Meaning(failures.ResponseError, "", "it answers with an error"),
    _Meaning(failures.InvalidResponse, "", "what answers at the address of DRAGONFLY_URL is no store"),
    _Meaning(Exception, "", "it cannot be reached"),
)
"""The first that fits counts."""


def _meaning(error: BaseException) -> _Meaning:
    words = f"{getattr(error, 'status_code', None) or ''} {error}"
    return next(m for m in _MEANINGS if isinstance(error, m.errors) and re.search(m.says, words, re.IGNORECASE))


def _words(error: BaseException) -> str:
    """The library's words; a store that does not know a command repeats what came with it, be it a password."""
    return str(error).partition(", with args")[0] or type(error).__name__


class _WrongRun(failures.ConnectionError):
    """This connection leads to another run than the one whose content we adopted."""


class Link:
    """One process's way to the store. `run` and `epoch` name the content that was adopted last.

    `checked` is for commands: it leads only to the store whose content was adopted, and while that may be met.
    """

    def __init__(self, url: str, *, timeout: float, connections: int) -> None:
        self.run: str | None = None
        self.epoch: str | None = None
        self.distrusted: str | None = None
        """The epoch whose content must not be used, though it says it is ours; None while there is none such."""
        self._doubt = "foreign"  # why it must not
        self._left: dict[str, None] = {}  # epochs of content that others have taken the place of, the last ones
        self.ledger: str | None = None
        """What the store remembered of the ledger at the last look; see `generation`."""
        self.ahead: float | None = None
        """Seconds by which the store's clock is ahead of the ledger's; None before it was measured."""
        self.timestamp: Callable[[], float] | None = None
        """What time the ledger says it is; None: nothing is measured."""
        self._failed: StoreUnavailable | None = None  # what the last look met
        self._looking = asyncio.Lock()  # a look that began later must not be overruled by an earlier one
        self.complaint: str | None = None
        """Why commands are refused, for people; None while they are not."""
        self.refused_for: str | None = None
        """The cause of that, one of CAUSES."""
        self.refusals = dict.fromkeys(CAUSES, 0.0)
        """How often commands began to be refused, by cause."""
        self.timeout = timeout  # seconds until the store counts as away
        self.checked = Pool(url, limit=connections, timeout=timeout, greet=self._check_run)
        self._free = Pool(url, limit=2, timeout=timeout, keep=False)

    async def aclose(self) -> None:
        """Closes every connection."""
        await self.checked.disconnect()
        await self._free.disconnect()

    async def _check_run(self, connection: Connection) -> None:
        await connection.send_command("INFO")
        run = run_of(_parse_info(await connection.read_response()))
        if run != self.run:
            raise _WrongRun(f"the store's run is {run[:8]}, its adopted content is of {(self.run or 'none')[:8]}")

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """redis-py's errors as ours; foreign content is distrusted."""
        try:
            with mapped():
                yield
        except ForeignContent:
            self.distrust()
            raise

    async def info(self) -> dict[str, str]:
        """The store's own account of itself (INFO), section headings left out."""
        with self.mapped():
            return _parse_info(await self._free.ask("INFO"))

    async def content(self) -> Content:
        """Which store answers now, and what it says it holds. Adopts nothing. Raises StoreUnfit.

        Whether it takes writes is tried with one that changes nothing: an empty text written into the epoch's.
        """
        with self.mapped():
            told, values, written, time = await self._free.exchange(
                ("INFO",),
                ("MGET", keys.RUN_KEY, keys.EPOCH_KEY, board.LEDGER_KEY),
                ("SETRANGE", keys.EPOCH_KEY, 0, ""),
                ("TIME",),
            )
            for reply in (told, values):
                if isinstance(reply, Exception):
                    raise reply
        info = _parse_info(told)
        run = run_of(info)
        if problem := unfitness(info):
            raise StoreUnfit(problem)
        if isinstance(written, Exception) and "WRONGTYPE" not in str(written):
            raise StoreUnfit(_words(written), _meaning(written).reason)
        content = Content(run, *map(as_text, values))
        if not isinstance(time, Exception):
            self._compare_clocks(content, int(time[0]) + int(time[1]) / 1e6)
        return content

    def _compare_clocks(self, content: Content, its_time: float) -> None:
        if self.timestamp is None:
            return
        before, self.ahead = self.ahead, its_time - self.timestamp()
        if before is not None and self.ahead - before > CLOCK_STEP and content.run == self.run:
            self.distrust("expired")

    async def adopt(self) -> Content:
        """Looks which content there is, and lets commands through where it was made for the run that holds it.

        Raises StoreUnavailable, StoreUnfit: until it succeeds again, every command is refused at once.
        """
        others_look = self._looking.locked()
        async with self._looking:
            if others_look and self._failed is not None:  # it was found so while we waited
                raise self._failed
            return await self._adopt()

    async def _adopt(self) -> Content:
        try:
            content = await self.content()
        except StoreUnavailable as error:
            cause = "unfit" if isinstance(error, StoreUnfit) else "away"
            self._refuse(cause, str(error), f"the store cannot be used: {error.reason}")
            self._failed = error
            raise
        self._failed = None
        self.ledger = content.ledger
        if content.epoch in self._left:
            self.distrusted, self._doubt = content.epoch, "superseded"
        if self.distrusted is None or content.epoch != self.distrusted:
            self.accept()
        else:  # it is the same as ever
            self._refuse(self._doubt, *_DOUBTS[self._doubt])
        if content.is_ours:
            await self.turn_to(content.run)
            self.epoch = content.epoch
        else:
            self.epoch = None
        return content

    def distrust(self, why: str = "foreign") -> None:
        """What was adopted must not be used: commands are refused until it is made anew, for boards may be wrong."""
        self.distrusted, self._doubt = self.epoch, why
        self._refuse(why, *_DOUBTS[why])

    def leave(self, epoch: str) -> None:
        """Content of that epoch is never current again: whoever still finds it does not take it for that, even once."""
        self._left[epoch] = None
        if len(self._left) > LEFT:
            del self._left[next(iter(self._left))]

    def _refuse(self, cause: str, why: str, complaint: str) -> None:
        if complaint != self.complaint:
            log.error("the store cannot be used: %s", why, extra={"action": "store"})
        if cause != self.refused_for:
            self.refusals[cause] += 1
        self.checked.refusal, self.complaint, self.refused_for = why, complaint, cause

    def accept(self) -> None:
        """What is held now is trusted: commands are let through again."""
        if self.checked.refusal is not None:
            log.warning("the store can be used again", extra={"action": "store"})
        self.checked.refusal = self.complaint = self.refused_for = self.distrusted = None

    async def turn_to(self, run: str) -> None:
        """Lets connections to this run through, and no other any more: one in use may lead to a store that was left."""
        if run != self.run:
            self.run = run
            with self.mapped():
                await self.checked.disconnect()

    def refused(self) -> dict[str, float]:
        """1 for the cause for which commands are refused now, 0 for every other."""
        return {cause: float(cause == self.refused_for) for cause in CAUSES}

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self.checked.refusal is None and self.epoch is not None and not self.epoch.startswith(keys.FILLING)
