"""Addresses of previews, and the values that the client library returns about ports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_PREFIX_LENGTH = len("pvt_") + 8


@dataclass(frozen=True)
class Port:
    """A port of a sandbox. ``source`` is ``user`` for one with a label, else ``detected``."""

    port: int
    listening: bool
    label: str | None = None
    source: str = "detected"
    proxy_url: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Port:
        """Build from the server's record."""
        return cls(
            port=int(data["port"]),
            listening=bool(data.get("listening")),
            label=data.get("label"),
            source=str(data.get("source") or "detected"),
            proxy_url=data.get("proxy_url"),
        )


@dataclass(frozen=True)
class PreviewLink:
    """A link to a port that works until ``expires_at`` (RFC 3339), or until it is revoked by its ``prefix``."""

    url: str
    port: int
    expires_at: str | None = None
    token: str = field(default="", repr=False)
    paths: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """What names it to its owner."""
        return self.token[:_PREFIX_LENGTH]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PreviewLink:
        """Build from the server's answer."""
        return cls(
            url=str(data["url"]),
            port=int(data["port"]),
            expires_at=data.get("expires_at"),
            token=str(data.get("token") or ""),
            paths=tuple(data.get("paths") or ()),
        )


def preview_address(api_url: str, preview_host: str | None, sandbox_id: str, port: int) -> str:
    """The address of a port by host name. Raises ValueError for an invalid port."""
    if not 1 <= port <= 65535:
        raise ValueError(f"port must be between 1 and 65535, not {port}")
    host = preview_host or os.environ.get("PANDASTACK_PREVIEW_HOST") or _default_host(api_url)
    name = host.partition(":")[0]
    scheme = "http" if name == "localhost" or name.endswith(".localhost") else "https"
    return f"{scheme}://{port}-{sandbox_id}.{host}"


def _default_host(api_url: str) -> str:
    """The server's own name; on this machine ``localhost``, with the port after the API's."""
    parts = urlsplit(api_url)
    host = parts.hostname or "localhost"
    if host in ("localhost", "127.0.0.1", "::1"):
        return f"localhost:{(parts.port or 80) + 1}"
    return host.removeprefix("api.")
