"""Runs in progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from pandastack.errors import CapacityError, ConflictError
from pandastack.products.functions.guest import Answer
from pandastack.products.functions.streams import Stream
from pandastack.store.functions import RunRecord, RunStatus, VersionRecord

DELETED = "the function was deleted during the run"
LEFT = "the client left before the answer was complete"


@dataclass(eq=False)
class Call:
    """A run in progress. ``network`` is the policy of its machine, as policies are stored; None: the template's.
    ``start`` tells how its machine came to be, and ``keep_seconds`` how long it is kept if the run fails. ``answer``
    and ``failure`` are there once ``done`` is set: ``failure`` is a refusal that came before the function began.
    ``stream`` is where an answer in pieces goes; ``ended_by`` says why ``scope`` is cancelled. While ``is_waiting``,
    it waits for another attempt."""

    record: RunRecord
    version: VersionRecord
    request: Mapping[str, Any]
    seconds: float
    network: Mapping[str, Any] | None = None
    keep_seconds: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    start: str | None = None
    answer: Answer | None = None
    failure: CapacityError | None = None
    stream: Stream | None = None
    ended_by: str = DELETED
    is_waiting: bool = False


async def ended(call: Call) -> RunRecord:
    """The run once it has ended. Raises the refusal of one that got no machine."""
    await call.done.wait()
    if call.failure is not None:
        raise call.failure
    if call.record.status is RunStatus.RUNNING:
        raise ConflictError("the run has not ended")
    return call.record
