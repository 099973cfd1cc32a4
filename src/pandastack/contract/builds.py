"""Template builds: start, follow, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from pandastack.contract.fields import Owner, Uuid
from pandastack.model.registries import RegistryCredential


class BuildStatus(StrEnum):
    """The state of a build."""

    QUEUED = "queued"
    """It waits for builds that were started before it."""
    RUNNING = "running"
    """Its steps are being carried out."""
    DONE = "done"
    """Sandboxes can be created from its template."""
    FAILED = "failed"
    """A step failed, or the engine was stopped. The previous version of the template still exists."""
    CANCELLED = "cancelled"
    """A caller cancelled it."""

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return not BUILD_MOVES[self]


BUILD_MOVES = {
    BuildStatus.QUEUED: frozenset({BuildStatus.RUNNING, BuildStatus.FAILED, BuildStatus.CANCELLED}),
    BuildStatus.RUNNING: frozenset({BuildStatus.DONE, BuildStatus.FAILED, BuildStatus.CANCELLED}),
    BuildStatus.DONE: frozenset[BuildStatus](),
    BuildStatus.FAILED: frozenset[BuildStatus](),
    BuildStatus.CANCELLED: frozenset[BuildStatus](),
}
"""Every legal move."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build of one template. Times are epoch seconds; ``template`` is the name that it installs, ``version`` the
    key of the snapshot once it is done, ``error`` why it failed. ``owner`` is whose template it makes; empty:
    everybody's."""

    id: Uuid
    template: str
    status: BuildStatus
    started_at: float
    ended_at: float | None = None
    version: str | None = None
    size_bytes: int | None = None
    error: str | None = None
    owner: str = ""
    ahead: int | None = None
    """How many builds come before this one; ``None``: it does not wait for others."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a recipe is built. ``target`` is the stage that becomes the template, by its name or index; empty: the last
    one. ``no_cache``: its instructions are carried out whatever is cached. ``owner`` is whose template it becomes;
    empty: everybody's. Without ``replace`` a name that the owner has already is refused.

    ``arguments`` are build arguments; ``secrets`` are files for its ``RUN --mount=type=secret``, by their ids.
    ``credentials`` are those of the caller's workspace, for the registries of images that the recipe names. Secrets and
    credentials are in no record and no key."""

    target: str = ""
    no_cache: bool = False
    owner: Owner = ""
    replace: bool = True
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    credentials: tuple[RegistryCredential, ...] = field(default=(), repr=False)


OPTIONS_MAX = 8 * 1024 * 1024
"""Bytes of :class:`BuildOptions` as a line, which a request to build begins with. The recipe's archive follows it."""


@dataclass(frozen=True, slots=True)
class StepBegan:
    """A step has begun; steps follow one another and never nest."""

    KIND: ClassVar[str] = "step"

    title: str


@dataclass(frozen=True, slots=True)
class StepPrinted:
    """A line of output of the current step."""

    KIND: ClassVar[str] = "line"

    text: str


@dataclass(frozen=True, slots=True)
class StepAdvanced:
    """So many bytes of the current step's ``total`` are done. ``total`` may grow while the step runs."""

    KIND: ClassVar[str] = "progress"

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepEnded:
    """The step succeeded. ``note`` is a remark on its outcome, such as a size; it may be empty."""

    KIND: ClassVar[str] = "step_ended"

    title: str
    seconds: float
    note: str


@dataclass(frozen=True, slots=True)
class LinesDropped:
    """This many events were here and are no longer retained."""

    KIND: ClassVar[str] = "dropped"

    count: int


@dataclass(frozen=True, slots=True)
class BuildEnded:
    """The last event: the build in its final state."""

    KIND: ClassVar[str] = "ended"

    build: Build


BuildEvent = StepBegan | StepPrinted | StepAdvanced | StepEnded | LinesDropped | BuildEnded
