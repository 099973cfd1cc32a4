"""What a sandbox may reach: its network policy, as data.

A policy is one value that every part of the network takes: the rules of the packet filter, the resolver, the proxy and
the answers of the API all come from it, so that what is checked is what is enforced.
:mod:`pandastack.model.network_rules` reads policies from requests and writes them for answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Egress(StrEnum):
    """Which kind of policy it is."""

    ALLOW = "allow"
    """The public internet, without what ``deny`` lists."""
    LIST = "list"
    """What ``allow`` lists and ``deny`` does not."""
    DENY = "deny"
    """Nothing outside. Names are refused and logged; the door inward works."""
    NONE = "none"
    """The cable is out: not even names are answered."""


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Rule:
    """A destination. ``target`` is a domain (``example.org``, or ``*.example.org``: the names below it, not itself) or
    a network (``203.0.113.0/24``), in its one normal spelling. ``port`` None: every port; ``protocol`` None: both."""

    target: str
    port: int | None = None
    protocol: Protocol | None = None

    @property
    def is_network(self) -> bool:
        """Whether ``target`` is a network rather than a domain: only networks contain a slash."""
        return "/" in self.target


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may send and receive; 0: no limit."""

    kbytes_per_second: int = 0
    """KiB a second, each way."""
    packets_per_second: int = 0
    """Each way."""
    connections_per_second: int = 0
    """New connections outward."""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What a sandbox may reach. ``services`` are those of its workspace that it reaches through the door inward
    (:mod:`pandastack.model.services`); ``secrets`` names those whose placeholders it gets."""

    egress: Egress = Egress.ALLOW
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    services: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    limits: Limits = Limits()

    @property
    def has_domains(self) -> bool:
        """Whether names decide: connections then go through the proxy, which sees them."""
        return any(not rule.is_network for rule in (*self.allow, *self.deny))


OPEN = NetworkPolicy()
"""The default: the public internet."""

QUIC_PORT = 443
"""The port of QUIC, over UDP: it carries names that nobody on the way can read."""

GUEST_ADDRESS, GUEST_GATEWAY, GUEST_NETWORK = "10.0.2.15", "10.0.2.2", "10.0.2.0/24"
"""The guest's end, the slot's end and the network of the cable: the same in every slot, so that any guest fits it."""

INWARD_DOMAIN = "pandastack.internal"
"""The domain of names that this platform itself gives to guests."""

INWARD_NAME, INWARD_PORT = f"gateway.{INWARD_DOMAIN}", 80
"""The one door inward: the name by which guests find it, which leads to :data:`GUEST_GATEWAY`, and its TCP port."""

FORBIDDEN = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
"""What no guest reaches, whatever its policy: private, shared, link-local and other special networks. A literal list,
since libraries disagree about what is private: a package registry may well answer from a documentation range. The
networks and addresses of the host itself come on top."""
