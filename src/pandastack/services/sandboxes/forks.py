"""Copies of running sandboxes: forks, fork trees, and the promotion of one child of a tree."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import anyio

from pandastack.cluster import Engines
from pandastack.contract.sandboxes import Captured, ForkAnswer, NotStarted, SandboxSpec, Started
from pandastack.errors import BadRequestError, NotFoundError, PandastackError, ServerError
from pandastack.model.caller import Caller
from pandastack.model.previews import check_metadata
from pandastack.services.records.activity import Activity
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.spec import planned_child
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.sandboxes import Sandboxes, running_change
from pandastack.services.secrets.secrets import Secrets, split_metadata
from pandastack.services.settings import Settings
from pandastack.services.volumes.leases import Leases
from pandastack.store.sandboxes import SandboxRecord

MOST_CHILDREN = 16
_CHILD, _PROMOTED = "child", "promoted"


@dataclass(frozen=True, slots=True)
class Forked:
    """``id`` names the fork as a whole; ``children`` are in order, ``errors`` maps the index of a failed child."""

    id: str
    parent: SandboxRecord
    at: float
    children: list[SandboxRecord]
    errors: dict[int, PandastackError]


@dataclass(frozen=True, slots=True)
class Promoted:
    """The result of a promotion: ids that were deleted, and why others were not."""

    winner: str
    tree_id: str
    deleted: list[str]
    failures: dict[str, str]


class Forks:
    """Makes children with the parent's memory, processes and disk; the parent keeps running."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        sandboxes: Sandboxes,
        endings: Endings,
        secrets: Secrets,
        leases: Leases,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._sandboxes = sandboxes
        self._endings = endings
        self._secrets = secrets
        self._leases = leases
        self._settings = settings

    async def fork(self, caller: Caller, parent_id: str, metadata: Mapping[str, str], count: int = 1) -> Forked:
        """Make ``count`` copies; at least one succeeds. A refusal for lack of capacity promises that none was made."""
        fork_id = str(uuid.uuid4())
        wanted = [metadata] * _checked(count)
        return await self._fork(caller, parent_id, wanted, fork_id, NewEvent("fork.completed", {"fork_id": fork_id}))

    async def fork_tree(self, caller: Caller, parent_id: str, metadata: Mapping[str, str], count: int) -> Forked:
        """The same, with the children linked by ``fork_tree_id`` and ``fork_index`` in their metadata."""
        tree_id = str(uuid.uuid4())
        tree = {"fork_tree_id": tree_id, "fork_tree_role": _CHILD}
        wanted = [{**metadata, **tree, "fork_index": str(index)} for index in range(_checked(count))]
        return await self._fork(
            caller, parent_id, wanted, tree_id, NewEvent("fork_tree.completed", {"tree_id": tree_id})
        )

    async def copy(self, caller: Caller, parent_id: str, child_id: str, metadata: Mapping[str, str]) -> SandboxRecord:
        """Make one copy with this id for the product whose machine the parent is. Unlike a fork it is persistent, and
        the machine of that product, too."""
        done = NewEvent("fork.completed", {"fork_id": child_id})
        parent = self._registry.get_usable(caller, parent_id)
        own = {"id": child_id, "product": parent.product, "persistent": True, "ttl_seconds": parent.ttl_seconds}
        forked = await self._fork(caller, parent_id, [metadata], child_id, done, own)
        return forked.children[0]

    async def promote(self, caller: Caller, sandbox_id: str, cleanup: bool, tree_id: str | None) -> Promoted:
        """Make a child independent of its tree; with ``cleanup`` delete the tree's other children."""
        record = self._sandboxes.get(caller, sandbox_id)
        mine = record.metadata.get("fork_tree_id")
        if mine is None or tree_id not in (None, "", mine):
            if cleanup:
                raise BadRequestError(f"sandbox {sandbox_id} is not part of a tree of forks", field="tree_id")
            return Promoted(record.id, tree_id or "", [], {})
        with self._activity.hold(record.id):
            await self._registry.change(record.id, **self._independent(record))
            deleted, failures = await self._delete_siblings(caller, record, mine) if cleanup else ([], {})
            payload = {"tree_id": mine, "winner": record.id, "deleted": deleted, "failed": sorted(failures)}
            await self._registry.note(record.id, NewEvent("fork_tree.promoted", payload))
        return Promoted(record.id, mine, deleted, failures)

    async def _fork(
        self,
        caller: Caller,
        parent_id: str,
        wanted: Sequence[Mapping[str, str]],
        fork_id: str,
        completed: NewEvent,
        own: Mapping[str, Any] = MappingProxyType({}),
    ) -> Forked:
        """``own`` are fields of the children that differ from those of a fork."""
        for metadata in wanted:
            check_metadata(metadata)
        async with self._sandboxes.use(caller, parent_id, exclusive=True) as parent:
            split = [split_metadata(metadata) for metadata in wanted]
            inherited = await self._secrets.metadata(parent.workspace, parent.id)
            async with self._leases.cloned(parent, len(split)) as clones:
                children = [replace(planned_child(parent, shown, self._settings, clones), **own) for shown, _ in split]
                await self._registry.add_all(children)
            at = time.time()
            try:
                for child, (_, hidden) in zip(children, split, strict=True):
                    await self._secrets.keep_metadata(child.workspace, child.id, {**inherited, **hidden})
                with anyio.CancelScope(shield=True):  # undone once it is done: no child may start after the clean-up
                    specs = [SandboxSpec(child.id) for child in children]
                    answer = await self._engines.of(parent).fork(parent.id, specs)
                await anyio.lowlevel.checkpoint_if_cancelled()
                starts, errors = self._starts(children, answer)
                if not starts:
                    raise ServerError("none of the forks could be started") from next(iter(errors.values()))
                await self._undo([children[index] for index in errors], ServerError("the fork failed"))
                log = _staged(fork_id, len(children), answer.captured), _concluded(fork_id, completed, starts, errors)
                await self._registry.apply(
                    Change(parent.id, new_events=log[0]), *starts, Change(parent.id, new_events=log[1])
                )
            except BaseException as error:
                await self._undo(children, error)
                raise
            for each in starts:
                self._activity.start(each.sandbox_id)
            return Forked(fork_id, parent, at, [self._registry.get(each.sandbox_id) for each in starts], errors)

    def _starts(
        self, children: Sequence[SandboxRecord], answer: ForkAnswer
    ) -> tuple[list[Change], dict[int, PandastackError]]:
        """The changes for the children that were made, and by index the errors of the others."""
        machines = {machine.id: machine for machine in answer.children}
        starts: list[Change] = []
        errors: dict[int, PandastackError] = {}
        for index, child in enumerate(children):
            try:
                starts.append(running_change(self._registry.find(child.id), _made(machines.get(child.id))))
            except PandastackError as error:
                errors[index] = error
        return starts, errors

    async def _undo(self, children: list[SandboxRecord], error: BaseException) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for child in children:
                    tasks.start_soon(self._endings.undo, child.id, error)

    def _independent(self, record: SandboxRecord) -> dict[str, Any]:
        metadata = {**record.metadata, "fork_tree_role": _PROMOTED}
        if metadata.pop("explore_ttl", None) is None:
            return {"metadata": metadata}
        return {"metadata": metadata, "ttl_seconds": self._settings.default_ttl_seconds}

    async def _delete_siblings(
        self, caller: Caller, winner: SandboxRecord, tree_id: str
    ) -> tuple[list[str], dict[str, str]]:
        keep = {winner.id, winner.metadata.get("fork_parent_id")}
        siblings = [
            record.id
            for record in self._sandboxes.list(caller)
            if record.metadata.get("fork_tree_id") == tree_id
            and record.metadata.get("fork_tree_role") != _PROMOTED
            and record.id not in keep
        ]
        failures: dict[str, str] = {}

        async def delete(sibling: str) -> None:
            try:
                await self._sandboxes.delete(caller, sibling)
            except NotFoundError:
                pass  # another caller has deleted it
            except PandastackError as error:
                failures[sibling] = error.message

        async with anyio.create_task_group() as tasks:
            for sibling in siblings:
                tasks.start_soon(delete, sibling)
        return [sibling for sibling in siblings if sibling not in failures], failures


