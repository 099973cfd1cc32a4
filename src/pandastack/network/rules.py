"""The rules of the packet filter, as scripts for nft(8): one command a line, applied all or none.

There are two walls. The first stands in each slot: a guest is heard only with its own addresses, reaches the resolver
and the proxy, and beyond only what its policy allows. The second stands on the host, around all slots of an
installation: whatever happens in a slot, nothing goes from it to the host, its networks, other slots or private ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import Literal

from pandastack.model.network import GUEST_ADDRESS, GUEST_GATEWAY, GUEST_NETWORK, INWARD_PORT
from pandastack.network.slot import DNS_PORT, GATEWAY_MAC, PREFIX, PROXY_PORT, TAP, UPLINK

TABLE = "pandastack"

MOST_TRACKED = 8192
"""Connections of one slot at a time: the host remembers those of all slots in one table."""

DNS_RATE = 500
"""Packets a second to the resolver, at most."""

ARP_RATE = 20
"""ARP requests a second, at most; a guest sends one in a minute."""

LOG_GROUP, LOGGED_BYTES = 1, 24
"""Where a slot's filter reports what it refuses, and how much of each packet: the header of IPv4, and ports."""

LOG_RATE, LOG_BURST = 20, 50
"""Refused packets that are reported: a second in the long run, and at once."""

PASS_BIT = 1 << 27
"""The bit of a packet's mark that the gate (:mod:`pandastack.network.gate`) sets and the wall on the host asks for."""

GATE_PRIORITY = -6
"""Where the gate is hooked in: after the wall has taken the bit off, before it asks for it."""

ProxiedPorts = frozenset[int] | Literal["all"]
"""The TCP ports whose connections the proxy gets; networks that a policy allows are reached directly under ``all``."""

_LOG = f"limit rate {LOG_RATE}/second burst {LOG_BURST} packets log group {LOG_GROUP} snaplen {LOGGED_BYTES}"

_REJECT = ("meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")
"""A guest learns at once that it may not."""


def plan_slot_rules(guest_mac: str, forbidden: Sequence[str], *, logs: bool = True) -> str:
    """The first wall, in a new slot; its policy is still empty: nothing passes. ``logs``: whether refusals are
    reported."""
    return _script(
        [
            f"add table netdev {TABLE}",
            f"add chain netdev {TABLE} rated",
            *_heard(guest_mac),
            f"add table inet {TABLE}",
            f"add set inet {TABLE} forbidden {{ type ipv4_addr; flags interval; auto-merge; {_elements(forbidden)} }}",
            *(f"add chain inet {TABLE} {name}" for name in ("redirected", "judged", "known", "fresh", "received")),
            *_chain("refused", "", [*([_LOG] if logs else []), *_REJECT]),
            *_proxy(),
            *_input(),
            *_forward(),
            *_chain("sent", "filter hook postrouting priority 300; policy accept", [f'oifname "{TAP}" jump received']),
            *_chain(
                "leaving", "nat hook postrouting priority srcnat; policy accept", [f'oifname "{UPLINK}" masquerade']
            ),
        ]
    )


def _heard(guest_mac: str) -> list[str]:
    """What of a guest's frames is heard at all: untagged IPv4 from its addresses to the gateway's hardware address,
    whole and without options, and the question who the gateway is. Answers nobody asked for are not: the slot knows the
    guest's address without asking. A tag is part of the type here, also when the kernel has taken it off already."""
    rules = [
        f"ether saddr != {guest_mac} drop",
        "ether type != { ip, arp } drop",
        f"ether type arp arp htype 1 arp ptype ip arp operation request arp saddr ether {guest_mac}"
        f" arp saddr ip {GUEST_ADDRESS} arp daddr ip {GUEST_GATEWAY} limit rate {ARP_RATE}/second accept",
        "ether type != ip drop",
        f"ether daddr != {GATEWAY_MAC} drop",
        f"ip saddr != {GUEST_ADDRESS} drop",
        "ip hdrlength != 5 drop",
        "ip frag-off & 0x3fff != 0 drop",
        "jump rated",
        "accept",
    ]
    hook = f'{{ type filter hook ingress device "{TAP}" priority 0; policy drop; }}'
    return [f"add chain netdev {TABLE} heard {hook}", *(f"add rule netdev {TABLE} heard {rule}" for rule in rules)]


def _proxy() -> list[str]:
    outside = f'iifname "{TAP}" ip daddr != {GUEST_NETWORK} ip daddr != @forbidden'
    return _chain("proxy", "nat hook prerouting priority dstnat; policy accept", [f"{outside} jump redirected"])


