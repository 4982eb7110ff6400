"""Rights: the laws behind the table of tests/acceptance/test_rights.py, which a table cannot show one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, week_at
from realtime.boards.catalogue import PUBLISHED, Directory
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.submissions import Accepted, Submission
from realtime.errors import RealtimeError
from realtime.people.identity import SCOPES, Identity
from realtime.people.permissions import Permissions

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
WEEK, LAST = week_at(NOW), week_at(NOW - timedelta(days=7))
PRIVATE, PUBLIC = Permissions(private=True), Permissions()

identities = st.none() | st.builds(
    Identity,
    st.none() | st.integers(1, 3),
    st.frozensets(st.sampled_from(sorted(SCOPES))),
    st.just(NOW + timedelta(hours=1)),
    st.none() | st.frozensets(st.sampled_from([ALL_TIME.id, CURRENT_WEEK, WEEK.id, LAST.id])),
)
submissions = st.builds(
    Submission,
    st.integers(1, 3),
    st.just("s"),
    st.integers(-100, 100),
    st.none(),
    st.none() | st.sampled_from([NOW, NOW - timedelta(days=7)]),
)
asked = st.sampled_from([(ALL_TIME.id, ALL_TIME), (CURRENT_WEEK, WEEK), (WEEK.id, WEEK), (LAST.id, LAST)])


def identity(*scopes: str, user_id: int | None = None, boards: set[str] | None = None) -> Identity:
    bound = None if boards is None else frozenset(boards)
    return Identity(user_id, frozenset(scopes), NOW + timedelta(hours=1), bound)


def submission(added: int = 5, user_id: int = 1, created_at: datetime | None = None) -> Submission:
    return Submission(user_id, "s", added, None, created_at)


def code(rights: Permissions, who: Identity | None, what: Submission) -> str:
    try:
        rights.submit(who, what)
    except RealtimeError as error:
        return error.code
    return "yes"


# Reading -----------------------------------------------------------------------------------------------------------


@given(identities, asked)
def test_what_is_public_is_open_to_everybody(who: Identity | None, board: tuple[str, object]) -> None:
    name, there = board
    assert PUBLIC.may_read(who, name, there, NOW)  # type: ignore[arg-type]


@given(identities, asked)
def test_a_private_board_needs_a_scope_and_a_token_that_is_bound_to_it_or_to_none(
    who: Identity | None, board: tuple[str, object]
) -> None:
    name, there = board
    allowed = PRIVATE.may_read(who, name, there, NOW)  # type: ignore[arg-type]
    if who is None or not who.scopes & {"read", "admin"}:
        assert not allowed
    elif who.boards is None or name in who.boards:
        assert allowed


@pytest.mark.parametrize(
    ("bound", "name", "board", "allowed"),
    [
        ({WEEK.id}, CURRENT_WEEK, WEEK, False),  # it would follow into the next week
        ({CURRENT_WEEK}, CURRENT_WEEK, WEEK, True),
        ({CURRENT_WEEK}, WEEK.id, WEEK, True),
        ({CURRENT_WEEK}, LAST.id, LAST, False),
        ({ALL_TIME.id}, WEEK.id, WEEK, False),
        (set(), ALL_TIME.id, ALL_TIME, False),
    ],
)
def test_the_alias_and_the_week_it_stands_for(bound: set[str], name: str, board: object, allowed: bool) -> None:
    assert PRIVATE.may_read(identity("read", boards=bound), name, board, NOW) is allowed  # type: ignore[arg-type]


# Scores ------------------------------------------------------------------------------------------------------------


@given(identities, submissions)
def test_nobody_gets_further_than_their_scope(who: Identity | None, what: Submission) -> None:
    answer = code(PUBLIC, who, what)
    if who is None:
        assert answer == "unauthorized"
    elif not who.scopes & {"submit", "submit:any", "admin"}:
        assert answer == "forbidden"
    elif answer == "yes" and "admin" not in who.scopes:
        assert what.created_at is None
        if "submit:any" not in who.scopes:
            assert what.user_id == who.user_id and what.score_added > 0
    if answer == "yes" and who is not None and who.boards is not None:
        assert ALL_TIME.id in who.boards


@given(identities, submissions)
def test_more_scopes_never_allow_less(who: Identity | None, what: Submission) -> None:
    if who is not None and code(PUBLIC, who, what) == "yes":
        more = Identity(who.user_id, SCOPES, who.expires_at, who.boards)
        assert code(PUBLIC, more, what) == "yes"


def test_a_bound_token_hands_in_scores_where_it_is_bound_to_every_board_they_count_on() -> None:
    game = identity("submit:any", boards={ALL_TIME.id, CURRENT_WEEK})
    assert code(PUBLIC, game, submission()) == "yes"
    for boards in ({ALL_TIME.id}, {CURRENT_WEEK}, {ALL_TIME.id, WEEK.id}, set[str]()):
        assert code(PUBLIC, identity("submit:any", boards=boards), submission()) == "forbidden", boards
    past = submission(created_at=NOW - timedelta(days=7))
    assert code(PUBLIC, identity("admin", boards={ALL_TIME.id, LAST.id}), past) == "yes"
    assert code(PUBLIC, identity("admin", boards={ALL_TIME.id, CURRENT_WEEK}), past) == "forbidden"


@pytest.mark.parametrize(("added", "answer"), [(10, "yes"), (-10, "yes"), (11, "out_of_range"), (-11, "out_of_range")])
def test_a_deployment_may_bound_what_a_submission_carries(added: int, answer: str) -> None:
    bounded = Permissions(max_score=10)
    assert code(bounded, identity("submit:any"), submission(added)) == answer
    assert code(bounded, identity("admin"), submission(added)) == "yes", "a correction undoes whatever there was"


# People ------------------------------------------------------------------------------------------------------------


def test_an_admin_bound_to_boards_has_no_say_over_people() -> None:
    bound = identity("admin", boards={ALL_TIME.id})
    for ask in (PUBLIC.administer, PUBLIC.register):
        with pytest.raises(RealtimeError) as caught:
            ask(bound)
        assert caught.value.code == "forbidden"
    with pytest.raises(RealtimeError):
        PUBLIC.see_log(bound, 7)


def test_an_overlay_s_token_shows_nothing_of_its_user() -> None:
    """It may be seen on a stream: whoever copies it must not get the address of whom it was made for."""
    with pytest.raises(RealtimeError) as caught:
        PUBLIC.own_user(identity("read", user_id=7))
    assert caught.value.code == "forbidden"


def test_scores_of_a_leaderboard_are_told_to_whom_may_see_it_and_own_ones_always() -> None:
    def of(number: int, slug: str, **fields: Any) -> Leaderboard:
        return Leaderboard(slug, Definition(slug, slug, **fields), number, number, 2, "lap", "p01")

    own, best = of(2, "lap", visible="private"), of(3, "lap-best", of="lap")
    secret = of(4, "lap-secret", of="lap", visible="private")
    there = {**PUBLISHED.leaderboards, **{one.slug: one for one in (own, best, secret)}}
    rights = Permissions(directory=Directory(replace(PUBLISHED, leaderboards=there)))
    scores = {"lap:all_time": 1, "lap-best:all_time": 2, "lap-secret:all_time": 3, "lap-gone:all_time": 4}
    accepted = Accepted("a", 1, 0, 0, False, scores, True, "lap")
    told = rights.told(identity("submit", user_id=1), accepted)
    assert isinstance(told, Accepted) and told.scores == {"lap:all_time": 1, "lap-best:all_time": 2}
    told = rights.told(identity("admin"), accepted)
    assert isinstance(told, Accepted) and told.scores == {name: scores[name] for name in list(scores)[:3]}
    bound = replace(identity("submit", "read", user_id=1), leaderboards=frozenset({"lap"}))
    told = rights.told(bound, accepted)
    assert isinstance(told, Accepted) and "lap-secret:all_time" not in (told.scores or {})
    assert PUBLIC.told(None, accepted) is accepted
