# Generated from ../_async/lifecycle.py by scripts/generate_sync.py: change that file, not this one.
"""The life cycle of a sandbox: pausing and waking it, its limits, its snapshots and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pandastack.errors import ServerError
from pandastack.sdk._diff import Diff
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._types import Checkpoint
from pandastack.sdk.wire.call import CAPTURE_SILENCE_SECONDS, Call, lifecycle_options, new_key, segment

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lifecycle:
    """The part of a sandbox that deals with its life cycle; subclasses hold the record.

    Methods that change ``status`` set it here too, without asking the server for the record.
    """

    status: str
    persistent: bool

    if TYPE_CHECKING:

        @property
        def client(self) -> Connection: ...

        def _path(self, below: str = "") -> str: ...

        def _take_over(self, record: Mapping[str, Any]) -> Self: ...

        def _other(self, record: Mapping[str, Any]) -> Self: ...

    def pause(self) -> None:
        """Pause the CPUs; the memory stays where it is. Until it is resumed, calls into it are refused."""
        self._become("paused", "/pause")

    def resume(self) -> None:
        """Resume the CPUs of a paused sandbox; a running one stays as it is."""
        self._become("running", "/resume")

    def hibernate(self) -> None:
        """Store memory and disk, and end the machine. The next call into the sandbox wakes it."""
        self._become("hibernated", "/hibernate")

    def wake(self) -> None:
        """Wake a hibernated sandbox where it stopped; a running one stays as it is.

        Where its memory is lost, or cannot be restored, it boots from its disks: :meth:`lifecycle` tells.
        """
        self._become("running", "/wake")

    def snapshot(self, *, idempotency_key: str | None = None) -> str:
        """Capture memory and disk and return the snapshot's id. The sandbox keeps running.

        ``client.sandboxes.create(from_snapshot=…)`` creates sandboxes from it, even after this one is deleted.
        """
        answer = self.client.transport.object(self._capture("/snapshots", key=idempotency_key or new_key()))
        snapshot_id = answer.get("id") or answer.get("snapshot_id")
        if not snapshot_id:
            raise ServerError("the server's answer to snapshot has no id")
        return str(snapshot_id)

    def checkpoint(self, label: str | None = None, *, idempotency_key: str | None = None) -> Checkpoint:
        """Add the present state to the sandbox's timeline; the default label is the last command."""
        body = {} if label is None else {"label": label}
        call = self._capture("/checkpoints", body, idempotency_key or new_key())
        return Checkpoint.from_dict(self.client.transport.object(call))

    def timeline(self) -> list[Checkpoint]:
        """The sandbox's checkpoints, oldest first."""
        found = self.client.transport.list(Call("GET", self._path("/checkpoints")), "checkpoints")
        return [Checkpoint.from_dict(each) for each in found]

    def rewind(self, checkpoint_id: str) -> Self:
        """Rewind to a checkpoint: memory, processes and disk are as they were then. Returns this object.

        Raises NotFoundError for a checkpoint that is not in the timeline.
        """
        call = self._capture(f"/checkpoints/{segment(checkpoint_id)}/rewind")
        return self._take_over(self.client.transport.object(call))

    def fork_checkpoint(self, checkpoint_id: str, metadata: Mapping[str, str] | None = None) -> Self:
        """Create a sandbox that continues from a checkpoint, with the server's default idle limit; this one is left as
        it is. Raises NotFoundError for a checkpoint that is not in the timeline.
        """
        body = {} if metadata is None else {"metadata": dict(metadata)}
        where = self._path(f"/checkpoints/{segment(checkpoint_id)}/fork")
        return self._other(
            self.client.transport.object(Call("POST", where, json=body, creates=True, key=new_key()))
        )

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Delete a checkpoint from the timeline. Raises NotFoundError."""
        self.client.transport.run(Call("DELETE", self._path(f"/checkpoints/{segment(checkpoint_id)}")))

    def diff(self, since: str = "template", until: str = "now", *, patch: bool = False) -> Diff:
        """The files that differ between two states of this sandbox, or of it and another.

        ``since`` and ``until`` are ``"template"``, ``"now"``, or the id of a checkpoint, a snapshot or a sandbox, all
        of the same build of a template. With ``patch``, small text files come with a unified diff. Raises
        NotFoundError for an unknown id and BadRequestError for states that cannot be compared.
        """
        params = {"from": since, "to": until} | ({"patch": "1"} if patch else {})
        silence = max(CAPTURE_SILENCE_SECONDS, self.client.timeout)
        call = Call("GET", self._path("/diff"), params=params, silence=silence)
        return Diff.from_dict(self.client.transport.object(call))

    def set_ttl(self, seconds: int) -> dict[str, Any]:
        """Set the idle limit and return the lifecycle. Raises BadRequestError when negative."""
        return self.set_lifecycle(ttl_seconds=seconds)

    def set_persistent(self, persistent: bool) -> dict[str, Any]:
        """Exempt the sandbox from the idle limit, or not, and return the lifecycle."""
        return self.set_lifecycle(persistent=persistent)

    def set_lifecycle(
        self,
        ttl_seconds: int | None = None,
        persistent: bool | None = None,
        on_expire: Literal["delete", "hibernate"] | None = None,
        checkpoint_every: float | None = None,
        checkpoint_after_exec: bool | None = None,
        max_lifetime_seconds: int | None = None,
        on_memory_loss: Literal["boot", "fail"] | None = None,
    ) -> dict[str, Any]:
        """Change the given fields and return the lifecycle.

        ``ttl_seconds`` is the idle limit, ``on_expire`` the action when it is reached, ``checkpoint_every`` the
        seconds (at least 1; 0: never) between automatic checkpoints; with ``checkpoint_after_exec`` the server takes
        one after each command. ``max_lifetime_seconds`` after its creation it is deleted, in use or not (0: no limit).
        ``on_memory_loss`` is the action when only its disks are left. Raises BadRequestError.
        """
        wanted = {"ttl_seconds": ttl_seconds, "persistent": persistent}
        body = {key: value for key, value in wanted.items() if value is not None}
        body |= lifecycle_options(
            on_expire, checkpoint_every, checkpoint_after_exec, max_lifetime_seconds, on_memory_loss
        )
        answer = self.client.transport.object(Call("PATCH", self._path("/lifecycle"), json=body))
        if persistent is not None:
            self.persistent = persistent
        return answer

    def metrics(self) -> dict[str, Any]:
        """What its machine takes of the host: ``pid``, ``uptime_seconds``, ``host_cpu_percent`` (of one core, the mean
        over the machine's life), ``host_rss_bytes``, ``host_vsz_bytes``, ``threads``. Raises ConflictError when it has
        no machine.
        """
        return self.client.transport.object(Call("GET", self._path("/metrics")))

    def lifecycle(self) -> dict[str, Any]:
        """The lifecycle: at least ``ttl_seconds``, ``persistent`` and ``idle_seconds``.

        ``memory`` is ``lost`` once it has booted, or will boot, from its disks; ``memory_lost_reason`` says why.
        """
        return self.client.transport.object(Call("GET", self._path("/lifecycle")))

    def _become(self, status: str, below: str) -> None:
        self.client.transport.run(Call("POST", self._path(below)))
        self.status = status

    def _capture(self, below: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Call:
        """A call that writes or reads a whole memory, and may take long."""
        silence = max(CAPTURE_SILENCE_SECONDS, self.client.timeout)
        return Call("POST", self._path(below), json=body, silence=silence, key=key)
