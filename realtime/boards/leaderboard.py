"""Leaderboards: a rule that submissions are ranked by, as one process knows it.

Owns what a leaderboard is beside its definition: its numbers in the ledger, and the content of the store that holds its
boards. Must never change: what was redefined is another value. Assumes that the ledger gave the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from realtime.boards.definitions import DEFAULT_DEFINITION, DEFAULT_SLUG, Definition
from realtime.boards.standings import Order

PUBLISHED_RULE: Final = 1
"""The number of the standings that `default` has where nobody has defined anything of it."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """A leaderboard. Two values of one slug may differ in everything else, where it was redefined in between."""

    slug: str
    definition: Definition
    id: int
    """Its number in the ledger, for good."""
    rule: int | None
    """The number of the standings that are shown; None while its first ones are being made."""
    source: int
    """The leaderboard whose submissions it ranks: itself, or the one it is `of`."""
    source_slug: str
    partition: str = ""
    """The content of the store that holds its boards; '' for the published one, whose keys carry no tag."""
    next_rule: int | None = None
    """The number of standings that are being made beside those shown; None while there are none."""
    order: Order = field(init=False)
    """Who stands higher on its boards, and how ranks are counted."""

    def __post_init__(self) -> None:
        rule = self.definition
        object.__setattr__(self, "order", Order(rule.order == "ascending", rule.ties, rule.ranks))

    @property
    def rule_in_store(self) -> str:
        """What the store calls the rule that its boards are made by: nothing where there is none, or the published one
        alone, which nobody has to name."""
        is_published = self.slug == DEFAULT.slug and self.rule == PUBLISHED_RULE
        return "" if self.rule is None or is_published else str(self.rule)

    @property
    def is_live(self) -> bool:
        """Whether there are boards to be shown."""
        return self.rule is not None

    @property
    def takes_submissions(self) -> bool:
        """Whether submissions are handed in to it, and not to one that it is `of`."""
        return self.source == self.id


DEFAULT: Final = Leaderboard(DEFAULT_SLUG, DEFAULT_DEFINITION, 1, PUBLISHED_RULE, 1, DEFAULT_SLUG)
"""The published leaderboard, as it is where nobody has defined anything."""


def partition_of(source_slug: str, partitions: int) -> str:
    """The partition of all leaderboards that rank the submissions of `source_slug`: `p07`, or '' for the published
    content. `partitions` is fixed for a deployment, 1 to 100."""
    return "" if source_slug == DEFAULT.slug else f"p{crc32(source_slug.encode()) % partitions:02}"
