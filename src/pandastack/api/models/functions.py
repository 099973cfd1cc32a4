"""Functions, their versions and their runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictStr, WithJsonSchema

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, omitted_if_none, timestamp, timestamp_or_none
from pandastack.api.models.network import PolicyText
from pandastack.products import functions as product
from pandastack.store.functions import AliasRecord, RunRecord, VersionRecord


class _Settings(Body):
    name: StrictStr | None = Field(None, description="1 to 128 characters; one of a kind in the workspace")
    entrypoint: StrictStr | None = Field(
        None, description="`FILE` or `FILE:NAME`; by default `handler.py`, `handler.js`"
    )
    template: StrictStr | None = Field(None, description="By default `code-interpreter`; for Node `agent`")
    env: dict[str, StrictStr] | None = Field(None, description="Environment variables of runs, up to 32 KiB")
    public: StrictBool | None = Field(None, description="Answer `http-invoke` without a token")
    timeout_seconds: Number | None = Field(None, description="How long a run may take: up to 300; by default 60")
    memory_mb: WholeNumber | None = Field(None, description="Memory of a run; by default the template's")
    concurrency: WholeNumber | None = Field(None, description="Runs at once: up to 100; by default 10")
    secrets: list[StrictStr] | None = Field(None, description="Names of secrets of the workspace that runs get")
    network: PolicyText | None = Field(None, description="What runs may reach; by default the template's policy")


class CreateFunction(_Settings):
    runtime: StrictStr | None = Field(None, description="`python` or `nodejs`")
    code: StrictStr | None = Field(None, description="Base64 of the source, or of a tar archive; compressed or not")

    def wanted(self) -> product.NewFunction:
        return product.checked_new(self.model_dump())


class UpdateFunction(_Settings):
    pass


class Invoke(Body):
    input: Any = Field(None, description="The event: any JSON")
    in_background: StrictBool = Field(False, alias="async", description="Answer 202 at once with the run as it begins")
    version: WholeNumber | None = Field(None, description="By default the one that serves")
    alias: StrictStr | None = Field(None, description="In place of `version`: the one that this alias names")
    keep_seconds: WholeNumber = Field(
        0,
        description="If it fails, make its machine a sandbox, which is deleted after so long without use; up to 86400",
    )
    retries: WholeNumber | None = Field(None, description="How often a run that fails is tried again: up to 5")
    callback: StrictStr | None = Field(None, description="A URL that gets the run when it has ended, signed")

    def chosen(self) -> product.Chosen:
        return product.Chosen(self.version, self.alias, self.keep_seconds)

    def wanted(self) -> product.Background:
        return product.checked_background(self.retries, self.callback, is_async=self.in_background)


class PutAlias(Body):
    version: WholeNumber = Field(description="One that is kept")


class Rollback(Body):
    version: WholeNumber | None = Field(None, description="By default the one before the one that serves")


class RecordRun(Body):
    status: StrictStr | None = Field(
        None, description="`running`, `success`, `error` or `timeout`; without it the call is an invoke"
    )
    exit_code: WholeNumber | None = Field(None, ge=-(2**31), lt=2**31)
    stdout: StrictStr | None = None
    stderr: StrictStr | None = None
    duration_ms: Number | None = Field(None, ge=0, le=1e9)
    sandbox_id: StrictStr | None = None
    schedule_id: StrictStr | None = None
    input: Any = Field(None, description="The event, for an invoke")


class Function(Answer):
    id: str
    name: str
    workspace: str
    runtime: str
    entrypoint: str
    template: str
    env: dict[str, str]
    public: bool
    url: str = Field(description="Where HTTP reaches it, if it is public")
    endpoint: str
    host: str | None = omitted_if_none("Its own name at the gateway, where a public one answers")
    version: int = Field(description="The one that serves; 0 before the first deploy")
    is_ready: bool
    kind: str | None = omitted_if_none("What the entrypoint has: `handler`, `wsgi`, `asgi`, `fetch` or `script`")
    code_size: int = Field(description="Bytes of what was deployed")
    timeout_seconds: float
    memory_mb: int | None
    concurrency: int
    secrets: list[str] = Field(description="The names of those that runs get")
    network: Annotated[Any, WithJsonSchema({})] = Field(description="What runs may reach; null: the template's policy")
    deploy_ms: float | None = omitted_if_none("How long the deploy of the version that serves took")
    warnings: list[str] = Field(description="What the check of the version that serves has found")
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, seen: product.Function, base: str, suffix: str) -> Function:
        """``base`` is the address of the API, ``suffix`` the domain below which the gateway has names."""
        record, serving = seen.record, seen.serving
        url = f"{base}/v1/functions/{record.id}/http-invoke"
        return cls(
            id=record.id,
            name=record.name,
            workspace=record.workspace,
            runtime=record.runtime,
            entrypoint=record.entrypoint,
            template=record.template,
            env=dict(seen.env),
            public=record.public,
            url=url,
            endpoint=url,
            host=f"fn-{record.id}.{suffix}" if suffix else None,
            version=record.version,
            is_ready=serving is not None,
            kind=serving.kind if serving else None,
            code_size=serving.code_size if serving else 0,
            timeout_seconds=record.timeout_seconds,
            memory_mb=record.memory_mb,
            concurrency=record.concurrency,
            secrets=list(record.secrets),
            network=record.network,
            deploy_ms=serving.deploy_ms if serving else None,
            warnings=list(serving.warnings) if serving else [],
            created_at=timestamp(record.created_at),
            updated_at=timestamp(record.updated_at),
        )


class FunctionVersion(Answer):
    version: int
    entrypoint: str
    template: str
    kind: str
    memory_mb: int
    code_size: int
    created_at: str
    deploy_ms: float
    warnings: list[str] = Field(description="What the check before it served has found")

    @classmethod
    def of(cls, made: VersionRecord) -> FunctionVersion:
        values = {name: getattr(made, name) for name in cls.model_fields if name != "created_at"}
        return cls(**{**values, "warnings": list(made.warnings)}, created_at=timestamp(made.created_at))


class FunctionAlias(Answer):
    name: str
    function_id: str
    version: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, alias: AliasRecord) -> FunctionAlias:
        times = {"created_at": timestamp(alias.created_at), "updated_at": timestamp(alias.updated_at)}
        return cls(name=alias.name, function_id=alias.function_id, version=alias.version, **times)


class FunctionAttempt(Answer):
    """An attempt of a run that has failed."""

    attempt: int
    status: str
    error: str
    sandbox_id: str | None
    ended_at: str

    @classmethod
    def of(cls, failed: Mapping[str, Any]) -> FunctionAttempt:
        return cls(**{**failed, "ended_at": timestamp(failed["ended_at"])})


class CallbackSecret(Answer):
    """What the callbacks of a function are signed with."""

    secret: str


class FunctionRun(Answer):
    id: str
    workspace: str
    function_id: str
    version: int | None
    schedule_id: str | None
    sandbox_id: str | None
    status: str = Field(description="`running`, `success`, `error` or `timeout`")
    exit_code: int | None
    stdout: str = Field(description="The last 64 KiB")
    stderr: str = Field(description="The last 64 KiB")
    result: Any = Field(description="What the handler returned; null in a record when it is over 256 KiB")
    error: str | None = omitted_if_none("Why it did not succeed")
    traceback: str | None = omitted_if_none("Where, in the function's own lines")
    start: str | None = omitted_if_none("`waiting`: a machine was ready; `restored`: one was made")
    duration_ms: int | None = Field(description="Of the function itself, once it has begun")
    cpu_seconds: float | None
    peak_memory_mb: float | None
    started_at: str
    ended_at: str | None
    kept_until: str | None = omitted_if_none("Its machine is the sandbox `sandbox_id`, at least until then")
    attempt: int = Field(description="The number of the attempt, from 1")
    retries: int = Field(description="How often it may be tried again")
    attempts: list[FunctionAttempt] | None = omitted_if_none("Those that have failed before")
    next_attempt_at: str | None = omitted_if_none("When it is tried again")
    callback: str | None = omitted_if_none("The URL that gets it when it has ended")

    @classmethod
    def of(cls, run: RunRecord) -> FunctionRun:
        times = ("started_at", "ended_at", "kept_until", "next_attempt_at")
        taken = ("result", "duration_ms", "attempts", *times)
        values = {name: getattr(run, name) for name in cls.model_fields if name not in taken}
        return cls(
            **values,
            result=None if run.result is None else json.loads(run.result),
            duration_ms=None if run.duration_ms is None else round(run.duration_ms),
            started_at=timestamp(run.started_at),
            ended_at=timestamp_or_none(run.ended_at),
            kept_until=timestamp_or_none(run.kept_until),
            attempts=[FunctionAttempt.of(each) for each in run.attempts] if run.attempts else None,
            next_attempt_at=timestamp_or_none(run.next_attempt_at),
        )


class FunctionMetrics(Answer):
    period: str
    total: int
    errors: int
    error_rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cold_start_rate: float = Field(description="The share of runs for which no machine was waiting")

    @classmethod
    def of(cls, numbers: product.Metrics) -> FunctionMetrics:
        values = {name: getattr(numbers, name) for name in cls.model_fields if name != "period"}
        return cls(**values, period=f"{numbers.hours}h")


class FunctionFailure(Answer):
    """What a function that failed answers over HTTP."""

    error: str
    exit_code: int | None
    stderr: str
    run_id: str

    @classmethod
    def of(cls, run: RunRecord) -> FunctionFailure:
        told = run.stderr if run.traceback is None else f"{run.stderr}{run.traceback}"
        return cls(error=run.error or "the function failed", exit_code=run.exit_code, stderr=told, run_id=run.id)
