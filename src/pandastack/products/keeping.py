"""Keeps the machine of something that has failed, so that a person can look into it."""

from __future__ import annotations

import structlog

from pandastack.errors import BadRequestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane
from pandastack.services.records.spec import LifecyclePatch

LONGEST_KEEP = 24 * 3600

log = structlog.get_logger(__name__)


def checked_keep(seconds: int) -> int:
    """How long a machine is kept after a failure; 0: not at all. Raises :class:`BadRequestError`."""
    if not 0 <= seconds <= LONGEST_KEEP:
        raise BadRequestError(f"keep_seconds: must be from 0 to {LONGEST_KEEP}", field="keep_seconds")
    return seconds


async def keep_machine(plane: ControlPlane, workspace: str, sandbox_id: str, seconds: int) -> None:
    """Make the machine of a product a sandbox of the workspace, hibernated, which is deleted when it was not used for
    ``seconds``. Raises :class:`PandastackError` when it stays the product's."""
    caller = Caller.server(workspace)
    patch = LifecyclePatch(ttl_seconds=seconds, max_lifetime_seconds=0)
    await plane.sandboxes.set_lifecycle(caller, sandbox_id, patch)
    # From here on it is the workspace's. Before, a crash leaves a machine that the next start deletes.
    await plane.registry.change(sandbox_id, product=None, max_lifetime_seconds=None)
    try:
        await plane.lifecycle.hibernate(caller, sandbox_id)
    except PandastackError as error:  # it runs, until its idle limit
        log.warning("kept.not_hibernated", sandbox_id=sandbox_id, cause=repr(error))
