"""What counts as a difference between what the two stores say."""

from __future__ import annotations

import pytest

from realtime.repair.comparison import Kind, Said, judge, user_id_of


@pytest.mark.parametrize(
    ("ledger", "store", "kind"),
    [
        (Said(3, 10), Said(3, 10.0), None),
        (Said(3, None), Said(3, None), None),
        (Said(3, 10), Said(3, 11.0), Kind.OTHER),
        (Said(3, 10), Said(3, 10.5), Kind.OTHER),
        (Said(3, 10), Said(3, float("inf")), Kind.OTHER),
        (Said(3, 10), Said(3, None), Kind.OTHER),
        (Said(3, None), Said(3, 10.0), Kind.OTHER),
        (Said(3, 10), Said(2, 10.0), Kind.OTHER),
        (Said(3, 10), Said(None, 10.0), Kind.OTHER),
        (Said(3, 10), Said(None, None), Kind.OTHER),
        (Said(3, 10), Said(4, 10.0), Kind.AHEAD),
        (Said(3, 10), Said(-1, 10.0), Kind.STRAY),
        (None, Said(None, 5.0), Kind.STRAY),
        (None, Said(2, None), Kind.STRAY),
        (None, Said(None, None), None),
        (Said(2, "Ann"), Said(2, "Ann"), None),
        (Said(2, "Ann"), Said(2, "Bo"), Kind.OTHER),
        (Said(2**53, 2**53), Said(2**53, float(2**53)), None),
        (Said(2, 2**53 - 1), Said(2, float(2**53)), Kind.OTHER),
    ],
)
def test_the_verdict(ledger: Said | None, store: Said, kind: Kind | None) -> None:
    assert judge(ledger, store) is kind


@pytest.mark.parametrize(
    ("member", "user_id"),
    [
        (b"7", 7),
        (b"9007199254740991", 2**53 - 1),
        (b"9007199254740992", None),
        (b"99999999999999999999", None),
        (b"0", None),
        (b"007", None),
        (b"-7", None),
        (b"7.0", None),
        (b"", None),
        (b"abc", None),
        (b"\xff", None),
    ],
)
def test_which_members_can_be_users(member: bytes, user_id: int | None) -> None:
    assert user_id_of(member) == user_id
