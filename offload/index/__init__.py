"""The retention index: SQL tables and the transactions over them. Alone knows SQLAlchemy.

A run's `revision` is its one counter: every change of its artifacts, and every mark "look again", adds one.
An artifact's `seq` is the run's revision at its commit; a tombstone keeps its own as `ended_revision`. A run
is *dirty* while `revision` is ahead of `published_revision`, and `dirty_since` says since when. A deleted run
is never dirty: there is no status left to publish to.

Functions take an open transaction (`with index.begin() as tx`, or `index.read()` for those that only read)
and never commit. Whatever changes a run's artifacts locks the run's row first; who locks several, locks them
in uid order. Times are aware and UTC; where "now" matters it is the database's.
"""

from offload.index.database import Index, Transaction
from offload.index.meta import identity

__all__ = ["Index", "Transaction", "identity"]
