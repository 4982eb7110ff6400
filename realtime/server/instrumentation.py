"""Instrumentation: the metrics hung on what they measure.

Owns which figure is read from which object. Must never cost the hot path more than an addition. Assumes that nobody
else sets the hooks of intake, broadcaster and delivery.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from realtime.boards.board import Board
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.following import LEADERBOARDS
from realtime.intake.intake import Intake
from realtime.metrics import Metrics
from realtime.people.limits import AddressCounter
from realtime.server.supervisor import Supervisor


def measure(
    metrics: Metrics,
    intake: Intake,
    broadcaster: Broadcaster,
    supervisor: Supervisor,
    connections: AddressCounter,
) -> None:
    """Hangs the metrics on what they measure."""

    def batch(size: int, seconds: float) -> None:
        metrics.batch_size.observe(size)
        metrics.commit_seconds.observe(seconds)

    following = broadcaster.following
    arrivals: dict[Board, float] = {}  # when the oldest submission came that a board does not show yet

    def storing(boards: Iterable[Board], arrived: float) -> None:
        for board in filter(following.stream, boards):
            if arrivals.get(board, 0.0) < arrived - 1.0:  # older: a change below the top 100, which has no diff
                arrivals[board] = arrived

    def changed(board: Board) -> None:
        arrived = arrivals.pop(board, None)
        if arrived is not None:
            metrics.submit_to_diff_seconds.observe(asyncio.get_running_loop().time() - arrived)

    accepted: Counter[str] = Counter()  # by leaderboard: of the first that anything came to, and of all others

    def count(by_leaderboard: Counter[str]) -> None:
        for slug, number in by_leaderboard.items():
            accepted[slug if slug in accepted or len(accepted) < LEADERBOARDS else "(other)"] += number

    intake.on_batch = batch
    intake.on_accepted = count
    intake.on_storing = storing
    broadcaster.on_changed = changed
    intake.on_stored = metrics.store_seconds.observe
    delivery = broadcaster.delivery
    delivery.on_pass = lambda deliveries, seconds: metrics.pass_seconds.observe(seconds)
    metrics.read(
        [
            ("gauge", "connections", "Open sockets", lambda: connections.open),
            ("gauge", "subscribers", "Subscriptions by class of board", following.subscriptions_by_class),
            ("gauge", "viewers", "Connections that follow boards, by transport", following.subscribers_by_transport),
            ("gauge", "followers", "Subscriptions by leaderboard", following.subscriptions_by_leaderboard),
            ("gauge", "behind", "Subscribers that are behind", lambda: following.behind),
            ("gauge", "boards_followed", "Boards with subscribers", lambda: sum(1 for _ in following.streams)),
            ("gauge", "live", "1 while boards move", lambda: float(broadcaster.live)),
            ("counter", "accepted", "Submissions recorded, by leaderboard", lambda: dict(accepted)),
            ("gauge", "submissions_waiting", "Submissions in the queue", lambda: intake.waiting),
            ("counter", "deliveries", "Frames written to subscribers", lambda: delivery.deliveries),
            ("counter", "delivered_bytes", "Payload of these, uncompressed", lambda: delivery.delivered_bytes),
            ("counter", "skipped_diffs", "Diffs not written to subscribers behind", lambda: delivery.skipped),
            ("counter", "task_restarts", "Restarts of background tasks", lambda: supervisor.restarts),
        ]
    )
