"""Registries of images: the operator's exceptions, and the credentials of a workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pandastack.errors import BadRequestError
from pandastack.model.image_reference import parse_registry

REGISTRIES = "PANDASTACK_REGISTRIES"

MOST_REGISTRIES = 20
"""How many registries a workspace may have credentials for."""


@dataclass(frozen=True, slots=True)
class AllowedRegistry:
    """A registry that builds may reach wherever it is. ``plain``: it speaks HTTP without TLS."""

    host: str
    port: int
    plain: bool

    @property
    def is_loopback(self) -> bool:
        """Whether it is this host's own."""
        try:
            return self.host == "localhost" or IPv4Address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """Where a registry of this host listens."""
        return "127.0.0.1" if self.host == "localhost" else self.host


@dataclass(frozen=True, slots=True)
class RegistryCredential:
    """What a workspace signs in to the registry ``host`` (and port) with."""

    host: str
    username: str
    password: str = field(repr=False)


def parse_allowed(text: str) -> tuple[AllowedRegistry, ...]:
    """``host:port`` of registries that speak plain HTTP and ``https://host[:port]`` of others, separated by commas.

    Raises :class:`BadRequestError` that names the setting.
    """
    return tuple(_allowed(each.strip()) for each in text.split(",") if each.strip())


def _allowed(text: str) -> AllowedRegistry:
    plain = not text.startswith("https://")
    name = parse_registry(text.removeprefix("https://").removeprefix("http://"), field=REGISTRIES)
    return allowed_registry(name, plain=plain)


def allowed_registry(name: str, *, plain: bool) -> AllowedRegistry:
    host, _, port = name.partition(":")
    if not host:
        raise BadRequestError(f"{REGISTRIES}: a registry without a host", field=REGISTRIES)
    return AllowedRegistry(host, int(port) if port else 80 if plain else 443, plain)
