"""Hermetic builds: a command in a machine of its own, without a network (docs/design/0042), or with a recorded one
(docs/design/0049)."""

from __future__ import annotations

import builtins
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from pandastack.contract.templates import Template
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError, QuotaError
from pandastack.model.caller import Caller
from pandastack.products.builds.build import Build
from pandastack.products.builds.fetching import Fetching
from pandastack.products.builds.locks import Locks
from pandastack.products.builds.log import BuildLog
from pandastack.products.builds.records import BuildRecord, BuildStatus, FailureReason
from pandastack.products.builds.shelf import Shelf, shelf_directory
from pandastack.products.builds.spec import BuildSpec, Network, clock_of
from pandastack.products.builds.trees import normalise, spool
from pandastack.products.builds.work import Work, failure_of
from pandastack.recorder.lock import Lock
from pandastack.services import ControlPlane
from pandastack.services.records.spec import unknown_template

MOST_SOURCE_BYTES = 256 * 1024 * 1024
"""Largest input, as an archive and unpacked."""
_INTERRUPTED = "the server ended during the build"
_TOLD_AGAIN = 3600.0
"""Seconds: builds that ended so long before a start are told of again, in case the former server had no time to."""

log = structlog.get_logger(__name__)


class HermeticBuilds:
    """The builds of all workspaces. Every look-up names the caller's workspace; objects of others are not found."""

    def __init__(self, plane: ControlPlane, shelf: Shelf, tasks: TaskGroup, recorder_uid: int | None) -> None:
        self._locks = Locks(shelf, plane.settings.max_fetched_bytes)
        self._recorder_uid = recorder_uid
        self._plane = plane
        self._shelf = shelf
        self._tasks = tasks
        self._builds: dict[str, Build] = {}

    async def recover(self) -> None:
        """Find the builds of earlier servers. One that still ran has failed; its machines are deleted."""
        for record in await anyio.to_thread.run_sync(lambda: list(self._shelf.load())):
            place = self._shelf.place(record.id)
            build = self._builds[record.id] = Build(record, self._shelf, BuildLog(place.log, closed=True))
            build.left.set()
            if not record.ended:
                await self._delete_machines(record)
                await anyio.to_thread.run_sync(place.tidy)
                await build.change(**failure_of(FailureReason.INTERRUPTED, _INTERRUPTED), sandboxes=())
            if (build.record.ended_at or 0.0) > time.time() - _TOLD_AGAIN:
                await self._plane.outbox.publish(build.record.told())

    def check_room(self, caller: Caller) -> None:
        """Raise :class:`QuotaError` when the workspace runs as many builds as it may."""
        most = self._plane.settings.max_builds
        running = sum(not each.record.ended for each in self._of(caller))
        if running >= most:
            raise QuotaError(
                f"workspace {caller.workspace} already runs {running} builds",
                hint="wait for one to end, or ask the operator to raise PANDASTACK_MAX_BUILDS",
            )

    async def start(
        self, caller: Caller, spec: BuildSpec, source: AsyncIterator[bytes], lock: str | None = None
    ) -> BuildRecord:
        """Start to build the tar archive ``source``; returns when the input has been read. ``lock`` is the text of the
        one that a replay is held to.

        Raises :class:`BadRequestError` for an archive or template that cannot be used, :class:`QuotaError`.
        """
        self.check_room(caller)
        template = await self._template(caller, spec)
        explainer = await self._named(caller, spec.explain, "explain") if spec.explain else None
        held = Lock() if lock is None else await self._locks.checked(caller.workspace, lock, refetch=spec.refetch)
        build_id = str(uuid.uuid4())
        place = self._shelf.place(build_id)
        await anyio.to_thread.run_sync(place.make)
        try:
            await spool(source, place.scratch("received"), MOST_SOURCE_BYTES, "source")
            tree = await normalise(place.scratch("received"), place.scratch("source"), 0, MOST_SOURCE_BYTES)
            epoch = clock_of(spec, tree.newest)
            record = BuildRecord(
                build_id, caller.workspace, spec, template.version, tree.sha256, epoch, created_at=time.time()
            )
            if lock is not None:
                record = replace(record, lock_sha256=held.sha256)
                await anyio.to_thread.run_sync(place.lock.write_text, held.text)
            self.check_room(caller)  # others may have begun while the input arrived
            build = self._builds[build_id] = Build(record, self._shelf, BuildLog(place.log))  # it counts from now on
            build.needed = frozenset(each.sha256 for each in held.entries)
            await anyio.to_thread.run_sync(self._shelf.save, record)
        except BaseException:
            if (unstored := self._builds.pop(build_id, None)) is not None:
                unstored.left.set()  # somebody may wait to delete it
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(place.remove)
            raise
        self._tasks.start_soon(self._run, build, template, explainer, held)
        return record

    def list(self, caller: Caller) -> builtins.list[BuildRecord]:
        """The workspace's builds, newest first."""
        found = (each.record for each in self._of(caller))
        return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)

    def get(self, caller: Caller, build_id: str) -> BuildRecord:
        """One build; raises :class:`NotFoundError`."""
        return self._find(caller, build_id).record

    async def delete(self, caller: Caller, build_id: str) -> None:
        """Delete a build with its log and artifacts; one that runs is cancelled first."""
        build = self._find(caller, build_id)
        build.deleted = True
        build.scope.cancel()
        with anyio.CancelScope(shield=True):
            await build.left.wait()
            await self._forget(build)

    @asynccontextmanager
    async def output(
        self, caller: Caller, build_id: str, *, follow: bool
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """What the build has printed; with ``follow``, until it has ended. Afterwards its record is final."""
        yield self._find(caller, build_id).log.read(follow=follow)

    def archive(self, caller: Caller, build_id: str, *, second: bool = False) -> Path:
        """The file with the artifacts of a build as a tar; with ``second`` those of the other build, where they differ.

        Raises :class:`ConflictError` before the end of the build, :class:`NotFoundError` when there are none.
        """
        place = self._shelf.place(self._made(caller, build_id).id)
        path = place.second if second else place.artifacts
        if not path.exists():
            raise NotFoundError("this build has no second artifacts: they are kept when they differ from the first")
        return path

    def provenance(self, caller: Caller, build_id: str) -> dict[str, Any]:
        """The build's provenance; the same errors."""
        place = self._shelf.place(self._made(caller, build_id).id)
        statement: dict[str, Any] = json.loads(place.provenance.read_bytes())
        return statement

    def report(self, caller: Caller, build_id: str) -> str:
        """What diffoscope says of the difference between the two builds; the same errors."""
        path = self._shelf.place(self._made(caller, build_id).id).report
        if not path.exists():
            hint = "a verified build that differs has one, when explain names a template with diffoscope"
            raise NotFoundError("this build has no report", hint=hint)
        return path.read_text()

    def lock(self, caller: Caller, build_id: str) -> str:
        """The lock that a build has recorded or was held to, as text. Raises :class:`ConflictError` before the end of a
        build that records, :class:`NotFoundError` when there is none."""
        record = self._find(caller, build_id).record
        if not record.lock_sha256:
            if record.spec.network is Network.RECORD:
                self._made(caller, build_id)
            raise NotFoundError(
                f"build {record.id} has no lock", hint="builds have one with record, or when one is given"
            )
        return self._shelf.place(record.id).lock.read_text()

    def _made(self, caller: Caller, build_id: str) -> BuildRecord:
        record = self._find(caller, build_id).record
        if not record.ended:
            raise ConflictError(f"build {record.id} is running", hint="its artifacts exist when it has ended")
        if record.status is BuildStatus.FAILED:
            raise NotFoundError(f"build {record.id} has failed: it has no artifacts")
        return record

    def _of(self, caller: Caller) -> builtins.list[Build]:
        return [each for each in self._builds.values() if each.record.workspace == caller.workspace]

    def _find(self, caller: Caller, build_id: str) -> Build:
        found = self._builds.get(build_id)
        if found is None or found.record.workspace != caller.workspace:
            raise NotFoundError(f"build not found: {build_id[:64]}")
        return found

    async def _template(self, caller: Caller, spec: BuildSpec) -> Template:
        template = await self._named(caller, spec.template, "template")
        most = max(template.max_cpu, template.cpu)
        if spec.cpu is not None and spec.cpu > most:
            raise BadRequestError(f"cpu: at most {most} with template {template.name}", field="cpu")
        return template

    async def _named(self, caller: Caller, name: str, field: str) -> Template:
        try:
            return await self._plane.templates.get(caller, name)
        except NotFoundError as error:
            raise unknown_template(name, field) from error

    async def _run(self, build: Build, template: Template, explainer: Template | None, held: Lock) -> None:
        """Carry a build out, whatever happens."""
        place, final = build.place, failure_of(FailureReason.INTERRUPTED, _INTERRUPTED)
        blobs = self._shelf.blobs(build.record.workspace)
        fetching = Fetching(self._plane, blobs, place.spool, self._recorder_uid, held)
        try:
            with build.scope:
                final = await Work(self._plane, build, template, explainer, fetching).outcome()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(place.tidy)
                if build.deleted:  # before its followers look for it once more
                    await self._forget(build)
                else:
                    await self._end(build, final)
            build.log.close()
            build.left.set()

    async def _end(self, build: Build, final: dict[str, Any]) -> None:
        """Write the final record. One that cannot be written is found as interrupted by the next server."""
        try:
            await build.change(**final, sandboxes=())
        except PandastackError as error:
            log.error("build.not_stored", build=build.record.id, exc_info=error)
        else:
            await self._tell(build.record)
        await self._forget_oldest(build.record.workspace)
        if build.record.spec.network is not Network.NONE:
            running = [each for each in self._builds.values() if not each.record.ended]
            await self._locks.prune(build.record.workspace, {digest for each in running for digest in each.needed})

    async def _tell(self, record: BuildRecord) -> None:
        """Tell webhooks. What cannot be stored now, the next server tells."""
        try:
            await self._plane.outbox.publish(record.told())
        except PandastackError as error:
            log.warning("build.not_told", build=record.id, reason=error.message)

    async def _delete_machines(self, record: BuildRecord) -> None:
        for sandbox_id in record.sandboxes:
            with suppress(PandastackError):
                await self._plane.sandboxes.delete(Caller.server(record.workspace), sandbox_id)

    async def _forget(self, build: Build) -> None:
        self._builds.pop(build.record.id, None)
        await anyio.to_thread.run_sync(self._shelf.place(build.record.id).remove)

    async def _forget_oldest(self, workspace: str) -> None:
        """Delete the builds that ended longest ago, beyond the number that is kept."""
        ended = [each for each in self._builds.values() if each.record.ended and each.record.workspace == workspace]
        ended.sort(key=lambda each: each.record.created_at, reverse=True)
        for each in ended[self._plane.settings.kept_builds :]:
            await self._forget(each)


@asynccontextmanager
async def open_builds(
    plane: ControlPlane, database_url: str, recorder_uid: int | None = None
) -> AsyncIterator[HermeticBuilds]:
    """The builds of a control plane. At the end of the block those that still run have failed, as interrupted.

    ``recorder_uid``: the user of the recording proxies' processes (None: ours).
    """
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        shelf = Shelf(shelf_directory(plane.settings.builds_dir, database_url))
        builds = HermeticBuilds(plane, shelf, tasks, recorder_uid)
        await builds.recover()
        yield builds
