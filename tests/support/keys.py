"""Names of the store's keys for tests: as the store that the tests run on has them, a cluster or not."""

from __future__ import annotations

import os

from realtime.boards.board import Board
from realtime.store.keys import Keys

IS_CLUSTER = "+cluster://" in os.environ.get("DRAGONFLY_URL", "")

_PUBLISHED = Keys(clustered=IS_CLUSTER)

EPOCH_KEY = _PUBLISHED.epoch
RUN_KEY = _PUBLISHED.run
LEDGER_KEY = _PUBLISHED.ledger
CROWD_KEY = _PUBLISHED.crowd
USERS_VERSION_KEY = _PUBLISHED.users_version
TAG = _PUBLISHED.tag


def _of(board: Board) -> Keys:
    return Keys(board.leaderboard.partition, clustered=IS_CLUSTER)


def scores_key(board: Board) -> str:
    return _of(board).scores(board)


def version_key(board: Board) -> str:
    return _of(board).version(board)


def versions_key(board: Board) -> str:
    return _of(board).versions(board)


def metadata_key(board: Board) -> str:
    return _of(board).metadata(board)


def cache_key(board: Board) -> str:
    return _of(board).cache(board)


def channel(board: Board) -> str:
    return _of(board).channel_of(board)


def user_key(user_id: int) -> str:
    return _PUBLISHED.user(user_id)
