"""Permissions: who may do what here.

Owns every decision about permission: each is a method that returns, or raises RealtimeError `unauthorized` (say who you
are) or `forbidden` (you may not). Must never look at a token's text, a clock or a store: it judges an identity that was
verified, at a moment that is given. Assumes an identity that has lapsed is not handed in at all.

The table in `web/docs/rights.html` is generated from the test that holds these methods to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board, week_at
from realtime.boards.catalogue import Directory, is_alias, split_id
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.submissions import Accepted, Outcome, Submission
from realtime.errors import RealtimeError
from realtime.people.identity import Identity
from realtime.validation import INT_MAX


@dataclass(frozen=True, slots=True)
class Permissions:
    """What this deployment allows to whom; see the settings of the same names."""

    private: bool = False
    registration_open: bool = False
    max_score: int = INT_MAX
    directory: Directory = field(default_factory=Directory)
    """Which leaderboards there are, and what a token's aliases stand for."""

    @property
    def restrict_reading(self) -> bool:
        """Whether there is any board that not everybody may read."""
        return self.private or self.directory.current.has_private

    # Boards --------------------------------------------------------------------------------------------------

    def may_read(self, identity: Identity | None, name: str, board: Board, now: datetime) -> bool:
        """Whether `board`, asked for as `name` (its id, or an alias), may be shown to `identity`."""
        visible = board.leaderboard.definition.visible
        if visible == "public" or (visible is None and not self.private):
            return True
        return identity is not None and identity.may("read", "admin") and self._bound_to(identity, name, board, now)

    def list_boards(self, identity: Identity | None) -> None:
        """Whether boards may be listed: those that `may_read` allows."""
        if self.private and identity is None:
            raise _private()
        if self.private and identity is not None and not identity.may("read", "admin"):
            raise RealtimeError("forbidden", "This token may not read boards.")

    def read(self, identity: Identity | None, name: str, board: Board, now: datetime) -> None:
        """Raises where `may_read` says no."""
        if self.may_read(identity, name, board, now):
            return
        if identity is None:
            raise _private()
        raise RealtimeError("forbidden", "This token may not read that board.")

    def _bound_to(self, identity: Identity, name: str, board: Board, now: datetime) -> bool:
        """Whether what a token is bound to covers what is asked for.

        Who asks for an alias follows it from window to window, so the alias itself must be named by the token.
        """
        if identity.leaderboards is not None and board.leaderboard.slug not in identity.leaderboards:
            return False
        if identity.boards is None or name in identity.boards:
            return True
        if is_alias(name):
            return False
        return board.id in identity.boards or any(self._stands_for(alias, board, now) for alias in identity.boards)

    def _stands_for(self, alias: str, board: Board, now: datetime) -> bool:
        try:
            return is_alias(alias) and self.directory.resolve(alias, now) == board
        except RealtimeError:
            return False

    # Leaderboards ---------------------------------------------------------------------------------------------

    def may_see(self, identity: Identity | None, definition: Definition) -> bool:
        """Whether what a leaderboard is may be shown to `identity`: to whoever may read boards of it."""
        if definition.visible == "public" or (definition.visible is None and not self.private):
            return True
        if identity is None or not identity.may("read", "admin"):
            return False
        return identity.leaderboards is None or definition.slug in identity.leaderboards

    def see(self, identity: Identity | None, definition: Definition) -> None:
        """Raises where `may_see` says no."""
        if self.may_see(identity, definition):
            return
        if identity is None:
            raise _private()
        raise RealtimeError("forbidden", "This token may not read that leaderboard.")

    def told(self, identity: Identity | None, outcome: Outcome) -> Outcome:
        """An outcome as it may be told: without scores of leaderboards `of` the one handed in to that `identity` may
        not see."""
        if type(outcome) is not Accepted or outcome.scores is None or not self.restrict_reading:
            return outcome
        known = self.directory.current.leaderboards
        slugs = {slug: known.get(slug) for slug in {split_id(board)[0] for board in outcome.scores}}
        hidden = {
            slug
            for slug, of in slugs.items()
            if slug != outcome.leaderboard and (of is None or not self.may_see(identity, of.definition))
        }
        scores = {board: score for board, score in outcome.scores.items() if split_id(board)[0] not in hidden}
        return outcome._replace(scores=scores)

    # Scores --------------------------------------------------------------------------------------------------

    def submit(self, identity: Identity | None, submission: Submission, leaderboard: Leaderboard = DEFAULT) -> None:
        """Whether a submission may be handed in. Raises also `out_of_range` for a score beyond this deployment's limit.

        `submit` is for one's own scores, which must be positive where they are added up; `submit:any` for everyone's,
        negative ones too; `admin` may also say when it was, and is held to no limit.
        """
        if identity is None:
            raise unknown()
        if identity.leaderboards is not None and leaderboard.slug not in identity.leaderboards:
            raise RealtimeError("forbidden", f"This token is not bound to the leaderboard {leaderboard.slug}.")
        if identity.may("admin"):
            return _on_bound_boards(identity, submission)
        if submission.created_at is not None:
            raise RealtimeError("forbidden", "Only an admin may say when a score was made.")
        if not identity.may("submit:any"):
            _submit_own(identity, submission, leaderboard)
        _on_bound_boards(identity, submission)
        if leaderboard.slug == DEFAULT.slug and abs(submission.score_added or 0) > self.max_score:
            raise RealtimeError("out_of_range", f"score_added must be from {-self.max_score} to {self.max_score} here.")

    # People --------------------------------------------------------------------------------------------------

    def register(self, identity: Identity | None) -> None:
        """Whether a user may be made."""
        if not self.registration_open and not _administers(identity):
            raise RealtimeError("forbidden", "Registration is closed here.")

    def own_user(self, identity: Identity | None) -> int:
        """The user that `identity` may look at, rename and delete: itself."""
        if identity is None:
            raise unknown()
        if identity.user_id is None:
            raise RealtimeError("forbidden", "This token speaks for no user.")
        if not identity.may("submit", "submit:any", "admin"):
            raise RealtimeError("forbidden", "This token may look at boards alone.")
        return identity.user_id

    def see_log(self, identity: Identity | None, user_id: int) -> None:
        """Whether a user's transactions may be seen."""
        if not _administers(identity) and self.own_user(identity) != user_id:
            raise RealtimeError("forbidden", "Only the user and an admin may see this.")

    def administer(self, identity: Identity | None) -> Identity:
        """`identity`, where it may ban people and end tokens."""
        if identity is None:
            raise unknown()
        if not _administers(identity):
            raise RealtimeError("forbidden", "This needs the scope admin.")
        return identity


