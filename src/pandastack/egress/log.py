"""Decisions, and how many of them are reported: a guest makes as many as it likes, so the rate is bounded per slot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pandastack.egress.pace import Bucket

Via = Literal["dns", "tls", "http", "tcp", "udp", "quic", "icmp", "other", "service"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about something that a sandbox wanted to reach; ``service``: through the door inward.

    ``time`` in seconds since 1970. ``name`` and ``address`` are empty when unknown, ``port`` is 0 then. ``rule`` is
    what decided, ``reason`` a sentence for people. ``dropped`` counts the decisions of the same slot before this one
    that were not reported.
    """

    time: float
    allowed: bool
    via: Via
    name: str
    address: str
    port: int
    rule: str
    reason: str
    dropped: int = 0
    how_to_allow: str = ""
    """The rule that would allow it; empty when it is allowed or none can."""


@dataclass
class DecisionLog:
    """Passes on the decisions of one slot at a bounded rate. Denied ones have a budget of their own, so that a busy
    sandbox cannot hide them behind allowed ones."""

    report: Callable[[Decision], None]
    dropped: int = 0
    """Decisions that were not passed on since the last one that was."""
    _allowed: Bucket = field(default_factory=lambda: Bucket(rate=20, burst=200))
    _denied: Bucket = field(default_factory=lambda: Bucket(rate=50, burst=500))

    def add(
        self,
        allowed: bool,
        via: Via,
        *,
        name: str = "",
        address: str = "",
        port: int = 0,
        rule: str,
        reason: str = "",
        how_to_allow: str = "",
    ) -> None:
        if not (self._allowed if allowed else self._denied).take():
            self.dropped += 1
            return
        self._pass_on(Decision(time.time(), allowed, via, name, address, port, rule, reason, how_to_allow=how_to_allow))

    def flush(self) -> None:
        """Report how many were dropped, although nothing follows them. Called about once a second."""
        if self.dropped and self._denied.take():
            what = f"{self.dropped} decisions were not logged: there were too many"
            self._pass_on(Decision(time.time(), False, "tcp", "", "", 0, "log", what))

    def _pass_on(self, decision: Decision) -> None:
        dropped, self.dropped = self.dropped, 0
        self.report(replace(decision, dropped=dropped))
