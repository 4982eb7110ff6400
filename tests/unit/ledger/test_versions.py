"""Versions: which PostgreSQL is supported, by what it says to whoever connects."""

from __future__ import annotations

import pytest

from realtime.ledger.versions import LATEST, LEAST, unfitness


@pytest.mark.parametrize("major", range(LEAST, LATEST + 1))
def test_every_supported_version_in_utf_8_is_taken(major: int) -> None:
    assert unfitness(major, "UTF8") is None
    assert unfitness(major, None) is None, "a pooler may keep the encoding to itself"


@pytest.mark.parametrize(("major", "way"), [(LEAST - 1, "pg_upgrade"), (LATEST + 1, "Update realtime")])
def test_any_other_version_is_refused_with_what_to_do(major: int, way: str) -> None:
    problem = unfitness(major, "UTF8") or ""
    assert f"PostgreSQL {major}, which is not supported: PostgreSQL {LEAST} to {LATEST} are" in problem
    assert way in problem and "DATABASE_URL" in problem


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_cannot_keep_every_text_is_refused(encoding: str) -> None:
    problem = unfitness(LATEST, encoding) or ""
    assert f"encoding is {encoding}, and must be UTF8" in problem and "ENCODING 'UTF8'" in problem
