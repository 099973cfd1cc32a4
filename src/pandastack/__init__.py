"""PandaStack: every sandbox is its own virtual machine, restored from a snapshot.

``from pandastack import Sandbox`` gives the SDK. Its names are resolved on first use, so that the server's
own modules can import ``pandastack.errors`` and the like without loading an HTTP client.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandastack.sdk import (
        APIConnectionError,
        AsyncClient,
        AsyncCodeContext,
        AsyncSandbox,
        AuthError,
        BadRequestError,
        BranchOutcome,
        Build,
        BuildArtifact,
        BuildDifference,
        BuildFailedError,
        Candidate,
        CapacityError,
        Checkpoint,
        Client,
        CodeContext,
        CommandFailed,
        ConflictError,
        ConnectionError,
        CreateCancelled,
        CreateRetryEvent,
        Database,
        DatabaseFailedError,
        Diff,
        EgressDecision,
        ExecInterrupted,
        ExecResult,
        Execution,
        ExploreError,
        ExploreResult,
        FileChange,
        FileInfo,
        FileMatch,
        FileState,
        Job,
        NotFoundError,
        PandastackError,
        ProcessInfo,
        Result,
        RunnerPool,
        Sandbox,
        SandboxTimeout,
        Schedule,
        ScheduleRun,
        Secret,
        ServerError,
        Snapshot,
        Template,
        TemplateBuildError,
        Volume,
        async_explore,
        explore,
        get_default_async_client,
        get_default_client,
        set_default_async_client,
        set_default_client,
    )

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
    "__version__",
    "async_explore",
    "explore",
    "get_default_async_client",
    "get_default_client",
    "set_default_async_client",
    "set_default_client",
]


def _version() -> str:
    try:
        return metadata.version("pandastack")
    except metadata.PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _version() if name == "__version__" else getattr(import_module("pandastack.sdk"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
