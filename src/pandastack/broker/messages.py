"""What engine, egress process and broker say to each other.

The engine orders on a pair of sockets, a line of JSON each; the broker answers every order with a line, and reports
uses on lines of their own.

The egress process connects to the broker's socket for every connection that it hands over: one line of JSON with the
descriptors of client and host, then the bytes that it has read of the client, whose number the line has. The broker
answers with one line. Both connections are its own then, until either of the two closes the Unix connection.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pandastack.broker.bindings import Binding, Use

ORDER_LIMIT = 16 * 1024 * 1024
"""Bytes of an order: a sandbox may have many secrets, of up to 8 KiB."""

HANDOVER_LIMIT = 128 * 1024
"""Bytes of the first line of a handover and of what was read of the client."""

ACCEPTED = b'{"ok":true}\n'


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection to a bound host. ``begun``: how many bytes of the client have been read; they follow the line."""

    slot: str
    sandbox: str
    host: str
    port: int
    tls: bool
    begun: int = 0


def line(message: dict[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def refusal(reason: str) -> bytes:
    """The answer to a handover that is not taken."""
    return line({"ok": False, "reason": reason})


def encode_handover(wanted: Handover) -> bytes:
    """The line of a handover."""
    return line(asdict(wanted))


def decode_handover(text: bytes) -> Handover:
    """The inverse. Raises ``ValueError``."""
    try:
        values = json.loads(text)
        made = Handover(
            slot=str(values["slot"]),
            sandbox=str(values["sandbox"]),
            host=str(values["host"]),
            port=int(values["port"]),
            tls=values["tls"] is True,
            begun=int(values.get("begun", 0)),
        )
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError("malformed handover") from error
    if not (made.host and 0 < made.port < 1 << 16 and 0 <= made.begun <= HANDOVER_LIMIT):
        raise ValueError("malformed handover")
    return made


def encode_bindings(bindings: Sequence[Binding]) -> list[dict[str, Any]]:
    """Bindings for an order. They hold the values."""
    return [asdict(each) for each in bindings]


def decode_bindings(values: Sequence[dict[str, Any]]) -> tuple[Binding, ...]:
    """The inverse."""
    return tuple(Binding(**{**each, "hosts": tuple(each["hosts"])}) for each in values)


def encode_use(use: Use) -> bytes:
    """The line that reports a use."""
    return line({"use": asdict(use)})


def decode_use(values: dict[str, Any]) -> Use:
    """The inverse."""
    return Use(**values)
