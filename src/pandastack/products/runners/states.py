"""The moves between the states of a job, and the reasons of one that was not carried out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pandastack.errors import ServerError
from pandastack.store.runners import JobState


class Reason(StrEnum):
    """Why a job is in the state ``error``, or what made it fail."""

    OOM = "oom"
    """The guest's kernel killed a process, since its memory was used up."""
    DISK_FULL = "disk_full"
    MACHINE = "machine"
    """Its machine could not be made or used."""
    KILLED_BY_HOST = "killed_by_host"
    """Its machine ended while it ran."""
    POOL = "pool"
    """Its pool was deleted, or has no prepared version."""
    INTERRUPTED = "interrupted"
    """The server ended while it ran, or lost the input that it was given."""
    ARTIFACTS = "artifacts"
    """Its artifacts could not be copied out."""


MOVES: Mapping[JobState, Mapping[JobState, str]] = {
    JobState.QUEUED: {
        JobState.PREPARING: "it is its turn",
        JobState.CANCELLED: "`cancel`",
        JobState.ERROR: "its pool is gone, or its input was lost with the server",
    },
    JobState.PREPARING: {
        JobState.RUNNING: "its machine is there",
        JobState.QUEUED: "the server ended before its first command",
        JobState.CANCELLED: "`cancel`",
        JobState.ERROR: "its machine could not be made",
    },
    JobState.RUNNING: {
        JobState.SUCCEEDED: "every command ended with 0",
        JobState.FAILED: "a command did not",
        JobState.CANCELLED: "`cancel`",
        JobState.TIMED_OUT: "its deadline has passed",
        JobState.ERROR: "its machine or the server ended, or its artifacts could not be copied out",
    },
    JobState.SUCCEEDED: {},
    JobState.FAILED: {},
    JobState.CANCELLED: {},
    JobState.TIMED_OUT: {},
    JobState.ERROR: {},
}
"""For each state those that may follow it, and when. docs/runners.md has the same table."""

FINAL = frozenset(state for state, following in MOVES.items() if not following)


def check_move(before: JobState, after: JobState) -> None:
    """Raise :class:`ServerError` when ``after`` may not follow ``before``."""
    if after not in MOVES[before]:
        raise ServerError(f"a job that is {before} cannot become {after}")
