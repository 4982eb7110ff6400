"""Closed weeks: what reads them and what keeps them right, over one ledger and one store, as a process has them."""

from __future__ import annotations

from realtime.ledger.archive import Archive
from realtime.ledger.closing import Closing
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.store.store import Store


def views_of(ledger: Ledger, store: Store) -> Views:
    """What makes the views of closed weeks; they are read through its `archive`."""
    closing = Closing(ledger)
    return Views(Archive(ledger, store, closing), closing)
