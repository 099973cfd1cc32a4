"""The egress log of each sandbox: the last decisions about what it wanted to reach.

It is in memory only. A guest decides how much is written here: the egress process bounds the rate, and this module the
number of records, of one sandbox and of all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import anyio

from pandastack.contract.network import EgressRecord, EgressRecords
from pandastack.egress.log import Decision

MOST_RECORDS = 10_000
"""Records of one sandbox; the oldest are forgotten."""

MOST_OF_ALL = 1_000_000
"""Records of all sandboxes; then those with the most lose half."""

_MICROSECONDS = 1_000_000


@dataclass
class _Log:
    records: deque[EgressRecord] = field(default_factory=deque)
    last: int = 0
    """The number of the newest record, also when it is no longer there."""
    forgotten: int = 0
    """The number of the newest record that is no longer there."""
    changed: anyio.Event = field(default_factory=anyio.Event)


class EgressLog:
    """The logs of all sandboxes of an engine.

    A record's number is the time of its decision in microseconds, or one more than the record before: so numbers
    increase also from one engine to the next, and a reader that knows a number finds what came after it.
    """

    def __init__(self, most: int = MOST_RECORDS, most_of_all: int = MOST_OF_ALL) -> None:
        self._most = most
        self._most_of_all = most_of_all
        self._logs: dict[str, _Log] = {}
        self._count = 0

    def add(self, sandbox_id: str, decision: Decision) -> None:
        """Record a decision, and wake the readers."""
        log = self._logs.setdefault(sandbox_id, _Log())
        log.last = max(log.last + 1, int(decision.time * _MICROSECONDS))
        log.records.append(
            EgressRecord(
                seq=log.last,
                time=decision.time,
                allowed=decision.allowed,
                via=decision.via,
                name=decision.name,
                address=decision.address,
                port=decision.port,
                rule=decision.rule,
                reason=decision.reason,
                dropped=decision.dropped,
                how_to_allow=decision.how_to_allow,
            )
        )
        self._count += 1
        if len(log.records) > self._most:
            self._forget(log, 1)
        if self._count > self._most_of_all:
            largest = max(self._logs.values(), key=lambda each: len(each.records))
            self._forget(largest, (len(largest.records) + 1) // 2)
        log.changed.set()
        log.changed = anyio.Event()

    def since(self, sandbox_id: str, seq: int, most: int) -> EgressRecords:
        """At most ``most`` records after the one with the number ``seq``, oldest first."""
        log = self._logs.get(sandbox_id)
        if log is None:
            return EgressRecords(())
        found: list[EgressRecord] = []
        for record in reversed(log.records):
            if record.seq <= seq:
                break
            found.append(record)
        return EgressRecords(tuple(reversed(found))[:most], forgotten=log.forgotten > seq)

    async def follow(self, sandbox_id: str, seq: int) -> AsyncGenerator[EgressRecord, None]:
        """The same without a limit, and then new records as they are made, until the sandbox is deleted."""
        log = self._logs.setdefault(sandbox_id, _Log())
        while self._logs.get(sandbox_id) is log:
            changed = log.changed
            for record in self.since(sandbox_id, seq, self._most).records:
                yield record
                seq = record.seq
            if changed is log.changed:
                await changed.wait()

    def forget(self, sandbox_id: str) -> None:
        """Drop the log of a deleted sandbox; its readers come to the end."""
        log = self._logs.pop(sandbox_id, None)
        if log is not None:
            self._count -= len(log.records)
            log.changed.set()

    def _forget(self, log: _Log, number: int) -> None:
        for _ in range(number):
            log.forgotten = log.records.popleft().seq
        self._count -= number
