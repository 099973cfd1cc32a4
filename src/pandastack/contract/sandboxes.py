"""Sandboxes: create, list, hibernate, copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar

from pandastack.contract.codec import Constraint
from pandastack.contract.failures import Failure
from pandastack.contract.fields import Policy, Uuid
from pandastack.contract.network import SetSecrets
from pandastack.contract.references import StartFrom
from pandastack.contract.volumes import AttachVolumes, OwnVolume
from pandastack.errors import BadRequestError
from pandastack.model.previews import Visibility, WakePolicy


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The specification of a sandbox. ``hostname`` None: the first eight digits of the id."""

    id: Uuid
    hostname: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedSize:
    """The size of a new sandbox; None: that of its template or snapshot."""

    cpu: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None


DEFAULT_SIZE = WantedSize()


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Asks for a new sandbox. ``boot``: it may boot from its disks where the memory cannot be restored. ``network``
    None: the policy of its template. ``secrets`` are in force before the sandbox runs. Where the template's policy
    names others, the answer is the error that :func:`secrets_needed` reads, and nothing has been done. ``volumes`` are
    for a new sandbox of a template only: one of a snapshot has copies of those that were captured."""

    spec: SandboxSpec
    start_from: StartFrom
    size: WantedSize = DEFAULT_SIZE
    boot: bool = False
    network: Policy | None = None
    secrets: SetSecrets | None = None
    volumes: AttachVolumes = ()


_NEEDED = "secrets_needed"


def needing_secrets(names: Iterable[str]) -> BadRequestError:
    """The refusal of a create whose template names these secrets, while the request does not bring them."""
    message = f"network.secrets: the template names the secrets {', '.join(names)}"
    return BadRequestError(message, field="network.secrets", detail={_NEEDED: list(names)})


def secrets_needed(error: BadRequestError) -> tuple[str, ...]:
    """The names in such a refusal; empty for any other."""
    return tuple(map(str, error.detail.get(_NEEDED, ())))


@dataclass(frozen=True, slots=True)
class WakeSandbox:
    """Asks for a hibernated sandbox to run. ``boot``: as for :class:`CreateSandbox`."""

    boot: bool = False


def _distinct(children: tuple[SandboxSpec, ...]) -> bool:
    return 0 < len(children) == len({each.id for each in children})


@dataclass(frozen=True, slots=True)
class ForkSandbox:
    """Asks for copies of a running sandbox. A child has the parent's environment plus that of its own spec, and
    the parent's network policy."""

    children: Annotated[tuple[SandboxSpec, ...], Constraint(_distinct, "be one or more, with different ids")]


@dataclass(frozen=True, slots=True)
class RewindSandbox:
    """Asks to restore the state of a snapshot under the sandbox's own id."""

    snapshot: Uuid


class SandboxState(StrEnum):
    """The state of a sandbox, as its engine sees it."""

    RUNNING = "running"
    """Its guest executes commands."""
    PAUSED = "paused"
    """Its CPUs are paused; the memory stays."""
    HIBERNATED = "hibernated"
    """It is stored on disk, and has no machine."""
    FAILED = "failed"
    """Its machine ended by itself."""


class BootMode(StrEnum):
    """How a machine was started."""

    SNAPSHOT = "snapshot"
    """From a template or a snapshot, or rewound to one."""
    WAKE = "wake"
    FORK = "fork"
    BOOT = "boot"
    """From its disks alone: its memory is lost."""


@dataclass(frozen=True, slots=True)
class Started:
    """A sandbox runs now. ``phases``: the duration of each part of its start in milliseconds; ``boot_ms``: the sum.
    ``memory_lost``: why it was booted without its memory; None if it was restored with it. ``network``: the policy in
    force; None: the engine that started it did not say. ``previews`` and ``wake``: the defaults of its template.
    ``own_volumes``: those without an id, in the order of their devices."""

    KIND: ClassVar[str] = "started"

    id: str
    template: str
    cpu: int
    memory_mb: int
    disk_mb: int
    boot_ms: int
    boot_mode: BootMode
    phases: Mapping[str, float]
    pid: int
    memory_lost: str | None = None
    network: Policy | None = None
    previews: Visibility | None = None
    wake: WakePolicy | None = None
    own_volumes: tuple[OwnVolume, ...] = ()

    @property
    def waited(self) -> bool:
        """Whether a machine that had loaded its guest was waiting for it."""
        return "resume" in self.phases


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A requested sandbox that could not be made, and the reason."""

    KIND: ClassVar[str] = "not_started"

    id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Captured:
    """The cost of a capture: an upper bound of new bytes on the disk, changed bytes of memory, and the guest's pause
    in milliseconds."""

    size_bytes: int
    dirty_bytes: int
    pause_ms: float


NOTHING_CAPTURED = Captured(0, 0, 0.0)
"""The cost of hibernating a sandbox that is already hibernated."""


@dataclass(frozen=True, slots=True)
class ForkAnswer:
    """The result for each child, in the order of the request. At least one of them was started."""

    captured: Captured
    children: tuple[Started | NotStarted, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """The host resources of a machine. The percentage is the mean over its life; 100 is one whole core."""

    pid: int
    uptime_seconds: float
    host_cpu_percent: float
    host_rss_bytes: int
    host_vsz_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as its engine sees it. A hibernated one has no ``pid`` and no ``started_at`` (epoch seconds); ``usage``
    is measured only in a request for a single sandbox. ``memory_lost``: why a hibernated one has only its disks; None
    if its memory is stored, too."""

    id: str
    template: str
    state: SandboxState
    pid: int | None = None
    started_at: float | None = None
    failure: str | None = None
    usage: Usage | None = None
    memory_lost: str | None = None
