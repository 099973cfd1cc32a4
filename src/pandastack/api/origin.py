"""Keeps web pages from reaching a server on the user's own machine through the user's browser.

Any page can open a WebSocket to 127.0.0.1 and, through a name that resolves to it (DNS rebinding), send it any request.
Browsers name the page in ``Origin``; programs send no such header.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from pandastack.errors import ForbiddenError

_MCP = re.compile(r"(/v1)?/mcp|/v1/sandboxes/[^/]+/mcp")


def check_origin(scope: Scope, allowed: str) -> None:
    """Refuse a WebSocket, or a request for agents' tools, that a foreign page sends to a server on loopback.

    ``allowed`` lists origins that are not foreign, separated by commas. Raises :class:`ForbiddenError`.
    """
    if scope["type"] != "websocket" and not _MCP.fullmatch(scope["path"]):
        return
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None or origin in [each.strip() for each in allowed.split(",")]:
        return
    hosts = (str((scope.get("server") or ("",))[0]), _host("//" + headers.get("host", "")))
    if any(map(_is_loopback, hosts)) and not _is_loopback(_host(origin)):
        hint = "PANDASTACK_ALLOWED_ORIGINS lists the pages that may"
        raise ForbiddenError(f"a page of {origin[:100]!r} may not use a server on this machine", hint=hint)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
