"""Messages of PostgreSQL's protocol, version 3, as far as the gateway reads and writes them. Pure.

Source: PostgreSQL's manual, "Message Formats" and "Message Flow". Texts are bytes: their encoding is the client's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
STARTUP_LIMIT = 10_000
"""The most bytes of a client's first packet, as in PostgreSQL."""
MAJOR, NEWEST_MINOR = 3, 2
KEY_LIMIT = 256
"""The most bytes of a cancel key (protocol 3.2)."""
HEAD_BYTES = 5
"""The kind of a message and its length."""
AUTHENTICATION_OK, SASL, SASL_CONTINUE, SASL_FINAL = 0, 10, 11, 12
SCRAM = b"SCRAM-SHA-256"
EXTENSION = b"_pq_."
"""How the names of parameters begin that ask for extensions of the protocol."""

INVALID_AUTHORIZATION, INVALID_PASSWORD, PROTOCOL_VIOLATION = "28000", "28P01", "08P01"
NOT_SUPPORTED, REJECTED, TOO_MANY_CONNECTIONS, CANNOT_CONNECT_NOW = "0A000", "08004", "53300", "57P03"


class Malformed(Exception):
    """The bytes break the protocol."""


class Refusal(Exception):
    """What the client is told before its connection is closed: an SQLSTATE, a message, and perhaps a hint."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def wrong_password(user: bytes) -> Refusal:
    """What PostgreSQL says to a wrong password, and to a role that does not exist."""
    return Refusal(INVALID_PASSWORD, f'password authentication failed for user "{user.decode(errors="replace")}"')


@dataclass(frozen=True, slots=True)
class Encryption:
    """A wish to encrypt the connection: by TLS, or by GSSAPI."""

    tls: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """A wish to cancel what the session with this process id and key runs."""

    pid: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Startup:
    """The beginning of a session. ``minor`` is that of the protocol's version 3."""

    minor: int
    parameters: Mapping[bytes, bytes]

    @property
    def extensions(self) -> tuple[bytes, ...]:
        """The names of the extensions of the protocol that the client asks for."""
        return tuple(name for name in self.parameters if name.startswith(EXTENSION))


def packet_size(head: bytes) -> int:
    """The size of a client's first packet, by its first four bytes. Raises :class:`Malformed`."""
    size = int.from_bytes(head[:4])
    if not 8 <= size <= STARTUP_LIMIT:
        raise Malformed("invalid length of startup packet")
    return size


def parse_packet(packet: bytes) -> Encryption | Cancel | Startup:
    """A client's first packet, whole. Raises :class:`Malformed`, and :class:`Refusal` for another major version."""
    size, code = struct.unpack_from("!II", packet)
    if size != len(packet):
        raise Malformed("invalid length of startup packet")
    if code in (SSL_REQUEST, GSS_REQUEST):
        if size != 8:
            raise Malformed("invalid length of startup packet")
        return Encryption(code == SSL_REQUEST)
    if code == CANCEL_REQUEST:
        if not 12 < size <= 12 + KEY_LIMIT:
            raise Malformed("invalid length of cancel request")
        return Cancel(int.from_bytes(packet[8:12]), packet[12:])
    major, minor = code >> 16, code & 0xFFFF
    if major != MAJOR:
        raise Refusal(
            NOT_SUPPORTED,
            f"unsupported frontend protocol {major}.{minor}: server supports {MAJOR}.0 to {MAJOR}.{NEWEST_MINOR}",
        )
    return Startup(minor, _parameters(packet[8:]))


def _parameters(data: bytes) -> dict[bytes, bytes]:
    if data[-1:] != b"\0":
        raise Malformed("invalid startup packet layout: expected terminator as last byte")
    found: dict[bytes, bytes] = {}
    parts = data.split(b"\0")
    # Names and values, each with its end, then an empty name: the last two parts are empty.
    if len(parts) % 2 or parts[-2:] != [b"", b""]:
        raise Malformed("invalid startup packet layout: a name without a value")
    for name, value in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        if not name:
            raise Malformed("invalid startup packet layout: expected terminator as last byte")
        if name in found:
            raise Malformed("a parameter appears twice in the startup packet")
        found[name] = value
    return found


def startup_packet(parameters: Mapping[bytes, bytes]) -> bytes:
    """The first packet of a session of protocol 3.0 with a server."""
    body = b"".join(name + b"\0" + value + b"\0" for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", 8 + len(body), MAJOR << 16) + body


def cancel_packet(pid: int, key: bytes) -> bytes:
    """The packet that cancels what a session of a server runs."""
    return struct.pack("!III", 12 + len(key), CANCEL_REQUEST, pid) + key


def message(kind: bytes, body: bytes) -> bytes:
    """A message of a session."""
    return kind + (4 + len(body)).to_bytes(4) + body


def error(refusal: Refusal) -> bytes:
    """ErrorResponse that ends the session."""
    fields = [("S", "FATAL"), ("V", "FATAL"), ("C", refusal.code), ("M", refusal.message)]
    fields += [("H", refusal.hint)] if refusal.hint else []
    body = b"".join(name.encode() + text.replace("\0", "").encode() + b"\0" for name, text in fields)
    return message(b"E", body + b"\0")


def error_code(body: bytes) -> str:
    """The SQLSTATE in an ErrorResponse; empty when it has none."""
    codes = [field[1:] for field in body.split(b"\0") if field[:1] == b"C"]
    return codes[0].decode("ascii", "replace") if codes else ""


def negotiation(minor: int, unknown: Sequence[bytes]) -> bytes:
    """NegotiateProtocolVersion: the newest version that is spoken, and what the client asks for and does not get."""
    version = MAJOR << 16 | (NEWEST_MINOR if minor >= NEWEST_MINOR else 0)  # 3.1 does not exist
    return message(b"v", struct.pack("!II", version, len(unknown)) + b"".join(name + b"\0" for name in unknown))


def authentication(kind: int, data: bytes = b"") -> bytes:
    """One of the messages by which a server authenticates its client."""
    return message(b"R", kind.to_bytes(4) + data)


def key_data(pid: int, key: bytes) -> bytes:
    """BackendKeyData."""
    return message(b"K", pid.to_bytes(4) + key)


def parse_key_data(body: bytes) -> tuple[int, bytes]:
    """The process id and the cancel key in BackendKeyData. Raises :class:`Malformed`."""
    if not 4 < len(body) <= 4 + KEY_LIMIT:
        raise Malformed("invalid length of a cancel key")
    return int.from_bytes(body[:4]), body[4:]


def mechanisms(body: bytes) -> tuple[bytes, ...]:
    """The names in AuthenticationSASL, after its code. Raises :class:`Malformed`."""
    names = body[:-2].split(b"\0")
    if not body.endswith(b"\0\0") or not all(names):
        raise Malformed("malformed list of mechanisms")
    return tuple(names)


class Frames:
    """Messages of a session out of pieces of any size; one with a body over ``most`` bytes is malformed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come and was not taken as a message."""
        return bytes(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are whole, each with its kind and body. Raises :class:`Malformed`.

        A caller may stop: then what follows is in :attr:`rest`.
        """
        self._held += data
        while len(self._held) >= HEAD_BYTES:
            size = int.from_bytes(self._held[1:HEAD_BYTES])
            if not 4 <= size <= 4 + self._most:
                raise Malformed("invalid length of a message")
            if len(self._held) < 1 + size:
                return
            kind, body = bytes(self._held[:1]), bytes(self._held[HEAD_BYTES : 1 + size])
            del self._held[: 1 + size]
            yield kind, body
