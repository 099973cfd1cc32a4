"""Limits what callers may use of a guest at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pandastack.errors import QuotaError
from pandastack.services.settings import Settings


class StreamQuota:
    """Counts the commands, views and terminals that are open on each sandbox: a guest serves a limited number."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_streams
        self._open: dict[str, int] = {}

    @contextmanager
    def hold(self, sandbox_id: str) -> Iterator[None]:
        """Count one more while the block runs; raises :class:`QuotaError`."""
        count = self._open.get(sandbox_id, 0)
        if count >= self._most:
            raise QuotaError(
                f"sandbox {sandbox_id} already has {count} commands and views open",
                hint="end some, or ask the operator to raise PANDASTACK_MAX_STREAMS",
            )
        self._open[sandbox_id] = count + 1
        try:
            yield
        finally:
            self._open[sandbox_id] -= 1
            if not self._open[sandbox_id]:
                del self._open[sandbox_id]
