"""Events of a sandbox."""

from __future__ import annotations

from typing import Any, Self

from pandastack.api.models.base import Answer, timestamp
from pandastack.store.events import EventRecord


class Event(Answer):
    time: str
    sandbox_id: str
    type: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, record: EventRecord) -> Self:
        return cls(
            time=timestamp(record.time), sandbox_id=record.sandbox_id, type=record.type, payload=dict(record.payload)
        )


class Events(Answer):
    events: list[Event]
