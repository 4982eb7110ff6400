"""Passwords: hashes by Argon2 (RFC 9106).

Owns the hasher and its queue. Must never hash on the event loop, or more than one at a time.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import argon2

from realtime.errors import RealtimeError
from realtime.people.normal_forms import composed, writings
from realtime.validation import plain_text

PASSWORD_LENGTH: Final = (8, 1024)
"""Characters, as prepared."""

HASH_WAIT: Final = 0.1
"""Seconds a login waits for the hash before it: beyond, `overloaded`."""

HASH_QUEUE: Final = 2
"""Logins that may wait so: no more could have their turn in that time."""

_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def prepared(password: str) -> str:
    """A password as it is hashed (RFC 8265, section 4.2.2): keyboards differ in how they write accents and spaces."""
    return composed(_SPACES.sub(" ", password))


def check_password(value: Any, shortest: int = PASSWORD_LENGTH[0]) -> str:
    """`value` where it can be a password. Raises RealtimeError `bad_message` or `out_of_range`."""
    password = plain_text(value, "password", 1, 4 * PASSWORD_LENGTH[1])  # decomposed, it may be as much longer
    plain_text(prepared(password), "password", shortest, PASSWORD_LENGTH[1])
    return password


class Passwords:
    """argon2id (RFC 9106) in a thread of its own, one hash at a time, for whoever has the turn."""

    def __init__(self) -> None:
        # One lane, for more would take the cores from the event loop; else RFC 9106's second choice.
        self._hasher = argon2.PasswordHasher(parallelism=1)
        self._thread = ThreadPoolExecutor(1, "argon2", initializer=_step_back)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._hashing: asyncio.Future[Any] | None = None
        self._nobody = self._hasher.hash("nobody")  # as slow for no such user as for a wrong password

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Whoever is in the block may hash. RealtimeError `overloaded` where others are before, within HASH_WAIT."""
        if self._waiting >= HASH_QUEUE:
            raise _overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(HASH_WAIT):
                await self._lock.acquire()
        except TimeoutError:
            raise _overloaded() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            # Whoever goes away does not free the turn while the thread is still at their hash.
            if self._hashing is None or self._hashing.done():
                self._lock.release()
            else:
                self._hashing.add_done_callback(lambda done: self._lock.release())

    async def hash(self, password: str) -> str:
        """A new hash."""
        return str(await self._run(self._hasher.hash, prepared(password)))

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether `password` gives `known`; takes as long where `known` is None.

        Earlier versions hashed what came as it was written.
        """
        matches = await self._run(self._matches_any, known or self._nobody, [prepared(password), *writings(password)])
        return bool(matches) and known is not None

    def _matches_any(self, known: str, passwords: Sequence[str]) -> bool:
        return any(self._matches(known, password) for password in dict.fromkeys(passwords))

    def _matches(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        assert self._lock.locked(), "only in a turn"
        self._hashing = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        return await asyncio.shield(self._hashing)

    def close(self) -> None:
        """Ends the thread after what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _overloaded() -> RealtimeError:
    words = "Too many people sign in at this moment. Try again."
    return RealtimeError("overloaded", words, retry_after_ms=1_000)


def _step_back() -> None:
    """Gives the calling thread a lower priority: a hash may take longer, a broadcast may not."""
    if sys.platform == "linux":  # where threads have priorities of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
