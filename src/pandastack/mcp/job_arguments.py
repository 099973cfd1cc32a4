"""The arguments of the tools for runner pools and CI jobs."""

from __future__ import annotations

from pydantic import Field

from pandastack.mcp.arguments import Arguments
from pandastack.sdk._jobs import create_job, one_job, retry_job
from pandastack.sdk.wire.call import Call


class ListRunnerPools(Arguments):
    def call(self) -> Call:
        return Call("GET", "/runner-pools")


class RunJob(Arguments):
    pool: str = Field(description="The pool's name; list_runner_pools lists them", min_length=1)
    steps: list[str] = Field(description="Shell commands, run in turn in the checkout until one fails", min_length=1)
    ref: str | None = Field(None, description="What of the pool's repository is checked out first")
    env: dict[str, str] | None = Field(None, description="Variables; no place for secrets")
    deadline_seconds: float | None = Field(None, gt=0, description="Of all steps together; by default, the pool's")
    checkpoint: bool = Field(False, description="Capture the machine before each step, so that retry_job can go on")

    def call(self) -> Call:
        return create_job(self.model_dump(), None, None)


class ListJobs(Arguments):
    pool: str | None = Field(None, description="Only those of this pool")
    limit: int = Field(20, ge=1, le=100, description="The most jobs, newest first")

    def call(self) -> Call:
        params = {"limit": str(self.limit)} | ({"pool": self.pool} if self.pool else {})
        return Call("GET", "/jobs", params=params)


class OneJob(Arguments):
    job_id: str = Field(description="The job's id", min_length=1)


class GetJob(OneJob):
    def call(self) -> Call:
        return one_job("GET", self.job_id)


class JobLog(OneJob):
    def call(self) -> Call:
        return one_job("GET", self.job_id, "/logs")


class CancelJob(OneJob):
    def call(self) -> Call:
        return one_job("POST", self.job_id, "/cancel")


class RetryJob(OneJob):
    from_step: int = Field(
        0, ge=0, description="0 for all of it, or the checkpoint_step of the job, to begin as it was before that step"
    )

    def call(self) -> Call:
        return retry_job(self.job_id, self.from_step)
