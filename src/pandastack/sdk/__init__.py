"""The client library: :class:`Sandbox` and :class:`Client`, and their asyncio versions.

``_async`` is written by hand, ``_sync`` is generated from it by ``scripts/generate_sync.py``; everything that
does not wait (types, retry rules, error mapping, the event-stream parser) is shared.
"""

from pandastack.errors import (
    APIConnectionError,
    AuthError,
    BadRequestError,
    CapacityError,
    CommandFailed,
    ConflictError,
    ConnectionError,
    CreateCancelled,
    ExecInterrupted,
    NotFoundError,
    PandastackError,
    SandboxTimeout,
    ServerError,
    TemplateBuildError,
)
from pandastack.sdk._async.client import AsyncClient, get_default_async_client, set_default_async_client
from pandastack.sdk._async.code import AsyncCodeContext
from pandastack.sdk._async.explore import async_explore
from pandastack.sdk._async.sandbox import AsyncSandbox
from pandastack.sdk._code import Execution, Result
from pandastack.sdk._diff import Diff, FileChange, FileState
from pandastack.sdk._experiment import BranchOutcome, Candidate, ExploreError, ExploreResult
from pandastack.sdk._sync.client import Client, get_default_client, set_default_client
from pandastack.sdk._sync.code import CodeContext
from pandastack.sdk._sync.explore import explore
from pandastack.sdk._sync.sandbox import Sandbox
from pandastack.sdk._types import (
    Checkpoint,
    CreateRetryEvent,
    ExecResult,
    FileInfo,
    FileMatch,
    ProcessInfo,
    Snapshot,
    Template,
)

__all__ = [
    "APIConnectionError",
    "AsyncClient",
    "AsyncCodeContext",
    "AsyncSandbox",
    "AuthError",
    "BadRequestError",
    "BranchOutcome",
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
    "Diff",
    "ExecInterrupted",
    "ExecResult",
    "Execution",
    "ExploreError",
    "ExploreResult",
    "FileChange",
    "FileInfo",
    "FileMatch",
    "FileState",
    "NotFoundError",
    "PandastackError",
    "ProcessInfo",
    "Result",
    "Sandbox",
    "SandboxTimeout",
    "ServerError",
    "Snapshot",
    "Template",
    "TemplateBuildError",
    "async_explore",
    "explore",
    "get_default_async_client",
    "get_default_client",
    "set_default_async_client",
    "set_default_client",
]
