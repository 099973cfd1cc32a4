"""Headers on their way in and out (RFC 9110 7.6.1: hop by hop ones stay on their hop). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from pandastack.errors import BadRequestError

Header = tuple[bytes, bytes]

_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    b" transfer-encoding upgrade http2-settings".split()
)
_FORWARDED = frozenset(
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip".split()
)
_OURS = b"x-pandastack-"
CALLER = b"X-Pandastack-Caller"
"""Tells a program which sandbox calls it through the door inward. No client can set it."""
_CREDENTIALS = frozenset(b"cookie authorization x-api-key x-csrf-token x-xsrf-token".split())
"""Those of the API's own origin: what is reached by a path there must not see them."""
_ORIGIN_WIDE = frozenset(
    b"set-cookie set-cookie2 service-worker-allowed service-worker-navigation-preload clear-site-data".split()
)
"""What a page could do to the whole origin, on which the API lies."""
SANDBOXED = b"sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"


@dataclass(frozen=True, slots=True)
class Inward:
    """How a request is passed in. ``authority`` is the client's ``Host``; ``prefix`` the path it is reached below.

    ``scheme`` and ``peer`` are the client's: what proxies said about it was judged before.
    """

    port: int
    authority: str
    scheme: str
    peer: str
    host: str = "rewrite"
    origin: str = "keep"
    prefix: str = ""
    caller: str = ""
    """The sandbox that calls, through the door inward."""

    @property
    def upstream_host(self) -> str:
        """The ``Host`` that the guest's program gets: development servers refuse names that they do not know."""
        if self.host == "keep":
            return self.authority
        return f"localhost:{self.port}" if self.host == "rewrite" else self.host


def checked(request: h11.Request) -> tuple[str, str]:
    """The authority and the target of a request. Raises :class:`BadRequestError` for what could be read in two ways."""
    headers = list(request.headers)  # theirs is slow to go through
    named = [value for name, value in headers if name == b"host"]
    names = {name for name, _ in headers}
    if b"content-length" in names and b"transfer-encoding" in names:
        raise BadRequestError("the request has both a length and a transfer encoding", field="content-length")
    if len(named) > 1:
        raise BadRequestError("the request has more than one Host", field="host")
    authority = named[0].decode("latin-1") if named else ""
    target = request.target.decode("latin-1")
    if request.method in (b"CONNECT", b"TRACE"):
        raise BadRequestError(f"{request.method.decode()} is not for previews", status_code=405)
    if target.lower().startswith(("http://", "https://")):
        address = target.partition("://")[2]
        cut = min((at for at in (address.find("/"), address.find("?")) if at >= 0), default=len(address))
        if address[:cut].lower() != authority.lower():
            raise BadRequestError("the address and the Host header name different hosts", field="host")
        rest = address[cut:]
        target = rest if rest.startswith("/") else f"/{rest}"
    if not target.startswith("/"):
        raise BadRequestError("the target of the request is no path", field="path")
    return authority, target


def wants_upgrade(headers: Iterable[Header]) -> bytes | None:
    """The protocol that the client wants to switch to: ``websocket``, or another one but HTTP/2. Names are in lower
    case."""
    given = list(headers)
    wanted = next((value for name, value in given if name == b"upgrade"), None)
    if wanted is None or b"upgrade" not in _tokens(given) or wanted.lower().startswith((b"h2c", b"tls")):
        return None
    return wanted


def inward(headers: Iterable[Header], how: Inward, upgrade: bytes | None, *, chunked: bool) -> list[Header]:
    """The headers for the guest's program."""
    given = list(headers)
    dropped = _HOP | _tokens(given) | _FORWARDED | {b"host", b"expect"} | (_CREDENTIALS if how.prefix else frozenset())
    passed = [(name, value) for name, value in given if not _is(name, dropped)]
    if how.origin == "rewrite":
        own = f"http://{how.upstream_host}".encode("latin-1")
        passed = [(name, own if name.lower() == b"origin" else value) for name, value in passed]
    result: list[Header] = [(b"Host", how.upstream_host.encode("latin-1")), *passed]
    if how.peer:
        result.append((b"X-Forwarded-For", how.peer.encode("latin-1")))
    result.append((b"X-Forwarded-Host", how.authority.encode("latin-1")))
    result.append((b"X-Forwarded-Proto", how.scheme.encode()))
    if how.prefix:
        result.append((b"X-Forwarded-Prefix", how.prefix.encode("latin-1")))
    if how.caller:
        result.append((CALLER, how.caller.encode("latin-1")))
    if chunked:
        result.append((b"Transfer-Encoding", b"chunked"))
    if upgrade is not None:
        result += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    return result


def outward(headers: Iterable[Header], how: Inward) -> list[Header]:
    """The headers for the client: no cookie reaches a sibling, and no redirect names the guest's own address."""
    given = list(headers)
    dropped = _HOP | _tokens(given) | (_ORIGIN_WIDE if how.prefix else frozenset())
    if any(name.lower() == b"transfer-encoding" for name, _ in given):
        dropped |= {b"content-length"}  # it does not count (RFC 9112 6.3)
    result: list[Header] = []
    for name, value in given:
        lower = name.lower()
        if _is(name, dropped):
            continue
        if lower == b"set-cookie":
            value = own_cookie(value)
        elif lower in (b"location", b"content-location"):
            value = own_address(value.decode("latin-1"), how).encode("latin-1")
        result.append((name, value))
    if how.prefix:
        result += [(b"Content-Security-Policy", SANDBOXED), (b"Referrer-Policy", b"no-referrer")]
    return result


def own_cookie(value: bytes) -> bytes:
    """The cookie without its ``Domain``: it stays on the very host that set it."""
    parts = value.split(b";")
    return b";".join(each for each in parts if each.partition(b"=")[0].strip().lower() != b"domain")


def own_address(location: str, how: Inward) -> str:
    """A redirect to the address that the guest's program believes to have, as the client has to write it."""
    if location.startswith("/") and not location.startswith("//"):
        return how.prefix + location
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    if parts.scheme not in ("http", "https") or parts.netloc.lower() != how.upstream_host.lower():
        return location
    rest = location.partition("://")[2][len(parts.netloc) :]
    return f"{how.scheme}://{how.authority}{how.prefix}{rest or '/'}"


def _tokens(headers: Iterable[Header]) -> frozenset[bytes]:
    """What ``Connection`` names: headers that are for this hop only. A body's length is for every hop."""
    values = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset(each.strip().lower() for value in values for each in value.split(b",")) - {b"content-length"}


def _is(name: bytes, dropped: frozenset[bytes]) -> bool:
    lower = name.lower()
    return lower in dropped or lower.replace(b"_", b"-").startswith(_OURS)  # CGI and WSGI take one for the other
