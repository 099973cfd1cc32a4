"""A deploy: a machine gets the code, installs what it depends on, imports it, and is captured as a version, which is
tried before it serves."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from pandastack.contract.sandboxes import WantedSize
from pandastack.errors import NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.functions.bundle import Bundle, install_of, read_bundle
from pandastack.products.functions.dependencies import Install
from pandastack.products.functions.gate import Gate
from pandastack.products.functions.grants import bare
from pandastack.products.functions.guest import Guest, Loaded
from pandastack.products.functions.machines import PRODUCT, Machines
from pandastack.products.functions.records import Records, deploy_ended
from pandastack.products.functions.spec import file_of
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.functions import FunctionRecord, VersionRecord
from pandastack.store.snapshots import FUNCTION, SnapshotRecord

LABEL = "function "
"""What the labels of our snapshots begin with."""

_MOST_SECONDS = 1800


class Deploys:
    """Makes versions, and deletes them."""

    def __init__(self, plane: ControlPlane, records: Records, machines: Machines) -> None:
        self._plane = plane
        self._records = records
        self._machines = machines
        self._guest = Guest(plane)
        self._gate = Gate(plane, machines)

    async def deploy(self, record: FunctionRecord, data: bytes, entrypoint: str) -> FunctionRecord:
        """Make a version of what was given, and have it serve. After an error the former one serves.

        Raises :class:`BadRequestError` for code that cannot be unpacked, installed or imported.
        """
        try:
            changed = await self._deploy(record, data, entrypoint)
        except PandastackError as error:
            await self._plane.outbox.publish(deploy_ended(record, error=error.public or error.message))
            raise
        await self.prune(changed)
        return changed

    async def _deploy(self, record: FunctionRecord, data: bytes, entrypoint: str) -> FunctionRecord:
        began = time.time()
        async with _scratch(self._records.scratch()) as folder:
            bundle = await anyio.to_thread.run_sync(read_bundle, data, file_of(entrypoint), folder)
            install = await anyio.to_thread.run_sync(install_of, bundle, record.runtime)
            snapshot, loaded, network = await self._captured(record, bundle, install, entrypoint)
            try:
                env = self._records.seen(record).env
                warnings = await self._gate.check(record.id, snapshot, env, bundle.archive, loaded.sockets)
                now = time.time()
                made = VersionRecord(
                    function_id=record.id,
                    version=record.last_version + 1,
                    snapshot_id=snapshot.id,
                    entrypoint=entrypoint,
                    template=record.template,
                    kind=loaded.kind,
                    memory_mb=snapshot.memory_mb,
                    code_size=bundle.size,
                    created_at=now,
                    deploy_ms=round((now - began) * 1000, 1),
                    warnings=tuple(warnings),
                    network=network,
                )
                return await self._records.add_version(record, made, bundle.code, now)
            except BaseException:
                with anyio.CancelScope(shield=True), suppress(PandastackError):
                    await self._plane.snapshots.delete(snapshot)
                raise

    async def _captured(
        self, record: FunctionRecord, bundle: Bundle, install: Install | None, entrypoint: str
    ) -> tuple[SnapshotRecord, Loaded, Mapping[str, Any] | None]:
        """Install and import the code in a machine, and capture it; with the policy of the template.

        No secret is there. Dependencies are installed under the template's policy, and imported under the function's.
        """
        caller = Caller.server(record.workspace)
        async with self._machines.made(record.workspace, _machine(record)) as sandbox_id:
            network = self._plane.registry.get(sandbox_id).network
            if network is not None and network.get("secrets"):
                await self._plane.networks.set(caller, sandbox_id, await anyio.to_thread.run_sync(bare, network))
            await self._guest.put(caller, sandbox_id, bundle, record.runtime)
            if install is not None:
                await self._guest.install(caller, sandbox_id, install)
            if record.network is not None:
                await self._plane.networks.set(caller, sandbox_id, await anyio.to_thread.run_sync(bare, record.network))
            loaded = await self._guest.start(caller, sandbox_id, entrypoint, record.runtime)
            label = f"{LABEL}{record.id}"
            taken = await self._plane.timeline.snapshot(caller, sandbox_id, label, kind=FUNCTION)
            return taken, loaded, network

    async def prune(self, record: FunctionRecord) -> None:
        """Delete the oldest versions beyond those that are kept; never the one that serves, or that an alias names."""
        settings, sizes = self._plane.settings, {each.id: each.size_bytes for each in await self._plane.snapshots.all()}
        versions = [(each.version, sizes.get(each.snapshot_id, 0)) for each in self._records.versions(record)]
        budget = settings.kept_function_mb * 1024 * 1024
        pinned = {record.version, *(each.version for each in self._records.aliases(record))}
        gone = plan_pruned(versions, pinned, settings.kept_function_versions, budget)
        for each in self._records.versions(record):
            if each.version in gone:
                await self.delete(record, each)

    async def delete(self, record: FunctionRecord, made: VersionRecord) -> None:
        """Delete a version: its record first, so that what is listed can be restored."""
        await self._records.remove_version(made)
        snapshot = await self._snapshot(record.workspace, made.snapshot_id)
        if snapshot is not None:
            await self._plane.snapshots.delete(snapshot)

    async def reconcile(self) -> None:
        """After a start: delete snapshots of deploys that were interrupted."""
        known = self._records.snapshots()
        for each in await self._plane.snapshots.all():
            if each.kind == FUNCTION and each.label.startswith(LABEL) and each.id not in known:
                await self._plane.snapshots.delete(each)

    async def _snapshot(self, workspace: str, snapshot_id: str) -> SnapshotRecord | None:
        with suppress(NotFoundError):
            return await self._plane.snapshots.get(Caller.server(workspace), snapshot_id, FUNCTION)
        return None


def _machine(record: FunctionRecord) -> NewSandbox:
    return NewSandbox(
        template=record.template,
        ttl_seconds=_MOST_SECONDS,
        max_lifetime_seconds=_MOST_SECONDS,
        metadata={PRODUCT: record.id, "deploy": record.name[:64]},
        size=WantedSize(memory_mb=record.memory_mb),
    )


def plan_pruned(versions: Sequence[tuple[int, int]], pinned: Collection[int], most: int, budget: int) -> set[int]:
    """Which versions go, of numbers and bytes, newest first: all beyond the first ``most``, and all from the one on
    that goes over the ``budget`` together with the newer ones. Those that are ``pinned`` count, and stay."""
    gone, used = set[int](), 0
    for place, (number, size) in enumerate(versions):
        used += size
        if number not in pinned and (place >= most or used > budget):
            gone.add(number)
    return gone


@asynccontextmanager
async def _scratch(parent: Path) -> AsyncIterator[Path]:
    folder = Path(await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="deploy-", dir=parent)))
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
