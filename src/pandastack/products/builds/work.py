"""Carries one build out: an attempt, another one if it is verified, their comparison, and the statement."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import structlog

from pandastack.contract.templates import Template
from pandastack.errors import PandastackError
from pandastack.products.builds.attempt import Attempt
from pandastack.products.builds.build import Build
from pandastack.products.builds.compare import Difference, compare
from pandastack.products.builds.explain import explain
from pandastack.products.builds.fetching import Fetching
from pandastack.products.builds.machine import Machine
from pandastack.products.builds.provenance import provenance
from pandastack.products.builds.records import Artifact, BuildFailed, BuildStatus, FailureReason
from pandastack.products.builds.spec import Network
from pandastack.products.builds.surroundings import Surroundings, different, pinned
from pandastack.products.builds.trees import Tree, reverse, shown
from pandastack.recorder.lock import Lock
from pandastack.services import ControlPlane

log = structlog.get_logger(__name__)


@dataclass
class Work:
    """Builds ``build`` with machines of ``template``; ``explainer`` is the template that says what differs, if any."""

    plane: ControlPlane
    build: Build
    template: Template
    explainer: Template | None
    fetching: Fetching

    async def outcome(self) -> dict[str, Any]:
        """What changes in the record when the build ends."""
        build = self.build
        try:
            return {**await self._carry_out(), "refused": self.fetching.refused}
        except BuildFailed as failure:
            failed = failure_of(failure.reason, failure.message, failure.exit_code, build.log.tail)
            return {**failed, "refused": self.fetching.refused}
        except PandastackError as error:
            return failure_of(FailureReason.MACHINE, error.public or error.message, None, build.log.tail)
        except Exception as error:
            log.error("build.failed", build=build.record.id, exc_info=error)
            return failure_of(FailureReason.MACHINE, "internal server error", None, build.log.tail)

    async def _carry_out(self) -> dict[str, Any]:
        build, place, spec = self.build, self.build.place, self.build.record.spec
        at = pinned(spec, build.record.source_date_epoch, self.template)
        await self._prepare_network()
        made, given = await self._attempt(at, place.scratch("source"), place.artifacts)
        if spec.network is Network.RECORD:
            await self._keep_lock(self.fetching.lock)
        second = await self._again(at) if spec.verify else None
        differences = await self._compared(made, second)
        ended_at = time.time()
        printed = await anyio.to_thread.run_sync(build.log.sha256)
        record = replace(build.record, ended_at=ended_at)
        statement = provenance(record, self.template, at, made, second, printed, given)
        await anyio.to_thread.run_sync(place.provenance.write_text, json.dumps(statement, indent=2) + "\n")
        return {
            "status": BuildStatus.DIFFERS if differences else BuildStatus.DONE,
            "ended_at": ended_at,
            "exit_code": 0,
            "artifacts": tuple(Artifact(shown(each.name), each.size, each.sha256) for each in made.files),
            "artifacts_sha256": made.sha256,
            "differences": differences,
        }

    async def _attempt(self, at: Surroundings, source: Path, target: Path) -> tuple[Tree, Lock]:
        """Build once, in a machine that exists only for that. What was made, and what it had of the network."""
        most = self.plane.settings.max_artifacts_bytes
        async with (
            self.fetching.proxy(at.network) as recorder,
            Machine(self.plane, self.build, self.template, at.cpu) as machine,
        ):
            attempt = Attempt(machine, self.build.record.spec, at)
            await attempt.unpack(source, recorder.certificate if recorder else "")
            given = await self.fetching.run(attempt, recorder, at.network)
            return await attempt.collect(target, most), given

    async def _again(self, first: Surroundings) -> Tree:
        """The second build of a verified one."""
        place = self.build.place
        self._say("the same again, in a machine that differs")
        backwards = place.scratch("backwards")
        await anyio.to_thread.run_sync(reverse, place.scratch("source"), backwards)
        second, _ = await self._attempt(different(first, self.template), backwards, place.second)
        return second

    async def _compared(self, made: Tree, second: Tree | None) -> tuple[Difference, ...]:
        """What differs, explained if that is wanted. Archives that are the same are kept once."""
        place = self.build.place
        if second is None:
            return ()
        differences = await anyio.to_thread.run_sync(compare, made, place.artifacts, second, place.second)
        if not differences:
            place.second.unlink(missing_ok=True)
        elif self.explainer is not None:
            self._say(f"diffoscope says what differs, in a machine of template {self.explainer.name}")
            report = await explain(self.plane, self.build, self.explainer)
            await anyio.to_thread.run_sync(place.report.write_text, report)
        return differences

    async def _prepare_network(self) -> None:
        if self.build.record.spec.network is not Network.NONE:
            await anyio.to_thread.run_sync(self.fetching.blobs.make)
        if self.build.record.spec.refetch:
            await self.fetching.refetch()

    async def _keep_lock(self, lock: Lock) -> None:
        """Store what was recorded, and have its bodies stay."""
        self.build.needed = frozenset(each.sha256 for each in lock.entries)
        await anyio.to_thread.run_sync(self.build.place.lock.write_text, lock.text)
        await self.build.change(lock_sha256=lock.sha256)

    def _say(self, text: str) -> None:
        """A line of ours in the log."""
        open_line = "\n" if self.build.log.tail and not self.build.log.tail.endswith("\n") else ""
        self.build.log.add(f"{open_line}[{text}]\n".encode())


def failure_of(reason: FailureReason, message: str, exit_code: int | None = None, tail: str = "") -> dict[str, Any]:
    """What changes in the record of a build that fails."""
    return {
        "status": BuildStatus.FAILED,
        "ended_at": time.time(),
        "reason": reason,
        "error": message,
        "exit_code": exit_code,
        "log_tail": tail,
    }
