"""Template builds: start, follow, cancel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pandastack.contract.fields import Uuid


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
    key of the snapshot once it is done, ``error`` why it failed."""

    id: Uuid
    template: str
    status: BuildStatus
    started_at: float
    ended_at: float | None = None
    version: str | None = None
    size_bytes: int | None = None
    error: str | None = None


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


BuildEvent = StepBegan | StepPrinted | StepEnded | LinesDropped | BuildEnded
