"""Versions: which PostgreSQL this program works with, and in which encoding.

Owns the versions that are supported, and the sentences for what is not. Must never ask anything: a server says both of
these by itself, to every new connection. Assumes that a pooler in between passes on what the server said.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 14
LATEST: Final = 18
"""Major versions that the tests ran on."""


def unfitness(major: int, encoding: str | None) -> str | None:
    """Why a database must not be used, and what to do; None where it may. `encoding` is None where it does not say."""
    if not LEAST <= major <= LATEST:
        way = "Bring it to a newer one (pg_upgrade)" if major < LEAST else "Update realtime, or go back to an older one"
        return (
            f"The database is on PostgreSQL {major}, which is not supported: PostgreSQL {LEAST} to {LATEST} are. "
            f"{way}, or name another database in DATABASE_URL."
        )
    if encoding not in ("UTF8", None):
        return (
            f"The database's encoding is {encoding}, and must be UTF8: names may have any character. Make another with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, bring over what is in this one with pg_dump and "
            "psql, and name it in DATABASE_URL."
        )
    return None
