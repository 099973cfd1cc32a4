"""The names that previews and functions are reached by: ``{port}-{id}.SUFFIX`` and ``fn-{id}.SUFFIX`` as hosts,
``/v1/p/{token}/…`` as a path. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pandastack.errors import BadRequestError

TOKEN_PATH = "/v1/p/"

_HOST = re.compile(r"([a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?\.?|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_PREVIEW = re.compile(r"([0-9]{1,5})-([a-z0-9][a-z0-9-]{0,57})")
_FUNCTION = re.compile(r"fn-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Preview:
    """A port of a sandbox, named by a host name."""

    port: int
    sandbox: str


def host_name(authority: str) -> str:
    """The name in a ``Host`` header, without its port, in lower case. Raises :class:`BadRequestError`."""
    found = _HOST.fullmatch(authority.lower()) if len(authority) < 300 else None
    if found is None or ".." in authority or (found[2] and int(found[2]) > 65535):
        raise BadRequestError("the Host header names no host", field="host")
    return found[1].removesuffix(".")


def preview_of(host: str, suffixes: Sequence[str]) -> Preview | None:
    """The preview that a host name means; None: it means none. Raises :class:`BadRequestError` for a bad port."""
    for suffix in suffixes:
        label = host.removesuffix(f".{suffix}")
        if label == host or (found := _PREVIEW.fullmatch(label)) is None:
            continue
        port = int(found[1])
        if not 1 <= port <= 65535:
            raise BadRequestError(f"the host name has the port {port}", field="host")
        return Preview(port, found[2])
    return None


def function_of(host: str, suffixes: Sequence[str]) -> str | None:
    """The id of the function that a host name means; None: it means none."""
    for suffix in suffixes:
        label = host.removesuffix(f".{suffix}")
        if label != host and (found := _FUNCTION.fullmatch(label)) is not None:
            return found[1]
    return None


def token_path(target: str) -> tuple[str, str] | None:
    """The token and the rest of ``/v1/p/{token}/rest?query``; None for another path."""
    if not target.startswith(TOKEN_PATH):
        return None
    end = re.search(r"[/?]|$", target[len(TOKEN_PATH) :])
    assert end is not None
    token, rest = target[len(TOKEN_PATH) :][: end.start()], target[len(TOKEN_PATH) :][end.start() :]
    if not _TOKEN.fullmatch(token):
        return None
    return token, rest if rest.startswith("/") else f"/{rest}"


def check_path(target: str) -> None:
    """Refuse a path that client and server could read in two ways. Raises :class:`BadRequestError`."""
    if "#" in target or "\\" in target or any(not 0x21 <= ord(each) <= 0x7E for each in target):
        raise BadRequestError("the path has a character that must be percent-encoded", field="path")


def check_plain_path(target: str) -> None:
    """The same for a path that is compared with a prefix: no dot segments, no encoded separators."""
    path = target.partition("?")[0].lower()
    decoded = path.replace("%2e", ".")
    if any(part in (".", "..") for part in decoded.split("/")) or "%2f" in path or "%5c" in path or "%00" in path:
        raise BadRequestError("the path has dot segments or encoded separators", field="path")


def allowed_path(target: str, prefixes: Sequence[str]) -> bool:
    """Whether the path is at or below one of the prefixes; no prefixes allow all."""
    path = target.partition("?")[0]
    wholes = [prefix.rstrip("/") for prefix in prefixes]
    return not wholes or any(path == whole or path.startswith(f"{whole}/") for whole in wholes)
