"""What the server tells its gateway when it starts it. The same options and release: the same gateway serves on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pandastack.contract.version import VERSION

PROTOCOL = 4
"""Incremented whenever a gateway of before cannot serve a server of now, or the other way round."""


@dataclass(frozen=True, slots=True)
class Options:
    """``directory`` has the sockets of server and gateway, ``data`` what must survive: host keys.

    A port of 0 is any free one, None none. ``suffixes`` are the domains below which host names of previews lie.
    """

    directory: str
    data: str
    host: str = "127.0.0.1"
    http_port: int | None = 0
    ssh_port: int | None = None
    postgres_port: int | None = None
    suffixes: tuple[str, ...] = ("localhost",)
    certificate: str | None = None
    """PEM files of the certificate chain and of its key, which the server reads; None: its authority signs some."""
    key: str | None = None
    uid: int | None = None
    """The user that the gateway becomes once it listens; None: it stays its server's."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of the reverse proxies that are believed about their clients' addresses and schemes."""
    linger_seconds: float = 60.0
    """How long the gateway serves on without a server before it ends."""
    max_connections: int = 4096
    inward: str | None = None
    """The socket where connections come in that sandboxes make through the door inward; None: there is no such door."""
    inward_uid: int | None = None
    """The user, besides the gateway's own, that may connect there."""
    protocol: int = PROTOCOL
    contract: str = VERSION
    """The version of what is said over the engine's interface, which both ends must have."""

    @property
    def engine(self) -> Path:
        """The socket of the engine's HTTP interface."""
        return Path(self.directory) / "engine.sock"

    @property
    def control(self) -> Path:
        """The socket where the control plane answers the gateway."""
        return Path(self.directory) / "control.sock"

    @property
    def inner(self) -> Path:
        """The socket where the gateway answers the control plane: requests that a caller of the API made by path."""
        return Path(self.directory) / "gateway.sock"

    @property
    def leash(self) -> Path:
        """The socket that a server holds while it wants the gateway to live."""
        return Path(self.directory) / "leash.sock"

    def text(self) -> str:
        """The options as JSON; :meth:`parse` is the inverse."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The options in ``text``."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, **{name: tuple(values[name]) for name in ("suffixes", "trusted_proxies")}})
