"""The text messages on the WebSocket of a tunnel; binary messages are its bytes.

Offsets count the bytes of each direction; the end of a direction counts as one more (docs/design/0024-tunnels.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pandastack.contract.failures import Failure
from pandastack.contract.fields import Count

WINDOW = 256 * 1024
"""Most bytes that either side may have sent without acknowledgement."""

SERVICES = ("session", "sftp")
"""What the guest's agent serves by itself: a tunnel to one of them starts it, as a user of the guest."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is open: always the engine's first message. It wants the bytes from ``consumed`` on."""

    KIND: ClassVar[str] = "opened"

    consumed: Count = 0


@dataclass(frozen=True, slots=True)
class Consumed:
    """The program in the guest has read this many bytes: the engine never asks for them again."""

    KIND: ClassVar[str] = "consumed"

    offset: Count


@dataclass(frozen=True, slots=True)
class Received:
    """The control plane never asks again for bytes before this offset."""

    KIND: ClassVar[str] = "received"

    offset: Count


@dataclass(frozen=True, slots=True)
class Ended:
    """No more bytes from the sender of this message."""

    KIND: ClassVar[str] = "ended"


@dataclass(frozen=True, slots=True)
class Close:
    """The control plane wants the connection closed. Without this message a connection with an id stays open."""

    KIND: ClassVar[str] = "close"


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection, or the listening, is over: the engine's last message. If it broke, the failure tells why."""

    KIND: ClassVar[str] = "closed"

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A program in the guest connected to the engine's listener: a tunnel with this id."""

    KIND: ClassVar[str] = "accepted"

    tunnel: str


FromEngine = Opened | Consumed | Ended | Accepted | Closed
FromControlPlane = Received | Ended | Close
