"""A PostgreSQL whose clock tests set: what `clock_timestamp()` says in one database, for everybody in it.

Owns how that is done: a function of that name which is found before the system's own. So every statement of ours reads
the time that a test wants, in the transactions and processes it is really read in. Must be there before a ledger
connects. What columns have by default is not shifted.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg

_SET_UP = """
    CREATE TABLE public.shift (by INTERVAL NOT NULL);
    INSERT INTO public.shift VALUES ('0');
    CREATE FUNCTION public.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql VOLATILE
        AS 'SELECT pg_catalog.clock_timestamp() + by FROM public.shift'
"""


class Shift:
    """The clock of the database that `sql` is connected to."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql

    async def set_up(self) -> None:
        """From now on, for whoever connects."""
        await self._sql.execute(_SET_UP)
        name = await self._sql.fetchval("SELECT current_database()")
        await self._sql.execute(f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog')

    async def take_down(self) -> None:
        """It is as it was."""
        await self._sql.execute("DROP FUNCTION public.clock_timestamp(); DROP TABLE public.shift")

    async def to(self, moment: datetime) -> None:
        """It is `moment` now."""
        await self._sql.execute("UPDATE public.shift SET by = $1 - pg_catalog.clock_timestamp()", moment)

    async def by(self, difference: timedelta) -> None:
        """It is so much later, or earlier, than it was."""
        await self._sql.execute("UPDATE public.shift SET by = by + $1", difference)
