"""Secrets of a slot, and which of them a host may get. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Binding:
    """A secret that is bound to hosts: names, or ``*.example.org`` for the names below one. In lower case."""

    name: str
    placeholder: str
    value: str = field(repr=False)
    hosts: tuple[str, ...] = ()

    def covers(self, host: str) -> bool:
        """Whether ``host`` (lower case, no trailing dot) may get the value."""
        return any(host_matches(each, host) for each in self.hosts)


def host_matches(pattern: str, host: str) -> bool:
    """Whether ``host`` is the name ``pattern``, or a name below that of ``*.name``."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return host == pattern


def normal_host(host: str) -> str:
    """A host name in its one spelling: lower case, without the trailing dot."""
    return host.rstrip(".").lower()


@dataclass(frozen=True, slots=True)
class Use:
    """One request in which a secret was used, or refused; never its value, nor the query.

    ``refused`` is empty, or says why the request was not forwarded.
    """

    time: float
    slot: str
    sandbox: str
    name: str
    host: str
    method: str
    path: str
    refused: str = ""


def bound_hosts(bindings: Sequence[Binding]) -> tuple[str, ...]:
    """All hosts that have a secret, without repetition."""
    return tuple(dict.fromkeys(host for each in bindings for host in each.hosts))
