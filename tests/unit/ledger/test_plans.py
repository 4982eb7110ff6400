"""Plans: an order of steps in which each can be done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.definition_sets import check_together
from realtime.boards.definitions import DEFAULT_DEFINITION, Definition
from realtime.ledger.plans import Step, steps_of

SLUGS = ("a", "b", "c", "d", "e")


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Definition]:
    """Some leaderboards, and some that are `of` them or of default."""
    slugs = draw(st.lists(st.sampled_from(SLUGS), unique=True))
    own = {slug for slug in slugs if draw(st.booleans())}
    return {
        slug: Definition(slug, slug, None if slug in own else draw(st.sampled_from(sorted(own | {"default"}))))
        for slug in slugs
    }


@given(sets(), sets(), st.booleans())
def test_every_step_can_be_done_when_it_comes(
    there: dict[str, Definition], wanted: dict[str, Definition], prune: bool
) -> None:
    now = {**there, "default": DEFAULT_DEFINITION}
    whole = {**({} if prune else now), **wanted, "default": DEFAULT_DEFINITION}
    if check_together(whole, whole):
        return  # nobody wants that: it is refused before the first step
    for slug, definition in steps_of(now, wanted, prune=prune):
        if definition is None:
            del now[slug]
        else:
            now[slug] = definition
        assert not check_together(now, now), slug
    assert now == whole


def test_default_is_never_removed() -> None:
    assert steps_of({"default": DEFAULT_DEFINITION, "a": Definition("a", "a")}, {}, prune=True) == [Step("a", None)]
