"""What becomes of a sandbox whose memory is lost. Pure.

Its disks may be left: then it can be booted from them, as a machine after a power cut.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from pandastack.contract.sandboxes import Started
from pandastack.services.records.events import NewEvent
from pandastack.services.records.spec import FAIL, HIBERNATE
from pandastack.store.sandboxes import SandboxRecord

KEPT: dict[str, Any] = {"memory_lost_at": None, "memory_lost_reason": None}
"""The fields of a sandbox that has the memory which it had before."""


def may_boot(record: SandboxRecord) -> bool:
    """Whether the sandbox may boot from its disks; its owner may prefer an error."""
    return record.on_memory_loss != FAIL


def outlives_machine(record: SandboxRecord) -> bool:
    """Whether the sandbox stays when its machine is lost: its owner expects to find it again."""
    return may_boot(record) and (record.persistent or record.on_expire == HIBERNATE)


def lost(reason: str) -> tuple[dict[str, Any], NewEvent]:
    """The fields of a sandbox whose memory is lost now, and the event: all programs that ran have ended with it."""
    event = NewEvent("sandbox.memory_lost", {"reason": reason})
    return {"memory_lost_at": time.time(), "memory_lost_reason": reason}, event


def ended_with_memory(record: SandboxRecord) -> str:
    """Why a process of before is not found in a sandbox whose memory was lost."""
    when = datetime.fromtimestamp(record.memory_lost_at or 0, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"the processes that ran until {when} ended with the sandbox's memory: {record.memory_lost_reason}"


def after_start(record: SandboxRecord, machine: Started) -> tuple[dict[str, Any], list[NewEvent]]:
    """The fields and events of a sandbox that ``machine`` was started for; a loss that is known is told only once."""
    reason = machine.memory_lost
    if reason is None or (record.memory_lost_at is not None and record.memory_lost_reason == reason):
        return {}, []
    values, event = lost(reason)
    return values, [event]
