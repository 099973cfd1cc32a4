"""The gate before a new version serves: two copies of it are compared, and its memory is searched (0067)."""

from __future__ import annotations

import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from pandastack.errors import BadRequestError, GuestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.products.functions.guest import Ended, Guest
from pandastack.products.functions.machines import PRODUCT, Machines
from pandastack.products.functions.verdict import (
    Copy,
    Sought,
    check_draws,
    check_memory,
    equal_values,
    plan_memory,
    sought,
    warnings_of,
)
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.snapshots import SnapshotRecord

_MACHINE_SECONDS = 120
_PATIENCE_SECONDS = 30.0
"""How long a copy waits for room: on a small host, for the machine of the deploy to end."""
_APART = NetworkPolicy(Egress.NONE)
"""Threads of the function's run in the copies as well: what has not been let through reaches nothing."""


class Gate:
    """Tries new versions."""

    def __init__(self, plane: ControlPlane, machines: Machines) -> None:
        self._plane = plane
        self._machines = machines
        self._guest = Guest(plane)

    async def check(
        self,
        function_id: str,
        snapshot: SnapshotRecord,
        env: Mapping[str, str],
        archive: Path,
        sockets: Sequence[str],
    ) -> list[str]:
        """Let a version through, and return what its owner is warned of. ``archive``: the tar file of its code.

        Raises :class:`BadRequestError` for a version that would draw the same numbers in every run, or whose memory
        has a credential; :class:`CapacityError`.
        """
        copies: list[Copy] = []
        told: list[Sought] = []
        files: dict[bytes, str] = {}

        async def copy() -> None:
            copies.append(await self._copy(function_id, snapshot))

        async def search() -> None:
            values = sought(env, await self._secrets(snapshot.workspace))
            found = await self._plane.snapshots.search_memory(snapshot, [each.data for each in values])
            refused, warned = plan_memory(values, found.found, found.inherited)
            if refused or warned:
                wanted = {each.data for each in (*refused, *warned)}
                files.update(await anyio.to_thread.run_sync(files_with, archive, wanted))
            check_memory(refused, files)
            told.extend(warned)

        await _together(copy, copy, search)
        check_draws(*copies)
        return warnings_of(told, files, equal_values(*copies), sockets)

    async def _copy(self, function_id: str, snapshot: SnapshotRecord) -> Copy:
        caller = Caller.server(snapshot.workspace)
        wanted = NewSandbox(
            snapshot=snapshot.id,
            ttl_seconds=_MACHINE_SECONDS,
            max_lifetime_seconds=_MACHINE_SECONDS,
            metadata={PRODUCT: function_id, "check": snapshot.id},
            network=_APART,
        )
        async with self._machines.made(snapshot.workspace, wanted, _PATIENCE_SECONDS) as sandbox_id:
            try:
                return await self._guest.check(caller, sandbox_id)
            except (Ended, TimeoutError, GuestError) as error:
                hint = "does it end its process, or block it, when it continues after the capture?"
                raise BadRequestError("a copy of the version does not answer", field="code", hint=hint) from error

    async def _secrets(self, workspace: str) -> dict[str, str]:
        found = await self._plane.secrets.list(Caller.server(workspace))
        return {each.name: self._plane.secrets.value(each) for each in found}


def files_with(archive: Path, values: set[bytes]) -> dict[bytes, str]:
    """The file of the archive that has each of these values, for those that one has. Blocking."""
    found: dict[bytes, str] = {}
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or len(found) == len(values):
                continue
            data = content.read()
            found.update((each, member.name[:200]) for each in values if each not in found and each in data)
    return found


async def _together(*works: Callable[[], Awaitable[None]]) -> None:
    """Run ``works`` at once. The first error ends the others, and is raised bare."""
    failed: list[PandastackError] = []

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except PandastackError as error:
            failed.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for each in works:
            tasks.start_soon(run, each)
    if failed:
        raise failed[0]
