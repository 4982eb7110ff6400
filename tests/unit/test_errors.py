"""Errors: every code has its status, and every use a code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import realtime
from realtime.errors import STATUS, EpochMoved, RealtimeError, StoreChanged, StoreUnavailable

PACKAGE = Path(realtime.__file__).parent

WIRE_CODES = (
    "bad_message too_large unknown_type unknown_board unknown_user out_of_range submission_conflict overloaded "
    "unavailable unauthorized forbidden expired too_many"
)


def test_the_codes_of_the_protocol_are_all_there() -> None:
    assert set(WIRE_CODES.split()) <= STATUS.keys()


@pytest.mark.parametrize("code", STATUS)
def test_an_error_carries_code_message_hint_and_status(code: str) -> None:
    error = RealtimeError(code, "What to do.", retry_after_ms=5)
    assert (error.code, error.message, error.retry_after_ms, str(error)) == (code, "What to do.", 5, "What to do.")
    assert 400 <= error.status < 600


def test_a_code_that_nobody_knows_cannot_be_raised() -> None:
    with pytest.raises(AssertionError):
        RealtimeError("oops", "No such code.")


def test_whoever_handles_a_store_that_is_away_handles_one_that_is_other() -> None:
    assert issubclass(EpochMoved, StoreChanged) and issubclass(StoreChanged, StoreUnavailable)
    assert EpochMoved("x-2").epoch == "x-2"


def _codes_raised() -> dict[str, list[str]]:
    """Code -> where it is written down, from every RealtimeError(...) and Rejected(...) in the package."""
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            place = {"RealtimeError": 0, "Rejected": 1}.get(node.func.id)
            if place is None or len(node.args) <= place:
                continue
            code = node.args[place]
            if isinstance(code, ast.Constant):
                found.setdefault(str(code.value), []).append(f"{path.name}:{node.lineno}")
    return found


def test_every_code_in_the_source_is_one_of_ours() -> None:
    raised = _codes_raised()
    assert raised, "the search finds something"
    assert {code: where for code, where in raised.items() if code not in STATUS} == {}
