"""The client library: :class:`Sandbox` and :class:`Client`, and their asyncio versions.

``_async`` is written by hand, ``_sync`` is generated from it by ``scripts/generate_sync.py``; everything that
does not wait (types, retry rules, error mapping, the event-stream parser) is shared.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pandastack.errors import (
    APIConnectionError,
    AuthError,
    BadRequestError,
    BuildFailedError,
    CapacityError,
    CommandFailed,
    ConflictError,
    ConnectionError,
    CreateCancelled,
    DatabaseFailedError,
    ExecInterrupted,
    NotFoundError,
    PandastackError,
    SandboxTimeout,
    ServerError,
    TemplateBuildError,
)
from pandastack.sdk._builds import Build, BuildArtifact, BuildDifference
from pandastack.sdk._code import Execution, Result
from pandastack.sdk._diff import Diff, FileChange, FileState
from pandastack.sdk._experiment import BranchOutcome, Candidate, ExploreError, ExploreResult
from pandastack.sdk._jobs import Job, RunnerPool
from pandastack.sdk._schedules import Schedule, ScheduleRun
from pandastack.sdk._sync.client import Client, get_default_client, set_default_client
from pandastack.sdk._sync.code import CodeContext
from pandastack.sdk._sync.explore import explore
from pandastack.sdk._sync.sandbox import Sandbox
from pandastack.sdk._types import (
    Checkpoint,
    CreateRetryEvent,
    Database,
    EgressDecision,
    ExecResult,
    FileInfo,
    FileMatch,
    ProcessInfo,
    Secret,
    Snapshot,
    Template,
    Volume,
)

if TYPE_CHECKING:
    from pandastack.sdk._async.client import AsyncClient, get_default_async_client, set_default_async_client
    from pandastack.sdk._async.code import AsyncCodeContext
    from pandastack.sdk._async.explore import async_explore
    from pandastack.sdk._async.sandbox import AsyncSandbox

__all__ = [
    "APIConnectionError",
    "AsyncClient",
    "AsyncCodeContext",
    "AsyncSandbox",
    "AuthError",
    "BadRequestError",
    "BranchOutcome",
    "Build",
    "BuildArtifact",
    "BuildDifference",
    "BuildFailedError",
    "Candidate",
    "CapacityError",
    "Checkpoint",
    "Client",
    "CodeContext",
    "CommandFailed",
    "ConflictError",
    "ConnectionError",
    "CreateCancelled",
    "CreateRetryEvent",
    "Database",
    "DatabaseFailedError",
    "Diff",
    "EgressDecision",
    "ExecInterrupted",
    "ExecResult",
    "Execution",
    "ExploreError",
    "ExploreResult",
    "FileChange",
    "FileInfo",
    "FileMatch",
    "FileState",
    "Job",
    "NotFoundError",
    "PandastackError",
    "ProcessInfo",
    "Result",
    "RunnerPool",
    "Sandbox",
    "SandboxTimeout",
    "Schedule",
    "ScheduleRun",
    "Secret",
    "ServerError",
    "Snapshot",
    "Template",
    "TemplateBuildError",
    "Volume",
    "async_explore",
    "explore",
    "get_default_async_client",
    "get_default_client",
    "set_default_async_client",
    "set_default_client",
]

_WAITING = {
    "AsyncClient": "client",
    "AsyncCodeContext": "code",
    "AsyncSandbox": "sandbox",
    "async_explore": "explore",
    "get_default_async_client": "client",
    "set_default_async_client": "client",
}
"""Names of ``_async`` with their modules. They are loaded on first use: most programs use one of the two libraries."""


def __getattr__(name: str) -> Any:
    if name not in _WAITING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}._async.client")  # the default client of all the others
    return getattr(import_module(f"{__name__}._async.{_WAITING[name]}"), name)
