"""Machines of failed runs that are kept for a person to look into: sandboxes of the workspace from then on."""

from __future__ import annotations

import time

import structlog

from pandastack.errors import PandastackError, QuotaError
from pandastack.products.functions.machines import PRODUCT
from pandastack.products.keeping import checked_keep, keep_machine
from pandastack.services import ControlPlane
from pandastack.store.functions import RunRecord

log = structlog.get_logger(__name__)


class Kept:
    """Keeps machines, a limited number for each workspace."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._now: dict[str, str] = {}
        """Sandboxes that are being kept, and their workspaces."""

    def admit(self, workspace: str, seconds: int) -> int:
        """Check how long a machine is to be kept, before anything has run. Raises :class:`BadRequestError`, and
        :class:`QuotaError` when the workspace has as many as it may."""
        most = self._plane.settings.max_kept_runs
        if checked_keep(seconds) and self._count(workspace) >= most:
            hint = "delete one of those sandboxes, or ask the operator to raise PANDASTACK_MAX_KEPT_RUNS"
            message = f"keep_seconds: the workspace keeps the machines of {most} failed runs"
            raise QuotaError(message, field="keep_seconds", hint=hint)
        return seconds

    async def keep(self, run: RunRecord, seconds: int) -> float | None:
        """Keep the machine of a run. Returns until when, in epoch seconds; None when it cannot be kept: several runs
        may have been admitted at once."""
        if run.sandbox_id is None or self._count(run.workspace) >= self._plane.settings.max_kept_runs:
            return None
        self._now[run.sandbox_id] = run.workspace
        try:
            await keep_machine(self._plane, run.workspace, run.sandbox_id, seconds)
        except PandastackError as error:
            log.warning("function.not_kept", run_id=run.id, cause=repr(error))
            return None
        finally:
            del self._now[run.sandbox_id]
        return time.time() + seconds

    def _count(self, workspace: str) -> int:
        """How many there are, known by the metadata that machines of runs get."""
        mine = (each for each in self._plane.registry.all() if each.workspace == workspace and each.product is None)
        kept = {each.id for each in mine if {PRODUCT, "run"} <= each.metadata.keys()}
        return len(kept | {sandbox_id for sandbox_id, owner in self._now.items() if owner == workspace})
