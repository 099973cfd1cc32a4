"""What differs between the files of a sandbox at two times, or of two sandboxes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack

from pandastack.cluster import EngineClient
from pandastack.contract.compare import Diff
from pandastack.contract.references import Point, SandboxRef, SnapshotRef, TemplateRef
from pandastack.errors import BadRequestError, NotFoundError
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT

NOW, TEMPLATE = "now", "template"


class Diffs:
    """States are named by :data:`NOW`, :data:`TEMPLATE`, or the id of a checkpoint, a snapshot or a sandbox."""

    def __init__(self, registry: Registry, engine: EngineClient, snapshots: Snapshots, sandboxes: Sandboxes) -> None:
        self._registry = registry
        self._engine = engine
        self._snapshots = snapshots
        self._sandboxes = sandboxes

    async def diff(self, workspace: str, sandbox_id: str, since: str, until: str, patch: bool) -> Diff:
        """The engine's answer. Sandboxes that are looked at in their present state are woken, and count as used.

        Raises :class:`BadRequestError` and :class:`NotFoundError` before anything is done.
        """
        sandbox = self._sandboxes.get(workspace, sandbox_id)
        before = await self._point(sandbox, since, "from")
        after = await self._point(sandbox, until, "to")
        if before == after:
            raise BadRequestError("from and to are the same state", field="to")
        async with AsyncExitStack() as stack:
            for each in _sandboxes(before, after):
                await stack.enter_async_context(self._sandboxes.use(workspace, each))
            return await self._engine.diff(before, after, patch)

    async def _point(self, sandbox: SandboxRecord, name: str, field: str) -> Point:
        if name == NOW:
            return SandboxRef(sandbox.id)
        if name == TEMPLATE:
            return TemplateRef(sandbox.template)
        other = self._registry.find(name)
        if other is not None and other.workspace == sandbox.workspace:
            return SandboxRef(other.id)
        try:
            return SnapshotRef((await self._snapshots.get(sandbox.workspace, name, SNAPSHOT, CHECKPOINT)).id)
        except NotFoundError as error:
            raise NotFoundError(
                f"{field}: no checkpoint, snapshot or sandbox has the id {name[:64]!r}",
                field=field,
                hint=f"an id, {NOW!r} or {TEMPLATE!r}; GET …/checkpoints lists the checkpoints",
            ) from error


def _sandboxes(*points: Point) -> Iterable[str]:
    return sorted(point.id for point in points if isinstance(point, SandboxRef))