def _checked(count: int) -> int:
    if not 1 <= count <= MOST_CHILDREN:
        raise BadRequestError(f"count: must be between 1 and {MOST_CHILDREN}", field="count")
    return count


def _made(machine: Started | NotStarted | None) -> Started:
    if machine is None:
        raise ServerError("the engine did not report on this fork")
    if isinstance(machine, NotStarted):
        raise machine.failure.exception()
    return machine


def _staged(fork_id: str, count: int, captured: Captured) -> list[NewEvent]:
    cost = {"pause_ms": captured.pause_ms, "dirty_bytes": captured.dirty_bytes}
    return [NewEvent("fork.staged", {"fork_id": fork_id, "requested": count, **cost})]


def _concluded(
    fork_id: str, completed: NewEvent, starts: Sequence[Change], errors: Mapping[int, PandastackError]
) -> list[NewEvent]:
    failed = [
        NewEvent("fork.child_failed", {"fork_id": fork_id, "index": index, "error": error.message})
        for index, error in errors.items()
    ]
    forked = NewEvent("sandbox.forked", {"fork_id": fork_id, "children": [each.sandbox_id for each in starts]})
    counts = {"requested": len(starts) + len(errors), "succeeded": len(starts), "failed": len(errors)}
    return [*failed, forked, NewEvent(completed.type, {**completed.payload, "snapshot": fork_id, **counts})]
