"""Outages: maps redis-py's errors to StoreUnavailable and its kin, and says what each means for people.

Owns the table of meanings. Must never let redis-py's exceptions out of this room, or repeat a password: a store quotes
the arguments of a command that it does not know. Assumes nothing of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import redis.exceptions as failures

from realtime.errors import ForeignContent, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store.pool import Refused
from realtime.store.way import Elsewhere, Lost


class WrongRun(failures.ConnectionError):
    """This connection leads to another run than the one whose content this process adopted."""


@contextmanager
def mapped() -> Iterator[None]:
    """Raises StoreUnavailable, StoreUnfit, StoreChanged or ForeignContent in place of redis-py's errors."""
    try:
        yield
    except WrongRun as error:
        raise StoreChanged(str(error)) from None
    except (Refused, Lost, Elsewhere) as error:  # their words are ours
        raise StoreUnavailable(str(error)) from error
    except (failures.RedisError, OSError, TimeoutError) as error:
        if isinstance(error, failures.ResponseError) and _FOREIGN.search(str(error)):
            raise ForeignContent(str(error)) from error
        meaning = meaning_of(error)
        raise (StoreUnfit if meaning.unfit else StoreUnavailable)(words_of(error), meaning.reason) from error


_FOREIGN: Final = re.compile("WRONGTYPE|not an integer|not a valid float")


class Meaning(NamedTuple):
    """What an error of redis-py means for people."""

    errors: type[BaseException] | tuple[type[BaseException], ...]
    says: str
    """A pattern that the error's words contain, whatever their case."""
    reason: str
    unfit: bool = False
    """Whether the store answers, and waiting does not help."""


_CLUSTER: Final = "it runs in cluster mode: DRAGONFLY_URL must begin with redis+cluster:// or rediss+cluster://"
_NO_CLUSTER: Final = "it does not run in cluster mode: DRAGONFLY_URL must begin with redis:// or rediss://"
_REFUSED: Final = "it refuses the user or the password of DRAGONFLY_URL"

_MEANINGS: Final = (
    Meaning(failures.AuthenticationError, "", _REFUSED, unfit=True),
    Meaning(failures.NoPermissionError, "", "permission denied: the user of DRAGONFLY_URL lacks rights", unfit=True),
    Meaning(failures.AskError, "", _CLUSTER, unfit=True),  # also "moved"
    Meaning(failures.RedisError, "cluster support disabled|cluster is disabled", _NO_CLUSTER, unfit=True),
    Meaning(failures.RedisError, "cluster|same slot|hash slot", _CLUSTER, unfit=True),
    Meaning(failures.ReadOnlyError, "", "it is a read-only replica: point DRAGONFLY_URL at its primary", unfit=True),
    Meaning(failures.OutOfMemoryError, "", "it has no memory left for writes", unfit=True),
    Meaning(failures.ResponseError, "misconf|snapshot", "it takes no writes: it cannot save to its disk", unfit=True),
    Meaning(failures.BusyLoadingError, "", "it is loading its content"),
    Meaning(failures.MasterDownError, "", "it is a replica that has lost its primary"),
    Meaning(failures.ResponseError, "unblocked", "it has become a replica"),
    Meaning(failures.RedisError, "max number of clients", "it has no connection left"),
    Meaning(failures.RedisError, "protected mode", "it is in protected mode: give it a password", unfit=True),
    Meaning(failures.RedisError, "db index", "it has no database of the number in DRAGONFLY_URL", unfit=True),
    Meaning(failures.ResponseError, "auth|password", _REFUSED, unfit=True),
    Meaning(Exception, "ssl|certificate", "TLS fails: see rediss:// and ssl_... in DRAGONFLY_URL, and its certificate"),
    Meaning((failures.TimeoutError, TimeoutError), "", "it does not answer in time"),
    Meaning(failures.ResponseError, "", "it answers with an error"),
    Meaning(failures.InvalidResponse, "", "what answers at the address of DRAGONFLY_URL is no store"),
    Meaning(Exception, "", "it cannot be reached"),
)
"""The first meaning that fits an error counts."""


def meaning_of(error: BaseException) -> Meaning:
    """What an error means."""
    words = f"{getattr(error, 'status_code', None) or ''} {error}"
    return next(m for m in _MEANINGS if isinstance(error, m.errors) and re.search(m.says, words, re.IGNORECASE))


def words_of(error: BaseException) -> str:
    """redis-py's words for an error, without the arguments that a store quotes of a command it does not know."""
    return str(error).partition(", with args")[0] or type(error).__name__
