"""The state of the control plane, in SQL."""

from pandastack.store.database import Store, open_store

__all__ = ["Store", "open_store"]
