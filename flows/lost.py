"""Lost: database files that are gone although their batch is open, and its keys are dead.

A folder without a file is an answer: what is not there is not read, and its collection FAILED. A database that the
catalog names and that is not there is refused by its store, at every look: the catalog may be wrong, the file restored.
Where neither is so, an operator's word ends the batch without it (flows/as_it_stands.py): nothing is done there, and
its collections are FAILED. A database that comes back before that run's look is validated is erased by the next run:
the step is not done while a store is passed over.
"""

from __future__ import annotations

from fangxin.data.requests import Batch
from fangxin.data.stores.database_files import DatabaseFiles
from fangxin.data.vocabulary import Store
from fangxin.flows.estate import Estate


def lost(estate: Estate, batch: Batch) -> tuple[str, ...]:
    """The stores whose one database is gone, by name; none before the keys are dead: until then nothing is lost."""
    if batch.state != "open" or estate.requests.note(batch.id, "destroy_keys") is None:
        return ()
    return tuple(s.name for s in estate.stores if isinstance(s, DatabaseFiles) and s.gone)


def passed_over(store: Store) -> bool:
    """Whether a run with an operator's word passes over a store, whose database is gone."""
    return isinstance(store, DatabaseFiles) and store.conceded and store.gone


def concede(estate: Estate, batch: Batch) -> None:
    """Let the steps of this run pass over databases that are gone."""
    if lost(estate, batch):
        for store in estate.stores:
            if isinstance(store, DatabaseFiles):
                store.conceded = True
