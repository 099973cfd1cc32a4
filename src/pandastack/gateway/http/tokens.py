"""Where a request carries a preview's token, and the request without it: no guest sees the token. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[bytes, bytes]]

HEADER = b"x-pandastack-preview-token"
QUERY = "pandastack_token"
COOKIE, SECURE_COOKIE = "pandastack-preview", "__Host-pandastack-preview"
PROTOCOL = "pandastack.token."
"""Among the subprotocols of a WebSocket: all that a browser's script can add to it."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Found:
    """A request without its token. ``protocol`` is the subprotocol that carried it."""

    token: str | None
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    in_query: bool = False
    protocol: str | None = None


def take_token(target: str, headers: Headers) -> Found:
    """The token, from the header, the query, a subprotocol or a cookie, in this order; all of them are removed."""
    kept: list[tuple[bytes, bytes]] = []
    by_header = by_protocol = by_cookie = None
    for name, value in headers:
        lower = name.lower()
        if lower == HEADER:
            by_header = by_header or value.decode("latin-1").strip()
            continue
        if lower == b"sec-websocket-protocol" and PROTOCOL.encode() in value:
            offered = [each.strip() for each in value.decode("latin-1").split(",")]
            by_protocol = next((each for each in offered if each.startswith(PROTOCOL)), by_protocol)
            value = ", ".join(each for each in offered if not each.startswith(PROTOCOL)).encode("latin-1")
            if not value:
                continue
        if lower == b"cookie" and COOKIE.encode() in value:
            cookies = [each.strip() for each in value.decode("latin-1").split(";")]
            ours = [each for each in cookies if each.partition("=")[0] in (COOKIE, SECURE_COOKIE)]
            by_cookie = by_cookie or next((each.partition("=")[2] for each in ours), None)
            value = "; ".join(each for each in cookies if each not in ours).encode("latin-1")
            if not value:
                continue
        kept.append((name, value))
    by_query, target = _take_query(target)
    given = by_header or by_query or (by_protocol or "").removeprefix(PROTOCOL) or by_cookie
    token = given if given and _TOKEN.fullmatch(given) else None
    in_query = by_query is not None and not by_header
    return Found(token or (given and "invalid") or None, target, tuple(kept), in_query, by_protocol)


def cookie(token: str, *, tls: bool, seconds: int) -> str:
    """The value of ``Set-Cookie`` that carries the token on later requests: to this very host only."""
    name, rest = (SECURE_COOKIE, "SameSite=None; Secure; Partitioned") if tls else (COOKIE, "SameSite=Lax")
    return f"{name}={token}; Path=/; Max-Age={max(seconds, 0)}; HttpOnly; {rest}"


def _take_query(target: str) -> tuple[str | None, str]:
    path, mark, query = target.partition("?")
    if QUERY not in query:
        return None, target
    pairs = query.split("&")
    ours = [each for each in pairs if each.partition("=")[0] == QUERY]
    rest = "&".join(each for each in pairs if each not in ours)
    token = ours[0].partition("=")[2] if ours else None
    return token, f"{path}{mark}{rest}" if rest else path
