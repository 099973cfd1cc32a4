# Generated from ../_async/sandbox.py by scripts/generate_sync.py: change that file, not this one.
"""A sandbox as an object: its record and its operations."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from pandastack.errors import NotFoundError, PandastackError
from pandastack.sdk._branches import children_of, fork_sandbox, fork_sandbox_tree, forked, promote_sandbox
from pandastack.sdk._code import language_of, sessions_path
from pandastack.sdk._experiment import Candidate, ExploreResult
from pandastack.sdk._runtime import CancelEvent
from pandastack.sdk._sync.code import CodeContext
from pandastack.sdk._sync.commands import CommandStream, SandboxCommands, run_command
from pandastack.sdk._sync.defaults import default_connection
from pandastack.sdk._sync.explore import explore
from pandastack.sdk._sync.filesystem import SandboxFilesystem
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._sync.lifecycle import Lifecycle
from pandastack.sdk._sync.network import SandboxNetwork
from pandastack.sdk._sync.previews import Previews
from pandastack.sdk._sync.processes import Processes
from pandastack.sdk._types import ExecResult
from pandastack.sdk.wire.call import (
    Call,
    create_sandbox,
    lifecycle_options,
    list_sandboxes,
    new_key,
    run_code,
    segment,
)
from pandastack.sdk.wire.coding import json_value


@dataclass
class Sandbox(Lifecycle, Previews):
    """One microVM. As a context manager it is deleted at the end of the block, unless it is persistent.

    The fields are as the server last reported them; :meth:`refresh` asks again.
    """

    id: str
    template: str
    cpu: int
    memory_mb: int
    status: str
    guest_ip: str | None = None
    created_at: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    from_snapshot: str | None = None
    boot_ms: int | None = None
    boot_mode: str | None = None
    persistent: bool = False
    _client: Connection | None = field(default=None, repr=False, compare=False)

    default_template: ClassVar[str] = "code-interpreter"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], client: Connection, persistent: bool = False) -> Self:
        """Build from the server's record; ``persistent`` is the default if the record lacks it."""
        return cls(
            id=str(data["id"]),
            template=data.get("template") or cls.default_template,
            cpu=int(data.get("cpu") or 1),
            memory_mb=int(data.get("memory_mb") or 512),
            status=data.get("status") or "unknown",
            guest_ip=data.get("guest_ip"),
            created_at=data.get("created_at"),
            metadata=dict(data.get("metadata") or {}),
            from_snapshot=data.get("from_snapshot"),
            boot_ms=data.get("boot_ms"),
            boot_mode=data.get("boot_mode"),
            persistent=bool(data.get("persistent", persistent)),
            _client=client,
        )

    @classmethod
    def create(
        cls,
        template: str = "code-interpreter",
        cpu: int | None = None,
        memory_mb: int | None = None,
        metadata: Mapping[str, str] | None = None,
        ttl_seconds: int | None = None,
        persistent: bool = False,
        from_snapshot: str | None = None,
        volumes: Sequence[Mapping[str, Any]] | None = None,
        *,
        cancel: CancelEvent | None = None,
        on_expire: Literal["delete", "hibernate"] | None = None,
        checkpoint_every: float | None = None,
        checkpoint_after_exec: bool | None = None,
        max_lifetime_seconds: int | None = None,
        disk_gb: int | None = None,
        on_memory_loss: Literal["boot", "fail"] | None = None,
        network: str | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Self:
        """Create a sandbox with the default client; see ``client.sandboxes.create`` for the arguments."""
        client = default_connection()
        own = lifecycle_options(
            on_expire, checkpoint_every, checkpoint_after_exec, max_lifetime_seconds, on_memory_loss
        )
        own |= {"disk_gb": disk_gb, "network": network}
        call = create_sandbox(
            template, cpu, memory_mb, ttl_seconds, persistent, metadata, from_snapshot, volumes, own, idempotency_key
        )
        return cls.from_dict(client.transport.object(call, cancel), client, persistent)

    @classmethod
    def list(
        cls, *, status: str | Sequence[str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> builtins.list[Self]:
        """The sandboxes of the workspace, newest first, through the default client; see ``client.sandboxes.list``."""
        client = default_connection()
        return [cls.from_dict(each, client) for each in client.transport.list(list_sandboxes(status, metadata))]

    @classmethod
    def get(cls, sandbox_id: str) -> Self:
        """One sandbox, through the default client. Raises NotFoundError."""
        client = default_connection()
        return cls.from_dict(client.transport.object(Call("GET", f"/sandboxes/{segment(sandbox_id)}")), client)

    @property
    def client(self) -> Connection:
        """The client that this sandbox uses."""
        return self._client or default_connection()

    @property
    def filesystem(self) -> SandboxFilesystem:
        """The sandbox's files."""
        return SandboxFilesystem(self)

    @property
    def processes(self) -> Processes:
        """Commands that run whether or not a client is attached."""
        return Processes(self)

    @property
    def network(self) -> SandboxNetwork:
        """What the sandbox may reach."""
        return SandboxNetwork(self)

    @property
    def commands(self) -> SandboxCommands:
        """Another spelling of :meth:`exec`."""
        return SandboxCommands(self)

    def exec(self, cmd: str, timeout_seconds: float | None = None, check: bool = False) -> ExecResult:
        """Run a shell command as root and return its output once it has ended.

        Without ``timeout_seconds`` the command itself has no limit, but this call gives up after the
        client's ``timeout``. Raises SandboxTimeout when the limit was reached (the command was killed),
        CommandFailed if ``check`` and the exit code is not 0, NotFoundError.
        """
        return run_command(self.client, self.id, cmd, timeout_seconds, check)

    def exec_stream(
        self,
        cmd: str,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Run a shell command, pass its output to the callbacks as it arrives, and return its exit code.

        An exception from a callback cancels the command. Raises SandboxTimeout, and ExecInterrupted with the
        last 1 Mi characters of output when the stream ends without an outcome.
        """
        return CommandStream(on_stdout, on_stderr).run(self.client, self.id, cmd, timeout_seconds)

    def run_code(self, code: str, language: str = "python") -> ExecResult:
        """Run a piece of code, up to 8 MB, in a fresh interpreter (``python`` or ``bash``).

        Raises ValueError for other languages, and TooLargeError.
        """
        call = run_code(self.id, code, language, self.client.timeout)
        return ExecResult.from_dict(self.client.transport.object(call))

    def create_code_context(self, language: str = "python") -> CodeContext:
        """Open a session that retains its state between cells, in ``python``, ``bash`` or ``node``.

        The template code-interpreter has a kernel for Python; every template has bash.

        Raises BadRequestError when the template lacks the language, QuotaError for more than 8 in one sandbox.
        """
        wanted = language_of(language)
        call = Call("POST", sessions_path(self.id), json={"language": wanted}, into_guest=True, key=new_key())
        return CodeContext(self, str((self.client.transport.object(call))["id"]), wanted)

    def code_contexts(self) -> builtins.list[CodeContext]:
        """The sandbox's sessions, including those inherited from the sandbox that it is a copy of."""
        found = self.client.transport.list(Call("GET", sessions_path(self.id)))
        return [CodeContext(self, str(each["id"]), str(each["language"])) for each in found]

    def kill(self) -> None:
        """Delete the sandbox and its disk. Raises NotFoundError when it is already gone."""
        self.client.transport.run(Call("DELETE", self._path()))
        self.status = "deleted"

    def refresh(self) -> Self:
        """Fetch the current record from the server, update this object in place and return it."""
        return self._take_over(self.client.transport.object(Call("GET", self._path())))

    def fork(
        self,
        metadata: Mapping[str, str] | None = None,
        *,
        cancel: CancelEvent | None = None,
        idempotency_key: str | None = None,
    ) -> Self:
        """Copy this sandbox as it is now: memory, processes and disk. This one keeps running.

        ``metadata`` is merged into the child's. Retried and cancelled like ``client.sandboxes.create``.
        """
        answer = self.client.transport.run(fork_sandbox(self.id, metadata, idempotency_key), cancel)
        return type(self).from_dict(forked(json_value(answer), self.id), self.client)

    def fork_tree(
        self,
        count: int,
        metadata: Mapping[str, str] | None = None,
        *,
        cancel: CancelEvent | None = None,
        idempotency_key: str | None = None,
    ) -> builtins.list[Self]:
        """Make up to ``count`` (at most 16) copies of the same moment; fewer when capacity runs out."""
        call = fork_sandbox_tree(self.id, count, metadata, idempotency_key)
        answer = self.client.transport.run(call, cancel)
        children = children_of(json_value(answer), self.id)
        return [type(self).from_dict(each, self.client) for each in children]

    def promote(self, *, cleanup_siblings: bool = False, tree_id: str | None = None) -> dict[str, Any]:
        """Make this fork independent of its tree; with ``cleanup_siblings`` the tree's other forks are deleted.

        Returns ``{"winner", "tree_id", "deleted", "failures"}``.
        """
        return self.client.transport.object(promote_sandbox(self.id, cleanup_siblings, tree_id))

    def explore(self, candidates: Sequence[Candidate | str], **kwargs: Any) -> ExploreResult[Sandbox]:
        """Try each candidate in a fork of its own and keep the best; the options are those of
        ``pandastack.explore``.
        """
        return explore(self, candidates, **kwargs)

    def _take_over(self, record: Mapping[str, Any]) -> Self:
        current = type(self).from_dict(record, self.client, self.persistent)
        for each in fields(self):
            setattr(self, each.name, getattr(current, each.name))
        return self

    def _other(self, record: Mapping[str, Any]) -> Self:
        return type(self).from_dict(record, self.client)

    def _path(self, below: str = "") -> str:
        return f"/sandboxes/{segment(self.id)}{below}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.persistent:
            return
        try:
            self.kill()
        except NotFoundError:
            return  # its idle limit, or another client, was faster
        except PandastackError as failure:
            if exc is None:
                raise
            # The block's own error matters more; the sandbox is left to its idle limit.
            exc.add_note(f"sandbox {self.id} could not be deleted: {failure}")
