"""Runner pools and jobs: their types, their requests, and what the events of their logs say."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Required, TypedDict

from pandastack.errors import BuildFailedError
from pandastack.sdk._builds import raise_event_error
from pandastack.sdk._sse import Event
from pandastack.sdk.wire.call import Call, new_key, segment

_UPLOAD_SILENCE_SECONDS = 120.0
_STREAMS = ("stdout", "stderr")


class RunnerPool(TypedDict, total=False):
    """A runner pool: a dictionary. ``state`` is ``unprepared``, ``preparing`` or ``ready``; ``error`` says why the last
    refresh failed, and ``version`` is what jobs are made of, None before the first."""

    id: Required[str]
    name: Required[str]
    state: Required[str]
    version: dict[str, Any] | None
    error: str | None
    template: str
    prepare: list[str]
    git: dict[str, str] | None
    directory: str
    env: list[str]
    labels: list[str]
    concurrency: int
    job_seconds: float
    prepare_seconds: float
    network: Any
    cpu: int | None
    memory_mb: int | None
    disk_gb: int | None
    github: dict[str, Any] | None
    refresh: str | None
    timezone: str
    next_refresh_at: str | None
    created_at: str


class Job(TypedDict, total=False):
    """A job: a dictionary. ``state`` is ``queued``, ``preparing`` or ``running``, and in the end ``succeeded``,
    ``failed``, ``cancelled``, ``timed_out`` or ``error``, then with ``reason`` and ``error``."""

    id: Required[str]
    pool: Required[str]
    state: Required[str]
    reason: str | None
    error: str | None
    exit_code: int | None
    failed_step: int | None
    steps: list[str]
    ref: str | None
    trusted: bool
    env: list[str]
    artifacts: list[str]
    artifacts_bytes: int | None
    deadline_seconds: float | None
    version: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    sandbox_id: str | None
    kept_until: str | None
    checkpoint: bool
    checkpoint_step: int | None
    retry_of: str | None
    from_step: int


def one_pool(method: str, name: str, what: str = "", wanted: Mapping[str, Any] | None = None) -> Call:
    """A request about one pool."""
    return Call(method, f"/runner-pools/{segment(name)}{what}", json=None if wanted is None else given(wanted))


def refresh_pool(name: str, source: bytes | None) -> Call:
    """``POST /runner-pools/{name}/refresh``, with the archive of a checkout."""
    path, kind = f"/runner-pools/{segment(name)}/refresh", None if source is None else "application/x-tar"
    return Call("POST", path, content=source, content_type=kind, silence=_UPLOAD_SILENCE_SECONDS)


def pool_sandbox(name: str, wanted: Mapping[str, Any], key: str | None) -> Call:
    """``POST /runner-pools/{name}/sandboxes``."""
    path = f"/runner-pools/{segment(name)}/sandboxes"
    return Call("POST", path, json=given(wanted), creates=True, key=key or new_key())


def create_job(wanted: Mapping[str, Any], stdin: bytes | None, key: str | None) -> Call:
    """``POST /jobs``."""
    body = given(wanted)
    if stdin is not None:
        body["stdin"] = base64.b64encode(stdin).decode()
    return Call("POST", "/jobs", json=body, creates=True, key=key or new_key())


def retry_job(job_id: str, from_step: int, key: str | None = None) -> Call:
    """``POST /jobs/{id}/retry``."""
    path = f"/jobs/{segment(job_id)}/retry"
    return Call("POST", path, json={"from_step": from_step}, creates=True, key=key or new_key())


def one_job(method: str, job_id: str, what: str = "") -> Call:
    """A request about one job."""
    return Call(method, f"/jobs/{segment(job_id)}{what}")


def printed(event: Event) -> tuple[str, str] | None:
    """The name of a stream and what was printed to it; None for another event. Raises the error in one."""
    if event.name == "error":
        raise_event_error(event.data)
    return (event.name, str(json.loads(event.data)["text"])) if event.name in _STREAMS else None


def check_prepared(pool: RunnerPool) -> RunnerPool:
    """The pool after a refresh. Raises BuildFailedError when that has failed."""
    if pool.get("error"):
        raise BuildFailedError(f"runner pool {pool['name']} was not prepared: {pool['error']}", build=pool)
    return pool


def given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request is not left to the server."""
    return {field: value for field, value in wanted.items() if value is not None}
