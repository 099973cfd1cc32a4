"""A deploy: a machine gets the code, installs what it depends on, imports it, and is captured as a version."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from pandastack.contract.sandboxes import WantedSize
from pandastack.errors import NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.functions.bundle import install_of, read_bundle
from pandastack.products.functions.guest import Guest
from pandastack.products.functions.machines import PRODUCT, Machines
from pandastack.products.functions.records import Records
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

    async def deploy(self, record: FunctionRecord, data: bytes, entrypoint: str) -> FunctionRecord:
        """Make a version of what was given, and have it serve. After an error the former one serves.

        Raises :class:`BadRequestError` for code that cannot be unpacked, installed or imported.
        """
        began, caller = time.time(), Caller.server(record.workspace)
        async with _scratch(self._records.scratch()) as folder:
            bundle = await anyio.to_thread.run_sync(read_bundle, data, file_of(entrypoint), folder)
            install = await anyio.to_thread.run_sync(install_of, bundle, record.runtime)
            async with self._machine(record) as sandbox_id:
                await self._guest.put(caller, sandbox_id, bundle, record.runtime)
                if install is not None:
                    await self._guest.install(caller, sandbox_id, install)
                kind = await self._guest.start(caller, sandbox_id, entrypoint, record.runtime)
                snapshot = await self._plane.timeline.snapshot(caller, sandbox_id, f"{LABEL}{record.id}", kind=FUNCTION)
        now = time.time()
        made = VersionRecord(
            function_id=record.id,
            version=record.last_version + 1,
            snapshot_id=snapshot.id,
            entrypoint=entrypoint,
            template=record.template,
            kind=kind,
            memory_mb=snapshot.memory_mb,
            code_size=bundle.size,
            created_at=now,
            deploy_ms=round((now - began) * 1000, 1),
        )
        try:
            changed = await self._records.add_version(record, made, bundle.code, now)
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(PandastackError):
                await self._plane.snapshots.delete(snapshot)
            raise
        await self.prune(changed)
        return changed

    async def prune(self, record: FunctionRecord) -> None:
        """Delete the oldest versions beyond those that are kept; never the one that serves."""
        settings, sizes = self._plane.settings, {each.id: each.size_bytes for each in await self._plane.snapshots.all()}
        versions = [(each.version, sizes.get(each.snapshot_id, 0)) for each in self._records.versions(record)]
        budget = settings.kept_function_mb * 1024 * 1024
        gone = plan_pruned(versions, record.version, settings.kept_function_versions, budget)
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

    @asynccontextmanager
    async def _machine(self, record: FunctionRecord) -> AsyncIterator[str]:
        sandbox_id = str(uuid.uuid4())
        wanted = NewSandbox(
            template=record.template,
            ttl_seconds=_MOST_SECONDS,
            max_lifetime_seconds=_MOST_SECONDS,
            metadata={PRODUCT: record.id, "deploy": record.name[:64]},
            size=WantedSize(memory_mb=record.memory_mb),
            id=sandbox_id,
            product=PRODUCT,
        )
        await self._plane.sandboxes.create(Caller.server(record.workspace), wanted)
        try:
            yield sandbox_id
        finally:
            self._machines.end(record.workspace, sandbox_id)


def plan_pruned(versions: Sequence[tuple[int, int]], serving: int, most: int, budget: int) -> set[int]:
    """Which versions go, of numbers and bytes, newest first: all beyond the first ``most``, and all from the one on
    that goes over the ``budget`` together with the newer ones. The one that serves counts, and stays."""
    gone, used = set[int](), 0
    for place, (number, size) in enumerate(versions):
        used += size
        if number != serving and (place >= most or used > budget):
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
