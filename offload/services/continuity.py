"""Since when the index has been kept up without a gap: what is older may have had a row that is lost.

An index that was restored from a backup does not know what came after it, nor that it was restored. But what
it was told last lies as far back as the backup, so what is kept up begins anew at the restore.
"""

from datetime import datetime, timedelta

from offload.index import Index, Transaction, leases

LAPSE = timedelta(minutes=5)
"""Where no controller said for so long that it keeps the index up, there is a gap."""
_UNBROKEN = "unbroken-since"


def note_continuity(index: Index) -> None:
    """Say, every minute, that the index is kept up."""
    with index.begin() as tx:
        leases.keep_up(tx, _UNBROKEN, lapse=LAPSE)


def unbroken_since(tx: Transaction) -> datetime | None:
    """Since when the index has been kept up; None where it is not."""
    return leases.kept_up_since(tx, _UNBROKEN)
