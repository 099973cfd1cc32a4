"""What passes over the WebSocket of a tunnel beside its bytes, which are the binary messages.

Offsets count bytes from the first of each way; the end of a way counts as one more (docs/design/0024-tunnels.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pandastack.contract.failures import Failure
from pandastack.contract.fields import Count

WINDOW = 256 * 1024
"""Bytes that either side may have sent and not been told of yet."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is there: always the engine's first message. It wants the bytes from ``consumed`` on."""

    KIND: ClassVar[str] = "opened"

    consumed: Count = 0


@dataclass(frozen=True, slots=True)
class Consumed:
    """The program in the guest has so many bytes: the engine never asks for them again."""

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
    """The control plane wants the connection closed. Leaving without this message keeps one that has an id."""

    KIND: ClassVar[str] = "close"


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection, or the listening, is over: the engine's last message. A failure is why it broke."""

    KIND: ClassVar[str] = "closed"

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A program in the guest connected to where the engine listens: a tunnel with this id."""

    KIND: ClassVar[str] = "accepted"

    tunnel: str


FromEngine = Opened | Consumed | Ended | Accepted | Closed
FromControlPlane = Received | Ended | Close
