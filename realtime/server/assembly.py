"""Assembly: every object of a server, built in one place.

Owns which objects a server consists of, which tasks it runs, and which figures it shows. Must never start a task, ask a
store, or decide anything: what to do is the services', what to do it with is the settings'. Assumes open backends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from realtime.api.services import Services
from realtime.api.waiting import Waiting
from realtime.boards.catalogue import Directory
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.closed_ranks import ClosedRanks
from realtime.broadcast.cut_off import CutOff
from realtime.broadcast.rank_feed import RankFeed
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.broadcast.spreading import Spreading
from realtime.intake.admission import Admission
from realtime.intake.batching import Batching
from realtime.intake.intake import Intake
from realtime.metrics import Metrics
from realtime.origins import Origins
from realtime.people.accounts import Accounts
from realtime.people.authentication import Authentication
from realtime.people.limits import AddressCounter
from realtime.people.passwords import Passwords
from realtime.people.permissions import Permissions
from realtime.people.rate_limits import Limit, RateLimits
from realtime.people.revocation import Revocations
from realtime.people.tokens import Tokens
from realtime.repair.backlog import Backlog
from realtime.repair.resync import Resync
from realtime.server.backends import Backends, Task, common_tasks
from realtime.server.instrumentation import measure
from realtime.server.peers import Peers
from realtime.server.readiness import Readiness
from realtime.server.supervisor import Supervisor
from realtime.server.worker import Worker
from realtime.settings import Settings
from realtime.store.announcements import Announcements
from realtime.store.crowd import Crowd
from realtime.store.snapshots import SnapshotReader


@dataclass(frozen=True, slots=True)
class Assembly:
    """A server that is built and not started. Whoever starts it refreshes `revocations` first, runs every task under
    `supervisor`, and in the end stops `supervisor` and closes `passwords`."""

    services: Services
    revocations: Revocations
    passwords: Passwords
    supervisor: Supervisor
    tasks: Sequence[Task]


def assemble(
    settings: Settings,
    tokens: Tokens,
    backends: Backends,
    *,
    with_worker: bool,
    peers: Peers | None,
    is_leaving: Callable[[], bool],
    on_hopeless: Callable[[str], None],
) -> Assembly:
    """Builds a server on `backends`; `with_worker` does the worker's part in the same process. `peers` serve the same
    port. `is_leaving` says whether the process is about to end; `on_hopeless` is told the name of a task that cannot be
    kept going."""
    ledger, store, archive = backends.ledger, backends.store, backends.archive
    leaderboards = backends.leaderboards
    clock = ledger.clock
    now = clock.now
    snapshots = SnapshotReader(store)
    closed_boards = backends.closed_boards
    board_reader = BoardReader(snapshots, archive, now, closed_boards=closed_boards)
    closed_ranks = ClosedRanks(archive, closed_boards)
    rank_feed = RankFeed(snapshots, closed_ranks, now, most=settings.max_watches, directory=leaderboards)
    interval = settings.broadcast_interval_ms / 1000
    broadcaster = Broadcaster(
        board_reader, Announcements(store.link, store.link_of), store, now, interval=interval, directory=leaderboards
    )
    leaderboards.on_change.append(broadcaster.following.redefine)
    resync = Resync(ledger, store, now, boards=backends.partitions.boards_to_tell, read_after_write=broadcaster.expect)
    intake = Intake(
        ledger,
        store,
        backends.amend,
        now,
        batching=Batching(settings.batch_limit, settings.batch_lanes),
        limit=settings.queue_limit,
        read_after_write=broadcaster.expect,
        directory=leaderboards,
    )
    passwords = Passwords()
    metrics = Metrics(peers.others if peers else list)
    rate_limits = RateLimits(store, clock.timestamp, lambda name: metrics.limited.labels(name).inc())
    submissions = Limit("submissions_of_one_user", settings.submission_rate, 1)
    admission = Admission(intake, rate_limits, ledger, limit=submissions, room=settings.queue_limit)
    revocations = Revocations(ledger, lambda: backends.generations.current)
    rollover = Rollover(broadcaster.following, broadcaster.mark, now, ledger.health.beat, leaderboards)
    backlog = Backlog(ledger)
    worker = Worker(backends, resync) if with_worker else None
    supervisor = Supervisor(on_hopeless)
    waiting = Waiting(broadcaster.following, settings.max_waiting)
    connections = AddressCounter(settings.max_connections_per_address, settings.max_connections)

    tasks: list[Task] = [
        *common_tasks(backends),
        ("intake", intake.run),
        ("admission", admission.run),
        ("revocations", revocations.run),
        ("announcements", broadcaster.changes.listen),
        ("poll", broadcaster.changes.poll),
        ("read", broadcaster.read),
        ("deliver", broadcaster.delivery.run),
        ("waiting", waiting.run),
        ("backlog", backlog.watch),
        ("ranks", rank_feed.run),
        ("closed ranks", rank_feed.run_closed),
        ("rollover", rollover.run),
        *(worker.tasks() if worker else []),
    ]
    if settings.cut_off_s:
        tasks.append(("cut_off", CutOff(broadcaster.following, settings.cut_off_s).run))
    crowd = Crowd(store.link, uuid4().hex, clock.timestamp)
    spreading = Spreading(
        broadcaster.following, crowd, lambda: connections.open, is_leaving, a_second=settings.move_a_second
    )
    if settings.move_a_second:
        tasks.append(("spread", spreading.run))
    tasks.append(("lag", metrics.watch_lag))
    if peers is not None:
        tasks.append(("share", lambda: peers.share(metrics.own)))
        tasks.append(("attend", lambda: peers.attend(lambda: connections.open, is_leaving)))

    metrics.read_once([*backlog.figures(), *backends.figures_of_hosts(), *(worker.figures() if worker else [])])
    metrics.read(backends.figures())
    metrics.read([("counter", "moved", "Clients asked to go to emptier processes", lambda: spreading.moved)])
    measure(metrics, intake, broadcaster, supervisor, connections)

    permissions = _permissions(settings, leaderboards)
    services = Services(
        settings=settings,
        clock=clock,
        leaderboards=leaderboards,
        tokens=tokens,
        authentication=Authentication(tokens, revocations, permissions, Origins(settings.origins), clock.instant),
        rate_limits=rate_limits,
        admission=admission,
        intake=intake,
        broadcaster=broadcaster,
        rank_feed=rank_feed,
        board_reader=board_reader,
        archive=archive,
        closed_boards=closed_boards,
        definitions=backends.definitions,
        accounts=Accounts(ledger, resync, passwords, leaderboards, backends.reads),
        connections=connections,
        waiting=waiting,
        readiness=Readiness(backends, broadcaster, rollover, backlog, worker, is_leaving),
        metrics=metrics,
    )
    return Assembly(services, revocations, passwords, supervisor, tuple(tasks))


def _permissions(settings: Settings, directory: Directory) -> Permissions:
    return Permissions(
        directory=directory,
        private=settings.boards == "private",
        registration_open=settings.registration == "open",
        max_score=settings.max_score,
    )
