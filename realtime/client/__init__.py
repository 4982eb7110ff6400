"""The Python client library: `from realtime.client import connect`."""

from realtime.boards.formats import format_score
from realtime.boards.standings import Snapshot
from realtime.boards.submissions import Accepted, Outcome, Rejected
from realtime.client.boards import Refused
from realtime.client.client import Client, connect
from realtime.client.connection import Timing
from realtime.client.descriptions import Description

__all__ = [
    "Accepted",
    "Client",
    "Description",
    "Outcome",
    "Refused",
    "Rejected",
    "Snapshot",
    "Timing",
    "connect",
    "format_score",
]
