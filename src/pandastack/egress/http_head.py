"""The head of an HTTP/1 request, and where its body ends: as strict as the strictest server, since what two readers
read differently is a way around a rule.

Source: RFC 9112 (message syntax), RFC 9110 §7.2 (Host) and §7.8 (Upgrade).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pandastack.egress.names import normal_name, plain_address

HEAD_LIMIT = 64 * 1024
"""The most bytes of a request's head."""

METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PRI"])
"""Methods whose name alone says that a stream is HTTP."""

_END = b"\r\n\r\n"
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]{1,65000}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([^\r\n\0]*)")
_ABSOLUTE = re.compile(r"(https?|wss?)://([^/?#@]+)(?:[/?#].*)?", re.IGNORECASE)


class MalformedHead(Exception):
    """The bytes are no request that every server reads alike."""


@dataclass(frozen=True, slots=True)
class Head:
    """``name`` or ``address`` and ``port`` say whom the request is for; ``port`` None: the connection's. ``length``:
    bytes of the body, None when it is chunked. ``size``: bytes of the head itself. ``forwarded``: it is meant for a
    proxy (absolute form or CONNECT)."""

    method: str
    name: str | None
    address: str | None
    port: int | None
    length: int | None
    size: int
    upgrade: str = ""
    forwarded: bool = False

    @property
    def connect(self) -> bool:
        return self.method == "CONNECT"


def looks_like_http(data: bytes) -> bool | None:
    """Whether a stream with these first bytes is HTTP/1; None: more bytes would tell."""
    data = data.lstrip(b"\r\n")[:128]
    method, space, _ = data.partition(b" ")
    if not space:
        return None if len(data) <= 32 and re.fullmatch(rb"[A-Za-z-]*", data) else False
    if method.decode("latin-1").upper() in METHODS:
        return True
    line, end, _ = data.partition(b"\n")
    return b" HTTP/" in line if end or len(data) == 128 else None


def parse_head(data: bytes) -> Head | None:
    """The head at the start of ``data``; None while it is incomplete. Raises :class:`MalformedHead`."""
    end = data.find(_END)
    if end < 0:
        if len(data) >= HEAD_LIMIT:
            raise MalformedHead("the head is too long")
        if b"\n\n" in data or b"\n\r\n" in data:
            raise MalformedHead("a line ends without a carriage return")
        return None
    if end > HEAD_LIMIT:
        raise MalformedHead("the head is too long")
    first, *lines = data[:end].split(b"\r\n")
    request = _LINE.fullmatch(first)
    if not request:
        raise MalformedHead("no request line")
    fields: dict[str, list[str]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if not field:
            raise MalformedHead("malformed header field")
        fields.setdefault(field[1].decode().lower(), []).append(field[2].decode("latin-1").strip(" \t"))
    return _head(request[1].decode(), request[2].decode(), request[3] == b"1", fields, end + len(_END))


def _head(method: str, target: str, modern: bool, fields: dict[str, list[str]], size: int) -> Head:
    hosts = fields.get("host", [])
    if len(hosts) > 1 or (modern and not hosts) or hosts == [""]:
        raise MalformedHead("not exactly one Host")
    authority, forwarded = hosts[0] if hosts else "", False
    if method == "CONNECT":
        if hosts and _authority(hosts[0])[:2] != _authority(target)[:2]:
            raise MalformedHead("Host is not the authority")
        authority, forwarded = target, True
    elif absolute := _ABSOLUTE.fullmatch(target):
        if hosts and _authority(hosts[0]) != _authority(absolute[2]):
            raise MalformedHead("Host is not the authority")
        authority, forwarded = absolute[2], True
    elif not target.startswith("/") and target != "*":
        raise MalformedHead("unknown form of request target")
    name, address, port = _authority(authority) if authority else (None, None, None)
    if method == "CONNECT" and port is None:
        raise MalformedHead("CONNECT without a port")
    if forwarded and port is None:
        port = 443 if target[:5].lower() in ("https", "wss:/") else 80
    upgrade = ",".join(fields.get("upgrade", [])).lower()
    return Head(method, name, address, port, _length(fields), size, upgrade, forwarded)


def _authority(text: str) -> tuple[str | None, str | None, int | None]:
    host, colon, digits = text.partition(":")
    if colon and (not digits.isdecimal() or len(digits) > 5 or not 0 < int(digits) < 65536):
        raise MalformedHead("malformed port")
    name, address = normal_name(host), plain_address(host)
    if name is None and address is None:
        raise MalformedHead("malformed host")
    return name, address, int(digits) if digits else None


def _length(fields: dict[str, list[str]]) -> int | None:
    codings, lengths = fields.get("transfer-encoding", []), fields.get("content-length", [])
    if codings:
        if lengths or [each.lower() for each in codings] != ["chunked"]:
            raise MalformedHead("ambiguous length of the body")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise MalformedHead("malformed Content-Length")
    return int(lengths[0])


class Body:
    """Finds the end of a request's body in the bytes that pass."""

    def __init__(self, length: int | None) -> None:
        self._left = length or 0
        self._state = "size" if length is None else "fixed"
        self._line = bytearray()
        self._trailers = 0

    def take(self, data: memoryview) -> tuple[int, bool]:
        """How many bytes at the start of ``data`` belong to the body, and whether it ends there.

        Raises :class:`MalformedHead` for a chunk that is not strictly well-formed.
        """
        at = 0
        while True:
            if self._state in ("fixed", "chunk"):
                step = min(self._left, len(data) - at)
                at, self._left = at + step, self._left - step
                if self._left:
                    return at, False
                if self._state == "fixed":
                    return at, True
                self._state = "gap"
            line = None
            while at < len(data) and line is None:
                byte = data[at]
                at += 1
                self._line.append(byte)
                if byte == 10:
                    line, self._line = bytes(self._line), bytearray()
                elif len(self._line) > 4096:
                    raise MalformedHead("a line in the body is too long")
            if line is None:
                return at, False
            if not line.endswith(b"\r\n"):
                raise MalformedHead("a line ends without a carriage return")
            if self._state == "size":
                self._begin_chunk(line)
            elif self._state == "gap":
                if line != b"\r\n":
                    raise MalformedHead("a chunk is longer than its size")
                self._state = "size"
            elif line == b"\r\n":
                return at, True
            else:
                self._trailers += len(line)
                if self._trailers > HEAD_LIMIT:
                    raise MalformedHead("the trailers are too long")

    def _begin_chunk(self, line: bytes) -> None:
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\r\n", line)
        if not size:
            raise MalformedHead("malformed size of a chunk")
        self._left = int(size[1], 16)
        self._state = "chunk" if self._left else "trailers"
