"""Checkpoints of jobs, and what a retry begins with. Pure.

A job that asks for it has its machine captured before each command but the first. Only the newest capture is kept: a
job that fails can go on from the command that failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pandastack.errors import BadRequestError, ConflictError
from pandastack.products.runners.spec import JobSpec
from pandastack.products.runners.states import FINAL
from pandastack.products.runners.version import Version
from pandastack.store.runners import JobRecord, JobState

KEPT_SECONDS = 24 * 3600.0
"""How long the checkpoint of a job that has ended is kept, unless the job says ``keep_seconds``."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The machine of a job as it was before the command number ``step``. ``version`` is what the job was made of, with
    its ``directory``; ``oom_kills`` is the kernel's count at the capture."""

    id: str
    step: int
    version: str
    directory: str
    oom_kills: int

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    def origin(self, version: Version) -> Version:
        """What a machine is made of that goes on from here, with the policy of ``version``."""
        return replace(version, id=self.id, directory=self.directory, oom_kills=self.oom_kills)


def checkpoint_of(job: JobRecord) -> Checkpoint | None:
    """The checkpoint of a job, if it has one."""
    return None if job.checkpoint is None else Checkpoint(**job.checkpoint)


def plan_retry(job: JobRecord, from_step: int) -> Checkpoint | None:
    """What a retry of ``job`` begins with; None: the prepared machine. Raises :class:`ConflictError` for a job that has
    not ended or whose input is lost, :class:`BadRequestError` for a command without a checkpoint."""
    if job.state not in FINAL:
        raise ConflictError(f"job {job.id} is {job.state}", hint=f"POST /v1/jobs/{job.id}/cancel ends it")
    checkpoint = checkpoint_of(job)
    if from_step == 0:
        if JobSpec.from_json(job.spec).has_input:
            hint = "create a job with `stdin` once more"
            raise ConflictError(f"job {job.id} had an input, which is never stored", hint=hint)
        return None
    if checkpoint is None or checkpoint.step != from_step:
        possible = "0" if checkpoint is None else f"0 or {checkpoint.step}"
        hint = "a job with `checkpoint` can be retried from the step that failed"
        raise BadRequestError(f"from_step: must be {possible} for this job", field="from_step", hint=hint)
    return checkpoint


def expires_at(job: JobRecord) -> float | None:
    """When the checkpoint of a job goes, in epoch seconds; None: not yet known."""
    if job.ended_at is None:
        return None
    return job.ended_at + (JobSpec.from_json(job.spec).keep_seconds or KEPT_SECONDS)


def plan_dropped(jobs: Iterable[JobRecord], pools: Collection[str], most: int, now: float) -> list[JobRecord]:
    """The jobs, given oldest first, whose checkpoints go: those that have succeeded, those that are due, those of pools
    that are gone, and the oldest beyond ``most`` of a workspace. What a job needs that has not ended stays its own."""
    gone: list[JobRecord] = []
    left: dict[str, list[JobRecord]] = {}
    for job in jobs:
        due = expires_at(job)
        if job.checkpoint is None or due is None:
            continue
        if job.state is JobState.SUCCEEDED or due <= now or job.pool_id not in pools:
            gone.append(job)
        else:
            left.setdefault(job.workspace, []).append(job)
    for mine in left.values():
        mine.sort(key=lambda each: each.ended_at or 0.0)
        gone += mine[: max(0, len(mine) - most)]
    return gone


def still_needed(jobs: Mapping[str, JobRecord]) -> set[str]:
    """The snapshots that jobs have as checkpoints: a retry has that of the job that it repeats."""
    return {found.id for each in jobs.values() if (found := checkpoint_of(each)) is not None}
