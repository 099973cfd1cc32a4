"""Carries one job out: a machine of the prepared version, its commands, its artifacts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import structlog

from pandastack.errors import NotFoundError, PandastackError
from pandastack.model.network import NetworkPolicy
from pandastack.products.runners.commands import plan_artifacts, plan_ref, plan_step
from pandastack.products.runners.log import JobLog
from pandastack.products.runners.machine import Machine
from pandastack.products.runners.shelf import Place, spool
from pandastack.products.runners.spec import JobSpec, PoolSpec
from pandastack.products.runners.states import Reason
from pandastack.products.runners.version import Version
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.runners import JobRecord, JobState

PRODUCT = "job"
_IDLE_SECONDS = 300
_OTHER_WORK_SECONDS = 3600
"""What a machine may take besides its commands. It is deleted afterwards even if all else fails."""
_ARTIFACTS_SECONDS = 600.0
_SHOWN = 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """How a job ends; what else is known goes into its record."""

    state: JobState
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def error(cls, reason: Reason, message: str, **values: Any) -> End:
        """It was not carried out."""
        return cls(JobState.ERROR, {"reason": reason, "error": message, **values})


@dataclass
class Work:
    """``begun`` is awaited before the first command. ``given`` is the input of the command number 0. ``first`` is the
    number of the first one: those before it were carried out in the machine that ``version`` captured. ``capture`` is
    given the machine before each later one, if the job wants checkpoints."""

    plane: ControlPlane
    job: JobRecord
    spec: JobSpec
    pool: PoolSpec
    version: Version
    job_log: JobLog
    place: Place
    given: bytes | None
    begun: Callable[[], Awaitable[object]]
    capture: Callable[[Machine, int], Awaitable[object]]
    first: int = 0

    async def carry_out(self) -> End:
        """Do it. Its machine is gone or kept when this returns. Raises :class:`NotFoundError` when the version is."""
        policy = await anyio.to_thread.run_sync(partial(self.version.policy, trusted=self.spec.trusted))
        machine = Machine(self.plane, self.job.workspace, self._wanted(policy), self.job_log.say)
        try:
            async with machine:
                return await self._use(machine)
        except NotFoundError as error:
            if machine.plane.registry.find(machine.id) is None and "snapshot" in error.message:
                raise
            return End.error(Reason.MACHINE, error.public or error.message)
        except PandastackError as error:
            return End.error(Reason.MACHINE, error.public or error.message)

    async def _use(self, machine: Machine) -> End:
        await self.begun()
        try:
            end = await self._steps(machine)
            if self.spec.artifacts:
                end = await self._artifacts(machine, end)
        except PandastackError as error:
            if (why := await machine.end_reason()) is not None:
                return End.error(Reason.KILLED_BY_HOST, why)
            return End.error(Reason.MACHINE, error.public or error.message)
        if end.state is not JobState.SUCCEEDED and self.spec.keep_seconds:
            end = await self._kept(machine, end)
        return end

    def _wanted(self, policy: NetworkPolicy | None) -> NewSandbox:
        return NewSandbox(
            snapshot=self.version.id,
            ttl_seconds=_IDLE_SECONDS,
            metadata={"job": self.job.id, "pool": self.job.pool},
            max_lifetime_seconds=int(self._seconds) + _OTHER_WORK_SECONDS,
            id=self.job.id,
            network=policy,
            product=PRODUCT,
        )

    @property
    def _seconds(self) -> float:
        return self.spec.deadline_seconds or self.pool.job_seconds

    async def _steps(self, machine: Machine) -> End:
        """Run the commands in turn, until one fails or the deadline has passed."""
        own = {"CI": "true", "PANDASTACK_JOB": self.job.id, "PANDASTACK_POOL": self.job.pool}
        env, where = {**self.pool.env, **self.spec.env, **own}, self.version.directory
        deadline = anyio.current_time() + self._seconds
        if self.spec.ref is not None and not self.first:
            self.job_log.say(f"checkout of {self.spec.ref}")
            result = await machine.run(plan_ref(self.version.directory, self.spec.ref), self._seconds, self.job_log.add)
            if result.exit_code:
                return End(JobState.FAILED, {"exit_code": result.exit_code, "error": f"no checkout of {self.spec.ref}"})
        for number, command in list(enumerate(self.spec.steps))[self.first :]:
            if self.spec.checkpoint and number > self.first:
                deadline += await self._checkpoint(machine, number)
            if len(self.spec.steps) > 1:
                self.job_log.say(f"step {number + 1} of {len(self.spec.steps)}: {shown(command)}")
            left = max(deadline - anyio.current_time(), 0.001)
            given = self.given if number == 0 else None
            result = await machine.run(plan_step(command, where, env), left, self.job_log.add, given)
            if result.timed_out:
                message = f"it took longer than {self._seconds:g} s"
                return End(JobState.TIMED_OUT, {"failed_step": number, "error": message})
            if result.exit_code:
                return await self._failed(machine, number, result.exit_code)
        return End(JobState.SUCCEEDED, {"exit_code": 0})

    async def _checkpoint(self, machine: Machine, number: int) -> float:
        """Capture the machine; without room the job goes on without. Returns the seconds that this took."""
        began = anyio.current_time()
        try:
            await self.capture(machine, number)
        except PandastackError as error:
            self.job_log.say(f"no checkpoint before step {number + 1}: {error.public or error.message}")
        return anyio.current_time() - began

    async def _failed(self, machine: Machine, number: int, exit_code: int) -> End:
        """A command has failed: with a reason when the guest has one that its own output may not tell."""
        reason = (await machine.probe()).reason_since(self.version.oom_kills)
        message = f"command {number + 1} ended with exit code {exit_code}"
        if reason is not None:
            self.job_log.say(f"{message}; {_SAID[reason]}")
            message = f"{message}; {_SAID[reason]}"
        return End(JobState.FAILED, {"exit_code": exit_code, "failed_step": number, "reason": reason, "error": message})

    async def _artifacts(self, machine: Machine, end: End) -> End:
        """Copy the artifacts out, those of a failed job too. Raises what the use of the machine does."""
        command = plan_artifacts(self.version.directory, self.spec.artifacts)
        most = self.plane.settings.max_artifacts_bytes
        printed = machine.printed(command, _ARTIFACTS_SECONDS, self.job_log.add)
        try:
            size = await spool(printed, self.place.artifacts, most, "artifacts")
        except PandastackError as error:
            if await self._is_gone(machine):
                raise
            message = f"the artifacts cannot be copied out: {error.public or error.message}"
            self.job_log.say(message)
            if end.state is JobState.SUCCEEDED:
                return End.error(Reason.ARTIFACTS, message, exit_code=0)
            return end
        return End(end.state, {**end.values, "artifacts_bytes": size})

    async def _is_gone(self, machine: Machine) -> bool:
        record = self.plane.registry.find(machine.id)
        return record is None or record.reason is not None

    async def _kept(self, machine: Machine, end: End) -> End:
        """Keep the machine of a job that has failed; when that fails, the job has failed as before."""
        try:
            await machine.keep(self.spec.keep_seconds)
        except PandastackError as error:
            self.job_log.say(f"the machine cannot be kept: {error.public or error.message}")
            return end
        self.job_log.say(f"the machine is kept as sandbox {machine.id}")
        return End(end.state, {**end.values, "kept_until": time.time() + self.spec.keep_seconds})


_SAID = {Reason.OOM: "the guest has run out of memory", Reason.DISK_FULL: "a disk of the guest is full"}


def shown(command: str) -> str:
    """A command in one line of the log."""
    line = " ".join(command.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
