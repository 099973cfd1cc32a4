"""Differences between the files of a sandbox at two times, or of two sandboxes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from pandastack.cluster import Engines
from pandastack.contract.compare import Diff
from pandastack.contract.references import Point, SandboxRef, SnapshotRef
from pandastack.errors import BadRequestError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.templates.owners import template_of
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT

NOW, TEMPLATE = "now", "template"


@dataclass(frozen=True, slots=True)
class _Located:
    point: Point
    node: str


class Diffs:
    """Compares states. A state is :data:`NOW`, :data:`TEMPLATE`, or the id of a checkpoint, a snapshot or a sandbox."""

    def __init__(self, registry: Registry, engines: Engines, snapshots: Snapshots, sandboxes: Sandboxes) -> None:
        self._registry = registry
        self._engines = engines
        self._snapshots = snapshots
        self._sandboxes = sandboxes

    async def diff(self, caller: Caller, sandbox_id: str, since: str, until: str, patch: bool) -> Diff:
        """The engine's comparison. Sandboxes compared in their present state are woken, and count as used.

        Raises :class:`BadRequestError` and :class:`NotFoundError` before anything is done.
        """
        sandbox = self._sandboxes.get(caller, sandbox_id)
        before = await self._find(caller, sandbox, since, "from")
        after = await self._find(caller, sandbox, until, "to")
        if before == after:
            raise BadRequestError("from and to are the same state", field="to")
        if before.node != after.node:
            raise BadRequestError("to: it is on another node than from", field="to")
        async with AsyncExitStack() as stack:
            for each in _sandboxes(before.point, after.point):
                await stack.enter_async_context(self._sandboxes.use(caller, each))
            return await self._engines.of(before).diff(before.point, after.point, patch)

    async def _find(self, caller: Caller, sandbox: SandboxRecord, name: str, field: str) -> _Located:
        if name == NOW:
            return _Located(SandboxRef(sandbox.id), sandbox.node)
        if name == TEMPLATE:
            return _Located(template_of(sandbox), sandbox.node)
        other = self._registry.find(name)
        if other is not None and other.workspace == caller.workspace:
            return _Located(SandboxRef(other.id), other.node)
        try:
            found = await self._snapshots.get(caller, name, SNAPSHOT, CHECKPOINT)
            return _Located(SnapshotRef(found.id), found.node)
        except NotFoundError as error:
            raise NotFoundError(
                f"{field}: no checkpoint, snapshot or sandbox has the id {name[:64]!r}",
                field=field,
                hint=f"an id, {NOW!r} or {TEMPLATE!r}; GET …/checkpoints lists the checkpoints",
            ) from error


def _sandboxes(*points: Point) -> Iterable[str]:
    return sorted(point.id for point in points if isinstance(point, SandboxRef))
