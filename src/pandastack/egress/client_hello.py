"""The server name in the first message of TLS, read without answering it.

Sources: RFC 8446 §4.1.2 and §5.1 (ClientHello, records), RFC 6066 §3 (server_name), RFC 7301 §3.1
(application_layer_protocol_negotiation), RFC 9849 (encrypted_client_hello).
"""

from __future__ import annotations

from dataclasses import dataclass

from pandastack.egress.names import normal_name

HELLO_LIMIT = 64 * 1024
"""The most bytes of a ClientHello with its record headers."""

_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _CLIENT_HELLO = 20, 21, 22, 1
_SERVER_NAME, _PROTOCOLS, _ENCRYPTED = 0, 16, frozenset({0xFE0D, 0xFFCE})
_RECORD_LIMIT = 2**14


class MalformedHello(Exception):
    """The bytes are no ClientHello that a server would accept."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """``name`` is in normal form; None: no server name, or one that is no domain name. ``encrypted``: it may carry a
    second, hidden name. ``size``: its bytes, with the headers of its records. ``protocols``: what it offers to speak
    inside TLS (RFC 7301); empty: it does not say."""

    name: str | None
    encrypted: bool
    size: int
    protocols: tuple[bytes, ...] = ()


def looks_like_tls(data: bytes) -> bool:
    """Whether a stream with these first bytes is TLS. SSL 2 is not: its servers are gone."""
    return data[:2] == b"\x16\x03"[: len(data)] and len(data) > 0


def parse_client_hello(data: bytes) -> ClientHello | None:
    """The hello at the start of ``data``; None while it is incomplete. Raises :class:`MalformedHello`."""
    whole = _message(data)
    if whole is None:
        return None
    message, size = whole
    reader = _Reader(message)
    reader.take(2 + 32)  # version and random
    reader.take(reader.number(1))  # session
    reader.take(reader.number(2))  # cipher suites
    reader.take(reader.number(1))  # compression
    if not reader.left:
        return ClientHello(None, False, size)
    extensions = _Reader(reader.take(reader.number(2)))
    if reader.left:
        raise MalformedHello("bytes after the extensions")
    name, kinds = None, set()
    protocols: tuple[bytes, ...] = ()
    while extensions.left:
        kind = extensions.number(2)
        body = extensions.take(extensions.number(2))
        if kind in kinds:
            raise MalformedHello("an extension appears twice")
        kinds.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(body)
        elif kind == _PROTOCOLS:
            protocols = _protocols(body)
    return ClientHello(name, bool(kinds & _ENCRYPTED), size, protocols)


def repeated_hello(data: bytes) -> bytes | None:
    """``data`` from where it repeats the ClientHello, empty if it does not; None while that is unknown.

    A server that answers the first hello with HelloRetryRequest gets another (RFC 8446 §4.1.2), and its name counts.
    """
    while len(data) >= 5 and data[0] in (_CHANGE_CIPHER, _ALERT) and data[3:5] in (b"\0\1", b"\0\2"):
        data = data[5 + data[4] :]
    if data and data[0] not in (_CHANGE_CIPHER, _ALERT, _HANDSHAKE):
        return b""
    if len(data) < 6:
        return None
    empty = data[3:5] == b"\0\0"  # no server may accept that, and it must not hide what follows
    return data if empty or (data[0] == _HANDSHAKE and data[5] == _CLIENT_HELLO) else b""


def _message(data: bytes) -> tuple[bytes, int] | None:
    """The handshake message out of its records, without its header, and where its last record ends."""
    message, start = bytearray(), 0
    while len(data) >= start + 5:
        size = int.from_bytes(data[start + 3 : start + 5])
        if data[start] != _HANDSHAKE or data[start + 1] != 3 or not 0 < size <= _RECORD_LIMIT:
            raise MalformedHello("no handshake record")
        message += data[start + 5 : start + 5 + size]
        start += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise MalformedHello("not a ClientHello")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4])
            if length > HELLO_LIMIT - 4:
                raise MalformedHello("too long")
            if len(message) >= 4 + length:
                return bytes(message[4 : 4 + length]), start
    if len(data) >= HELLO_LIMIT:
        raise MalformedHello("too long")
    return None


def _server_name(body: bytes) -> str | None:
    reader = _Reader(body)
    names = _Reader(reader.take(reader.number(2)))
    if names.number(1) != 0:
        raise MalformedHello("unknown kind of server name")
    raw = names.take(names.number(2))
    if names.left or reader.left:
        raise MalformedHello("more than one server name")
    return normal_name(raw.decode("ascii", "replace"))


def _protocols(body: bytes) -> tuple[bytes, ...]:
    reader, found = _Reader(body), []
    names = _Reader(reader.take(reader.number(2)))
    while names.left:
        found.append(names.take(names.number(1)))
    if reader.left or not all(found):
        raise MalformedHello("a malformed list of protocols")
    return tuple(found)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise MalformedHello("a field goes past the end")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))