def unknown() -> RealtimeError:
    """What is said to somebody who has not said who they are."""
    return RealtimeError("unauthorized", "Send a token: in the Authorization header, or with auth.")


def _private() -> RealtimeError:
    return RealtimeError("unauthorized", "Boards are private here: send a token of scope read.")


def _administers(identity: Identity | None) -> bool:
    # One that is bound has no say over people, who are on every board.
    return identity is not None and identity.may("admin") and identity.boards is None is identity.leaderboards


def _submit_own(identity: Identity, submission: Submission, leaderboard: Leaderboard) -> None:
    if not identity.may("submit"):
        raise RealtimeError("forbidden", "This token may not hand in scores.")
    if leaderboard.definition.submit == "servers":
        raise RealtimeError("forbidden", f"Only game servers hand in scores of {leaderboard.slug}.")
    if identity.user_id is None or submission.user_id != identity.user_id:
        raise RealtimeError("forbidden", "This token may hand in scores of its own user alone.")
    if leaderboard.definition.operator == "sum" and (submission.score_added or 0) <= 0:
        raise RealtimeError("forbidden", "This token may hand in only positive scores.")


def _on_bound_boards(identity: Identity, submission: Submission) -> None:
    """A score counts on all time and on its week: a bound token must be bound to both."""
    if identity.boards is None:
        return
    if submission.leaderboard != DEFAULT.slug:
        raise RealtimeError("forbidden", "This token is bound to boards, and the score would count on others too.")
    week = CURRENT_WEEK if submission.created_at is None else week_at(submission.created_at).id
    if not identity.boards >= {ALL_TIME.id, week}:
        raise RealtimeError("forbidden", "This token is bound to boards, and the score would count on others too.")
