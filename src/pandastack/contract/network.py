"""The network of a sandbox: its policy, what has passed, and the log of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pandastack.contract.codec import Constraint
from pandastack.contract.fields import NonEmpty, Policy
from pandastack.model.network import OPEN, Protocol


@dataclass(frozen=True, slots=True)
class SetNetwork:
    """Asks for another policy. It is in force when the engine answers; connections that it forbids are cut."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class NetworkState:
    """The network of a sandbox as it is now. The bytes are those of all its machines since the engine started; ``slot``
    is the name of its slot while it has one."""

    policy: Policy = OPEN
    bytes_in: int = 0
    bytes_out: int = 0
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """The bytes of one sandbox, for the engine's list of all."""

    id: str
    bytes_in: int
    bytes_out: int


Port = Annotated[int, Constraint(lambda value: 1 <= value <= 65535, "be from 1 to 65535")]


@dataclass(frozen=True, slots=True)
class CheckDestination:
    """Asks whether a sandbox may connect to ``host``, a name or an IPv4 address; nothing is sent."""

    host: NonEmpty
    port: Port
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True)
class DestinationChecked:
    """The decision that a connection would get: which rule decides, and how to allow what is denied."""

    allowed: bool
    rule: str
    how_to_allow: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EgressRecord:
    """One decision about what a sandbox wanted to reach.

    ``seq`` increases from record to record, also over restarts of the engine; ``time`` is in epoch seconds. ``via``
    says what asked: ``dns``, ``tls``, ``http``, ``tcp``, ``udp``, ``quic``, ``icmp`` or ``other``; ``service`` for the
    door inward. ``how_to_allow`` is the rule that would allow what was denied, empty if none can. Empty: a name, an
    address or a rule that there was not; port 0: none. ``dropped`` decisions before this one were not recorded,
    because there were too many.
    """

    seq: int
    time: float
    allowed: bool
    via: str
    name: str
    address: str
    port: int
    rule: str
    reason: str
    dropped: int = 0
    how_to_allow: str = ""


@dataclass(frozen=True, slots=True)
class EgressRecords:
    """A part of the log, oldest first. ``forgotten``: older records than these are no longer there."""

    records: tuple[EgressRecord, ...]
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class SecretBinding:
    """A secret that the guest knows by ``placeholder`` and that is put in for it on the way to ``hosts``."""

    name: NonEmpty
    placeholder: NonEmpty
    value: str
    hosts: tuple[NonEmpty, ...]

    def __repr__(self) -> str:
        """Without the value: what is shown of a message ends in logs."""
        return f"SecretBinding({self.name!r})"


@dataclass(frozen=True, slots=True)
class SetSecrets:
    """Replaces the secrets of a sandbox: those that are bound to hosts, and what every command finds in its
    environment, unless it says otherwise: placeholders, and the values of secrets without hosts. The engine writes no
    value anywhere."""

    bindings: tuple[SecretBinding, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Without the values."""
        return f"SetSecrets({self.bindings!r}, {sorted(self.env)!r})"
