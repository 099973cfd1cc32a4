"""Runner pools and jobs."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, WithJsonSchema

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, timestamp, timestamp_or_none
from pandastack.api.models.network import PolicyText, read_policy
from pandastack.contract.sandboxes import WantedSize
from pandastack.errors import BadRequestError
from pandastack.model.network_rules import to_json
from pandastack.products.runners.retries import checkpoint_of
from pandastack.products.runners.spec import Git, GitHub, JobSpec, PoolSpec, checked_pool
from pandastack.products.runners.version import spec_of, version_of
from pandastack.services.github.runners import PoolState
from pandastack.services.records.spec import NewSandbox
from pandastack.store.runners import JobRecord, PoolRecord


class GitSource(Body):
    url: str = Field(description="Begins with `https://`, `http://` or `git://`")
    ref: str = Field("HEAD", description="A branch, tag or commit")


class GitHubJobs(Body):
    scope: str = Field(description="The repository, as OWNER/NAME, or the organization", examples=["octocat/app"])
    repositories: list[str] = Field([], description="Those of an organization whose jobs are looked for")
    group_id: WholeNumber = Field(1, description="The runner group, of an organization")
    program: str = Field("/opt/actions-runner/run.sh", description="GitHub's runner, in the prepared machine")

    def wanted(self) -> GitHub:
        return GitHub(self.scope, tuple(self.repositories), self.group_id, self.program)


class PutRunnerPool(Body):
    template: str = Field("base", description="What the machine that is prepared is made of")
    prepare: list[str] = Field([], description="Commands that prepare the checkout, in turn")
    git: GitSource | None = Field(None, description="The repository; without one, the checkout is uploaded")
    directory: str = Field("/workspace", description="Where the checkout is, and commands begin")
    env: dict[str, str] = Field({}, description="Variables of all commands; no place for secrets")
    labels: list[str] = Field([], description="By which jobs find the pool")
    concurrency: WholeNumber = Field(2, description="How many jobs run at once, 1 to 64")
    job_seconds: Number = Field(3600.0, description="The longest deadline of a job, at most a day")
    prepare_seconds: Number = Field(3600.0, description="How long preparing may take")
    network: PolicyText | None = Field(
        None, description="What its machines may reach; its secrets are for trusted jobs. By default the template's"
    )
    cpu: WholeNumber | None = None
    memory_mb: WholeNumber | None = None
    disk_gb: WholeNumber | None = None
    github: GitHubJobs | None = Field(None, description="Run jobs of GitHub's Actions that have its labels")
    refresh: str | None = Field(
        None, description="A cron expression of five fields: when it is prepared anew", examples=["0 4 * * *"]
    )
    timezone: str = Field("UTC", description="The time zone of `refresh`")

    def wanted(self) -> PoolSpec:
        """The request, checked. Raises :class:`BadRequestError`."""
        return checked_pool(
            PoolSpec(
                template=self.template,
                prepare=tuple(self.prepare),
                git=None if self.git is None else Git(self.git.url, self.git.ref),
                directory=self.directory,
                env=self.env,
                labels=tuple(self.labels),
                concurrency=self.concurrency,
                job_seconds=self.job_seconds,
                prepare_seconds=self.prepare_seconds,
                network=None if self.network is None else to_json(read_policy(self.network, "network")),
                size=WantedSize(self.cpu, self.memory_mb, self.disk_gb),
                github=None if self.github is None else self.github.wanted(),
                refresh=self.refresh,
                timezone=self.timezone,
            )
        )


class RunnerVersion(Answer):
    id: str
    made_at: str
    seconds: float = Field(description="How long preparing took")
    size_bytes: int
    template: str
    directory: str


class GitHubState(Answer):
    scope: str
    repositories: list[str]
    group_id: int
    program: str
    waiting: int = Field(description="Jobs that wait at GitHub and could run here")
    runners: int = Field(description="Runners that are registered, or about to be")
    error: str | None = Field(description="What failed last, with its step")


class RunnerPool(Answer):
    id: str
    name: str
    state: str = Field(description="`preparing`, `ready`, or `unprepared`: it has no version yet")
    version: RunnerVersion | None = Field(description="What its jobs are made of")
    error: str | None = Field(description="Why the last refresh failed; the version before it stays")
    template: str
    prepare: list[str]
    git: dict[str, str] | None
    directory: str
    env: list[str] = Field(description="The names of the variables")
    labels: list[str]
    concurrency: int
    job_seconds: float
    prepare_seconds: float
    network: Annotated[Any, WithJsonSchema({})] = Field(description="As it was given")
    cpu: int | None
    memory_mb: int | None
    disk_gb: int | None
    github: GitHubState | None
    refresh: str | None
    timezone: str
    next_refresh_at: str | None = Field(description="When `refresh` prepares it next")
    created_at: str

    @classmethod
    def of(cls, record: PoolRecord, *, preparing: bool, actions: PoolState | None) -> Self:
        spec, version = spec_of(record), version_of(record)
        made = None
        if version is not None:
            facts = {name: getattr(version, name) for name in ("id", "seconds", "size_bytes", "template", "directory")}
            made = RunnerVersion(made_at=timestamp(version.made_at), **facts)
        return cls(
            id=record.id,
            name=record.name,
            state="preparing" if preparing else "unprepared" if version is None else "ready",
            version=made,
            error=None if preparing else record.error,
            template=spec.template,
            prepare=list(spec.prepare),
            git=None if spec.git is None else {"url": spec.git.url, "ref": spec.git.ref},
            directory=spec.directory,
            env=sorted(spec.env),
            labels=list(spec.labels),
            concurrency=spec.concurrency,
            job_seconds=spec.job_seconds,
            prepare_seconds=spec.prepare_seconds,
            network=spec.network,
            cpu=spec.size.cpu,
            memory_mb=spec.size.memory_mb,
            disk_gb=spec.size.disk_gb,
            github=_github(spec.github, actions),
            refresh=spec.refresh,
            timezone=spec.timezone,
            next_refresh_at=timestamp_or_none(record.refresh_at),
            created_at=timestamp(record.created_at),
        )


def _github(github: GitHub | None, state: PoolState | None) -> GitHubState | None:
    if github is None or state is None:
        return None
    return GitHubState(
        scope=github.scope,
        repositories=list(github.repositories),
        group_id=github.group_id,
        program=github.program,
        waiting=state.waiting,
        runners=len(state.runners),
        error=state.error,
    )


class RunnerPools(Answer):
    pools: list[RunnerPool]


class CreateRunnerSandbox(Body):
    trusted: StrictBool = Field(False, description="Give it the secrets of the pool's network policy")
    ttl_seconds: WholeNumber | None = Field(None, description="Idle limit in seconds")
    max_lifetime_seconds: WholeNumber | None = Field(
        None, description="Seconds after which it is deleted, in use or not"
    )
    metadata: dict[str, str] | None = Field(None, description="Free text")

    def wanted(self) -> NewSandbox:
        return NewSandbox(
            ttl_seconds=self.ttl_seconds, max_lifetime_seconds=self.max_lifetime_seconds, metadata=self.metadata or {}
        )


class CreateJob(Body):
    pool: str | None = Field(None, description="The name of its pool")
    labels: list[str] | None = Field(None, description="Instead of `pool`: labels that its pool has all of")
    steps: list[str] = Field(description="Commands, in turn until one fails", examples=[["make test"]])
    ref: str | None = Field(None, description="What of the pool's repository is checked out first")
    trusted: StrictBool = Field(False, description="Give it the secrets of the pool's network policy")
    env: dict[str, str] = Field({}, description="Variables; no place for secrets")
    artifacts: list[str] = Field([], description="Paths below the checkout that are copied out afterwards")
    deadline_seconds: Number | None = Field(None, description="By default, and at most, that of the pool")
    stdin: str | None = Field(
        None, description="The input of the first command in base64, at most 64 KiB; it is never stored"
    )
    keep_seconds: WholeNumber = Field(
        0, description="When the job fails, keep its machine as a sandbox that is deleted when not used for so long"
    )
    checkpoint: StrictBool = Field(
        False, description="Capture its machine before each step but the first, so that a retry can begin there"
    )

    def where(self) -> str | list[str]:
        """The pool's name, or labels. Raises :class:`BadRequestError`."""
        if (self.pool is None) == (self.labels is None):
            raise BadRequestError("pool: either it or labels is required", field="pool")
        return self.labels if self.pool is None else self.pool  # type: ignore[return-value]

    def wanted(self) -> JobSpec:
        return JobSpec(
            steps=tuple(self.steps),
            ref=self.ref,
            trusted=self.trusted,
            env=self.env,
            artifacts=tuple(self.artifacts),
            deadline_seconds=self.deadline_seconds,
            keep_seconds=self.keep_seconds,
            checkpoint=self.checkpoint,
        )

    def given(self) -> bytes | None:
        """The input. Raises :class:`BadRequestError`."""
        if self.stdin is None:
            return None
        try:
            return base64.b64decode(self.stdin, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequestError("stdin: must be base64", field="stdin") from None


class RetryJob(Body):
    from_step: WholeNumber = Field(
        0, ge=0, description="The step to begin with, counted from 0; besides 0 that is `checkpoint_step` of the job"
    )


class Job(Answer):
    id: str
    pool: str
    state: str = Field(
        description="`queued`, `preparing`, `running`; then `succeeded`, `failed`, `cancelled`, `timed_out` or `error`"
    )
    reason: str | None = Field(
        description="Of an error: `machine`, `killed_by_host`, `pool`, `interrupted` or `artifacts`; of a failure: "
        "`oom` or `disk_full`, if the guest says so"
    )
    error: str | None
    exit_code: int | None
    failed_step: int | None = Field(description="Counted from 0")
    steps: list[str]
    ref: str | None
    trusted: bool
    env: list[str] = Field(description="The names of the variables")
    artifacts: list[str]
    artifacts_bytes: int | None = Field(description="The size of their archive, once there is one")
    deadline_seconds: float | None
    version: str | None = Field(description="The version of the pool that its machine was made of")
    created_at: str
    started_at: str | None = Field(description="When its machine was there")
    ended_at: str | None
    sandbox_id: str | None = Field(description="The sandbox that its machine is kept as")
    kept_until: str | None
    checkpoint: bool
    checkpoint_step: int | None = Field(description="The step before which its machine is captured")
    retry_of: str | None = Field(description="The job that it repeats")
    from_step: int = Field(description="The step that it begins with")

    @classmethod
    def of(cls, record: JobRecord) -> Self:
        spec, checkpoint = JobSpec.from_json(record.spec), checkpoint_of(record)
        return cls(
            id=record.id,
            pool=record.pool,
            state=record.state,
            reason=record.reason,
            error=record.error,
            exit_code=record.exit_code,
            failed_step=record.failed_step,
            steps=list(spec.steps),
            ref=spec.ref,
            trusted=spec.trusted,
            env=sorted(spec.env),
            artifacts=list(spec.artifacts),
            artifacts_bytes=record.artifacts_bytes,
            deadline_seconds=spec.deadline_seconds,
            version=record.version,
            created_at=timestamp(record.created_at),
            started_at=timestamp_or_none(record.started_at),
            ended_at=timestamp_or_none(record.ended_at),
            sandbox_id=None if record.kept_until is None else record.id,
            kept_until=timestamp_or_none(record.kept_until),
            checkpoint=spec.checkpoint,
            checkpoint_step=None if checkpoint is None else checkpoint.step,
            retry_of=record.retry_of,
            from_step=record.from_step,
        )


class Jobs(Answer):
    jobs: list[Job]
