"""What of a request goes to its host, and what is recorded of an answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pandastack.recorder.lock import HEADERS, METHODS, is_header
from pandastack.recorder.urls import Url, parse_authority, parse_url

Pairs = Sequence[tuple[bytes, bytes]]

RECORDED = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 401, 403, 404, 405, 410, 451))
"""Statuses that are recorded. Others tell of a moment (429, 503), or answer what is never asked for (206, 304)."""

_LONGEST_VALUE = 1024


class Refused(Exception):
    """A request that gets no answer of a host."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def wanted_url(target: bytes, headers: Pairs, base: tuple[str, str, int] | None) -> Url:
    """What a request asks for. ``base``: scheme, host and port of the tunnel that it came through, if it did.

    Raises :class:`Refused`.
    """
    text = target.decode("latin-1")
    try:
        if base is None:
            return parse_url(text)
        url = Url(*base, "/")
        hosts = values(headers, b"host")
        if len(hosts) != 1 or parse_authority(hosts[0], base[2]) != base[1:]:
            raise Refused(421, f"this tunnel is to {url.authority}")
        return parse_url(f"{str(url)[:-1]}{text}" if text.startswith("/") else text)
    except ValueError as error:
        raise Refused(400, str(error)) from error


def check_request(method: bytes, headers: Pairs) -> None:
    """Raise :class:`Refused` for what is never recorded."""
    name = method.decode("latin-1")[:32]
    if name not in METHODS:
        raise Refused(403, f"only GET and HEAD are recorded, not {name}")
    if values(headers, b"upgrade"):
        raise Refused(403, "connections that change their protocol are not recorded")
    if values(headers, b"authorization"):
        raise Refused(403, "what needs credentials is not recorded")
    if values(headers, b"transfer-encoding") or any(each != "0" for each in values(headers, b"content-length")):
        raise Refused(403, "requests with a body are not recorded")


def sent_headers(url: Url, headers: Pairs) -> list[tuple[bytes, bytes]]:
    """The headers that go to the host. Cookies, conditions and ranges do not: an answer is the whole of a resource."""
    agent = (values(headers, b"user-agent") or ["pandastack"])[0][:_LONGEST_VALUE]
    return [
        (b"Host", url.authority.encode()),
        (b"Accept", (accept_of(headers) or "*/*").encode("latin-1")),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", agent.encode("latin-1")),
        (b"Connection", b"close"),
    ]


def accept_of(headers: Pairs) -> str:
    """The request's ``Accept``, as it is recorded. Raises :class:`Refused` for one that cannot be."""
    accept = ", ".join(values(headers, b"accept"))
    if accept and not is_header(accept):
        raise Refused(400, "malformed Accept")
    return accept


def recorded_headers(headers: Pairs, accept: str) -> dict[str, str]:
    """What is recorded of an answer's headers, and all of them that a program in the guest sees."""
    found = {name: value for name in HEADERS[1:] for value in values(headers, name.encode())[:1] if is_header(value)}
    varies = {word.strip().lower() for value in values(headers, b"vary") for word in value.split(",")}
    return {"accept": accept, **found} if accept and varies & {"accept", "*"} else found


def values(headers: Pairs, wanted: bytes) -> list[str]:
    """All values of a header (name in lower case)."""
    return [value.strip().decode("latin-1") for name, value in headers if name.lower() == wanted]
