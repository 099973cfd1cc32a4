"""What the control plane and the recording proxy's process say to each other.

On a pair of stream sockets, a line of JSON each: the control plane's :class:`Start`, the process's
:class:`Ready` (not for a refetch), an empty line of the control plane when the build has ended, the process's
:class:`Report`. On a second pair the control plane sends connections of the guest: a byte each, with a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LINE_LIMIT = 32 * 1024 * 1024
"""Bytes of a line: a lock is in it, as JSON."""


class Mode(StrEnum):
    """What the process does."""

    RECORD = "record"
    REPLAY = "replay"
    """Answer from the lock. It has no network."""
    REFETCH = "refetch"
    """Fetch the bodies that the lock names, then report; there are no connections."""


@dataclass(frozen=True, slots=True)
class Start:
    """``networks`` may be reached although they are private; at most ``most_bytes`` are fetched."""

    mode: Mode
    lock: str = ""
    networks: tuple[str, ...] = ()
    most_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """``certificate``: what the guest is to trust, as PEM. Its key never leaves the process."""

    certificate: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request of the guest that got no answer of a host, and why."""

    method: str
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """``lock``: what was recorded, what was asked for of the lock, or what was fetched again."""

    lock: str
    refused: tuple[Refusal, ...] = ()