def _input() -> list[str]:
    """The slot's own sockets. The proxy's is reached by redirected connections only. Whether the door inward opens, the
    egress process decides."""
    return _chain(
        "input",
        "filter hook input priority filter; policy drop",
        [
            f'iifname != "{TAP}" drop',
            "ct state invalid meta l4proto tcp reject with tcp reset",
            "ct state established accept",
            "ct state != new drop",
            f"ct count over {MOST_TRACKED} drop",
            f"ip daddr {GUEST_GATEWAY} udp dport {DNS_PORT}"
            f" limit rate {DNS_RATE}/second burst {DNS_RATE} packets accept",
            f"ip daddr {GUEST_GATEWAY} tcp dport {DNS_PORT} limit rate {DNS_RATE}/second accept",
            "jump fresh",
            f"ip daddr {GUEST_GATEWAY} tcp dport {INWARD_PORT} accept",
            f"ct status dnat tcp dport {PROXY_PORT} accept",
            _REJECT[0],
        ],
    )


def _forward() -> list[str]:
    """What goes through the slot. What is forbidden is so for connections of any age. A connection that the present
    policy has let through bears its mark; any other is judged as if it were new, also after a change of policy."""
    return _chain(
        "forward",
        "filter hook forward priority filter; policy drop",
        [
            f'iifname "{UPLINK}" oifname "{TAP}" ct state established,related jump known',
            f'iifname != "{TAP}" drop',
            f'oifname != "{UPLINK}" drop',
            "ip daddr @forbidden goto refused",
            "ct state invalid meta l4proto tcp reject with tcp reset",
            "ct state invalid drop",
            "jump known",  # also the next datagrams of a conversation that nobody has answered, which are all new
            f"ct state new ct count over {MOST_TRACKED} drop",
            "ct state new jump fresh",
            "jump judged",
            "goto refused",
        ],
    )


def plan_logging_trial() -> str:
    """A rule that reports, to see whether this kernel can."""
    return _script([f"add table inet {TABLE}", *_chain("refused", "", [_LOG])])


def plan_host_rules(tag: str, network: IPv4Network, forbidden: Iterable[str], *, routes: bool = False) -> str:
    """The second wall, around all slots of the installation ``tag``, whose addresses are in ``network``. It replaces
    the rules that a former server has left. Nothing passes it either way unless the gate is open. Whatever else on the
    host sets that bit of marks, it is taken off before, and again after: no rule behind the wall sees it.

    ``routes``: the host was no router before, and does not become one for others.
    """
    table, slots = host_table(tag), f'"{PREFIX}{tag}*"'
    foreign = [f'iifname != "{PREFIX}*" oifname != "{PREFIX}*" drop'] if routes else []
    shut, unmark = f"meta mark & {PASS_BIT:#x} == 0 drop", f"meta mark set meta mark & {~PASS_BIT & 0xFFFFFFFF:#x}"
    chains = {
        "unmarked": (
            f"filter hook forward priority {GATE_PRIORITY - 1}; policy accept",
            [f"iifname {slots} {unmark}", f"oifname {slots} {unmark}"],
        ),
        "from_slots": (
            "",
            [
                shut,
                unmark,
                f"ip saddr != {network} drop",
                "meta nfproto != ipv4 drop",
                f'oifname "{PREFIX}*" drop',
                "ip daddr @forbidden drop",
                "ct state invalid drop",
                "accept",
            ],
        ),
        "to_slots": ("", [shut, unmark, "ct state established,related accept", "drop"]),
        "forward": (
            f"filter hook forward priority {GATE_PRIORITY + 1}; policy accept",
            [f"iifname {slots} jump from_slots", f"oifname {slots} jump to_slots", *foreign],
        ),
        "input": (
            "filter hook input priority filter - 5; policy accept",
            [f"iifname {slots} drop"],
        ),
        "leaving": (
            "nat hook postrouting priority srcnat; policy accept",
            [f'ip saddr {network} oifname != "{PREFIX}*" masquerade'],
        ),
    }
    return _script(
        [
            f"add table inet {table}",
            f"delete table inet {table}",
            f"add table inet {table}",
            f"add set inet {table} forbidden {{ type ipv4_addr; flags interval; auto-merge; {_elements(forbidden)} }}",
            *(line for name, (hook, rules) in chains.items() for line in _chain(name, hook, rules, table)),
        ]
    )


def plan_forbidden(tag: str, forbidden: Iterable[str]) -> str:
    """Replaces what the second wall forbids, when the host's networks have changed."""
    name = f"inet {host_table(tag)} forbidden"
    return _script([f"flush set {name}", f"add element {name} {{ {', '.join(forbidden)} }}"])


def host_table(tag: str) -> str:
    return f"{TABLE}_{tag}"


def gate_table(tag: str) -> str:
    return f"{host_table(tag)}_gate"


def _chain(name: str, hook: str, rules: Iterable[str], table: str = TABLE) -> list[str]:
    header = f"add chain inet {table} {name}" + (f" {{ type {hook}; }}" if hook else "")
    return [header, *(f"add rule inet {table} {name} {rule}" for rule in rules)]


def _elements(networks: Iterable[str]) -> str:
    listed = ", ".join(networks)
    return f"elements = {{ {listed} }};" if listed else ""


def _script(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
