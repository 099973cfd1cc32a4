"""What outgoing webhooks tell of: the types of events, and filters of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

EVENTS: Mapping[str, str] = {
    "sandbox.created": "a sandbox was created and runs",
    "sandbox.running": "a sandbox runs again: it was resumed, woken or brought back",
    "sandbox.paused": "a sandbox was paused",
    "sandbox.hibernated": "a sandbox was hibernated",
    "sandbox.failed": "a sandbox has lost its machine",
    "sandbox.deleted": "a sandbox was deleted, or its create failed",
    "build.ended": "a hermetic build or the build of a template has ended",
    "database.ready": "a database can be used for the first time",
    "database.failed": "a database could not be made",
    "database.deleted": "a database was deleted",
    "deploy.ended": "a deploy of a function has ended",
    "run.ended": "a run of a function has ended",
    "job.ended": "a CI job has ended",
    "webhook.test": "somebody asked for a test; it goes to one endpoint, whatever its filter",
}
"""Every type, and when it is sent. The same list is in docs/webhooks.md."""

TEST = "webhook.test"
EVERYTHING = "*"
_BELOW = ".*"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened to the object ``subject`` of a workspace. ``data`` is what the receiver is told of it.

    With a ``key`` the event has the same id however often it is published: it is stored once for each endpoint.
    """

    workspace: str
    type: str
    subject: str
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        assert self.type in EVENTS, f"{self.type} is not in EVENTS"


def is_filter(text: str) -> bool:
    """Whether ``text`` is the name of a type, ``*``, or the first word of some types with ``.*``."""
    noun = text.removesuffix(_BELOW)
    return text in EVENTS or text == EVERYTHING or (noun != text and any(_noun(each) == noun for each in EVENTS))


def wants(filters: Iterable[str], type: str) -> bool:
    """Whether one of ``filters`` takes events of ``type``."""
    return any(each in (EVERYTHING, type, _noun(type) + _BELOW) for each in filters)


def _noun(type: str) -> str:
    return type.partition(".")[0]
