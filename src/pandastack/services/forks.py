"""Copies of running sandboxes: forks, trees of forks, and the promotion of one of a tree."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio

from pandastack.errors import BadRequestError, NotFoundError, PandastackError, ServerError, from_body
from pandastack.services.plans import planned_child
from pandastack.services.registry import Happening
from pandastack.services.sandboxes import Parts, Sandboxes
from pandastack.store.sandboxes import SandboxRecord

MOST_CHILDREN = 16
_CHILD, _PROMOTED = "child", "promoted"


@dataclass(frozen=True, slots=True)
class Forked:
    """``id`` names the fork as a whole; ``children`` in order, ``errors`` by the index of a child that failed."""

    id: str
    parent: SandboxRecord
    at: float
    children: list[SandboxRecord]
    errors: dict[int, PandastackError]


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a promotion did: ids that were deleted, and why others were not."""

    winner: str
    tree_id: str
    deleted: list[str]
    failures: dict[str, str]


class Forks:
    """A child has the parent's memory, processes and disk; the parent runs on."""

    def __init__(self, parts: Parts, sandboxes: Sandboxes) -> None:
        self._registry = parts.registry
        self._engine = parts.engine
        self._activity = parts.activity
        self._settings = parts.settings
        self._sandboxes = sandboxes

    async def fork(self, workspace: str, parent_id: str, metadata: Mapping[str, str], count: int = 1) -> Forked:
        """``count`` copies, at least one of which was made. A refusal for capacity is a promise that there is none."""
        done = await self._fork(workspace, parent_id, [metadata] * _checked(count), str(uuid.uuid4()))
        await self._conclude(done, "fork.completed", {"fork_id": done.id})
        return done

    async def fork_tree(self, workspace: str, parent_id: str, metadata: Mapping[str, str], count: int) -> Forked:
        """The same, and the children know of each other: ``fork_tree_id``, ``fork_index`` in their metadata."""
        tree_id = str(uuid.uuid4())
        tree = {"fork_tree_id": tree_id, "fork_tree_role": _CHILD}
        wanted = [{**metadata, **tree, "fork_index": str(index)} for index in range(_checked(count))]
        done = await self._fork(workspace, parent_id, wanted, tree_id)
        await self._conclude(done, "fork_tree.completed", {"tree_id": tree_id})
        return done

    async def promote(self, workspace: str, sandbox_id: str, cleanup: bool, tree_id: str | None) -> Promoted:
        """Make a child independent of its tree; with ``cleanup`` delete the tree's other children."""
        record = self._sandboxes.get(workspace, sandbox_id)
        mine = record.metadata.get("fork_tree_id")
        if mine is None or tree_id not in (None, "", mine):
            if cleanup:
                raise BadRequestError(f"sandbox {sandbox_id} is not part of a tree of forks", field="tree_id")
            return Promoted(record.id, tree_id or "", [], {})
        with self._activity.hold(record.id):
            await self._registry.change(record.id, **self._independent(record))
            deleted, failures = await self._delete_siblings(record, mine) if cleanup else ([], {})
            payload = {"tree_id": mine, "winner": record.id, "deleted": deleted, "failed": sorted(failures)}
            await self._registry.note(record.id, Happening("fork_tree.promoted", payload))
        return Promoted(record.id, mine, deleted, failures)

    async def _fork(
        self, workspace: str, parent_id: str, wanted: list[Mapping[str, str]] | list[dict[str, str]], fork_id: str
    ) -> Forked:
        async with self._sandboxes.use(workspace, parent_id, alone=True) as parent:
            children = [planned_child(parent, metadata, self._settings) for metadata in wanted]
            await self._registry.add_all(children)
            done = Forked(fork_id, parent, time.time(), [], {})
            try:
                with anyio.CancelScope(shield=True):  # undone when it is done: no child may begin after its undoing
                    answer = await self._engine.fork(parent.id, [child.id for child in children])
                await anyio.lowlevel.checkpoint_if_cancelled()
                await self._registry.note(parent.id, _staged(fork_id, len(children), answer))
                machines = {machine["id"]: machine for machine in answer["children"]}
                for index, child in enumerate(children):
                    await self._settle(done, index, child.id, machines.get(child.id))
            except BaseException as error:
                await self._undo(children, error)
                raise
        if not done.children:
            raise ServerError("none of the forks could be started") from next(iter(done.errors.values()))
        return done

    async def _settle(self, done: Forked, index: int, child_id: str, machine: Mapping[str, Any] | None) -> None:
        try:
            done.children.append(await self._sandboxes.started(child_id, _made(machine)))
        except PandastackError as error:
            done.errors[index] = error
            await self._sandboxes.undo(child_id, ServerError(error.message))
            payload = {"fork_id": done.id, "index": index, "error": error.message}
            await self._registry.note(done.parent.id, Happening("fork.child_failed", payload))

    async def _undo(self, children: list[SandboxRecord], error: BaseException) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for child in children:
                    tasks.start_soon(self._sandboxes.undo, child.id, error)

    async def _conclude(self, done: Forked, type: str, names: dict[str, str]) -> None:
        counts = {"requested": len(done.children) + len(done.errors), "succeeded": len(done.children)}
        payload = {**names, "snapshot": done.id, **counts, "failed": len(done.errors)}
        forked = Happening("sandbox.forked", {"fork_id": done.id, "children": [child.id for child in done.children]})
        with suppress(NotFoundError):  # the parent was deleted meanwhile; its children live
            await self._registry.note(done.parent.id, forked, Happening(type, payload))

    def _independent(self, record: SandboxRecord) -> dict[str, Any]:
        metadata = {**record.metadata, "fork_tree_role": _PROMOTED}
        if metadata.pop("explore_ttl", None) is None:
            return {"metadata": metadata}
        return {"metadata": metadata, "ttl_seconds": self._settings.default_ttl_seconds}

    async def _delete_siblings(self, winner: SandboxRecord, tree_id: str) -> tuple[list[str], dict[str, str]]:
        keep = {winner.id, winner.metadata.get("fork_parent_id")}
        siblings = [
            record.id
            for record in self._sandboxes.list(winner.workspace)
            if record.metadata.get("fork_tree_id") == tree_id
            and record.metadata.get("fork_tree_role") != _PROMOTED
            and record.id not in keep
        ]
        failures: dict[str, str] = {}

        async def delete(sibling: str) -> None:
            try:
                await self._sandboxes.delete(winner.workspace, sibling)
            except NotFoundError:
                pass  # deleted by somebody else: what was asked for
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


def _made(machine: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if machine is None:
        raise ServerError("the engine said nothing of this fork")
    if "error" in machine:
        raise from_body(int(machine.get("status") or 500), machine)
    return machine


def _staged(fork_id: str, count: int, answer: Mapping[str, Any]) -> Happening:
    cost = {key: answer[key] for key in ("pause_ms", "dirty_bytes") if key in answer}
    return Happening("fork.staged", {"fork_id": fork_id, "requested": count, **cost})
