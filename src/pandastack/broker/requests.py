"""Checks and rewrites the heads of requests and answers, apart from secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pandastack.broker.bindings import normal_host

Headers = list[tuple[bytes, bytes]]

JSON_LIMIT = 1024 * 1024
"""Bytes of a JSON body into which values are put; larger ones are only looked into."""

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer", b"upgrade", b"expect")
)
_JSON = re.compile(rb"application/(?:[a-z0-9!#$&^_.+-]{1,100}\+)?json", re.IGNORECASE)


class BadRequest(Exception):
    """A request that is not forwarded, with the status of its answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What goes to the host of a request, apart from secrets."""

    target: bytes
    headers: Headers
    websocket: bool
    is_json: bool
    coding: str


def plan_request(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], host: str) -> Forwarded:
    """The request to ``host`` for a client's request. Raises :class:`BadRequest`."""
    if method.upper() == b"CONNECT":
        raise BadRequest(405, "CONNECT is not for a host with secrets")
    target = _origin_form(target, host)
    _check_host(values(headers, b"host"), host)
    websocket = values(headers, b"upgrade")[:1] == [b"websocket"]
    dropped = _HOP_BY_HOP | tokens(headers, b"connection")
    kept = [(name, value) for name, value in headers if name not in dropped]
    # An answer is looked into, which compression would prevent.
    kept = [each for each in kept if each[0] not in (b"accept-encoding", b"sec-websocket-extensions")]
    kept.append((b"Accept-Encoding", b"identity"))
    if websocket:
        kept += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    kind = b"".join(values(headers, b"content-type")[:1]).partition(b";")[0].strip()
    coding = b",".join(values(headers, b"content-encoding")).decode("latin-1")
    return Forwarded(target, kept, websocket, _JSON.fullmatch(kind) is not None, coding)


def plan_answer(headers: Sequence[tuple[bytes, bytes]], *, upgraded: bool, decoded: bool) -> Headers:
    """The headers of an answer for the client. ``decoded``: its body is not compressed any more."""
    dropped = (_HOP_BY_HOP | tokens(headers, b"connection")) - ({b"connection", b"upgrade"} if upgraded else set())
    dropped |= {b"alt-svc"}  # the host by HTTP/3 would not go through here
    if decoded:
        dropped |= {b"content-encoding", b"content-length"}
    return [(name, value) for name, value in headers if name not in dropped]


def values(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """All values of a header (name in lower case)."""
    return [value.strip() for name, value in headers if name == wanted]


def tokens(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> set[bytes]:
    """The words of a header that is a list, in lower case."""
    return {word.strip().lower() for value in values(headers, wanted) for word in value.split(b",")}


def with_length(headers: Headers, length: int) -> Headers:
    """``headers`` of a body of ``length`` bytes without a coding."""
    dropped = (b"content-length", b"transfer-encoding", b"content-encoding")
    kept = [each for each in headers if each[0] not in dropped]
    return [*kept, (b"Content-Length", str(length).encode())]


def path_of(target: bytes) -> str:
    """The path of a target, for people: without the query, and not long."""
    return target.partition(b"?")[0][:512].decode("latin-1")


def _origin_form(target: bytes, host: str) -> bytes:
    if target.startswith(b"/") or target == b"*":
        return target
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise BadRequest(400, "malformed request target")
    authority, slash, path = rest.partition(b"/")
    _check_host([authority], host)
    return slash + path or b"/"


def _check_host(found: list[bytes], host: str) -> None:
    """A connection to one host must not carry requests for another."""
    if len(found) != 1:
        raise BadRequest(400, "the request needs exactly one Host header")
    name, colon, port = found[0].decode("latin-1").rpartition(":")
    if colon and not (port.isascii() and port.isdecimal()):
        raise BadRequest(400, "malformed Host header")
    if normal_host(name if colon else port) != host:
        raise BadRequest(421, f"this connection is to {host}")
