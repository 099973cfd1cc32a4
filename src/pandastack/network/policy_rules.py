"""A policy as rules of the packet filter in its slot (:mod:`pandastack.network.rules`): a pure function.

What only names can decide is left to the proxy; this decides addresses. The rules never allow what the proxy is to
decide: while there is no proxy nothing passes.
"""

from __future__ import annotations

from collections.abc import Iterable

from pandastack.model.network import QUIC_PORT, Egress, Limits, NetworkPolicy, Protocol, Rule
from pandastack.network.rules import TABLE, ProxiedPorts
from pandastack.network.slot import DNS_PORT, PROXY_PORT

DNS_TLS_PORT = 853
"""Names are looked up at our resolver, or by the whole of HTTPS, which nobody can tell apart."""

_MINIMUM_BURST_KB = 64
"""So that a slow limit lets whole segments pass."""


def plan_policy_rules(policy: NetworkPolicy, proxied_ports: ProxiedPorts, mark: int = 1) -> str:
    """Replaces the policy of a slot, in one transaction. The networks that are always forbidden stay so before it.

    ``mark`` is a number that no former policy of the slot had: what bears another is judged anew.
    """
    chains = {
        "netdev rated": _sent_limits(policy),
        "inet redirected": _redirected(policy, proxied_ports),
        "inet judged": _allowed(policy, f"ct mark set {mark} accept"),
        "inet known": [f"ct mark {mark} accept"],
        "inet fresh": _fresh(policy.limits),
        "inet received": _received_limits(policy.limits),
    }
    lines = []
    for name, rules in chains.items():
        family, chain = name.split()
        lines.append(f"flush chain {family} {TABLE} {chain}")
        lines += [f"add rule {family} {TABLE} {chain} {rule}" for rule in rules]
    return "".join(f"{line}\n" for line in lines)


def _sent_limits(policy: NetworkPolicy) -> list[str]:
    """Without egress of any kind not even names are asked for."""
    return ["drop"] if policy.egress is Egress.NONE else _rates(policy.limits)


def _received_limits(limits: Limits) -> list[str]:
    return _rates(limits)


def _rates(limits: Limits) -> list[str]:
    rules = []
    if limits.kbytes_per_second:
        burst = max(_MINIMUM_BURST_KB, limits.kbytes_per_second // 4)
        rules.append(f"limit rate over {limits.kbytes_per_second} kbytes/second burst {burst} kbytes drop")
    if limits.packets_per_second:
        burst = max(5, limits.packets_per_second // 4)
        rules.append(f"limit rate over {limits.packets_per_second}/second burst {burst} packets drop")
    return rules


def _fresh(limits: Limits) -> list[str]:
    each = limits.connections_per_second
    return [f"limit rate over {each}/second burst {each} packets drop"] if each else []


def _redirected(policy: NetworkPolicy, proxied_ports: ProxiedPorts) -> list[str]:
    """Which TCP connections the proxy gets. It also answers for networks that are denied: it tells why. Whatever
    resolver a guest asks, ours answers, unless a rule names the other with its port."""
    redirect = f"redirect to :{PROXY_PORT}"
    if policy.egress is Egress.NONE:
        return []
    dns = [
        *(f"{_match(rule)} return" for rule in policy.allow if rule.is_network and rule.port == DNS_PORT),
        f"udp dport {DNS_PORT} redirect to :{DNS_PORT}",
        f"tcp dport {DNS_PORT} redirect to :{DNS_PORT}",
    ]
    if proxied_ports != "all":
        ports = ", ".join(map(str, sorted(proxied_ports)))
        return [*dns, *([f"tcp dport {{ {ports} }} {redirect}"] if ports else [])]
    return [
        *dns,
        *(f"{match} {redirect}" for match in _tcp_matches(policy.deny)),
        *(f"{match} return" for match in _tcp_matches(policy.allow)),
        f"meta l4proto tcp {redirect}",
    ]


def _allowed(policy: NetworkPolicy, accept: str) -> list[str]:
    """What may be reached directly; the rest is rejected after it."""
    deny = [f"{_match(rule)} return" for rule in policy.deny if rule.is_network]
    allow = [f"{_match(rule)} {accept}" for rule in policy.allow if rule.is_network]
    match policy.egress:
        case Egress.ALLOW:
            quic = [f"udp dport {QUIC_PORT} return"] if policy.has_domains else []
            open_protocols = "udp" if policy.has_domains else "{ tcp, udp }"
            tls = [f"meta l4proto {{ tcp, udp }} th dport {DNS_TLS_PORT} return"]
            rest = [*tls, *quic, f"meta l4proto {open_protocols} {accept}", f"icmp type echo-request {accept}"]
            return [*deny, *allow, *rest]
        case Egress.LIST:
            return [*deny, *allow]
        case _:
            return []


def _tcp_matches(rules: Iterable[Rule]) -> list[str]:
    tcp = (rule for rule in rules if rule.is_network and rule.protocol is not Protocol.UDP)
    return [
        f"ip daddr {rule.target} " + (f"tcp dport {rule.port}" if rule.port else "meta l4proto tcp") for rule in tcp
    ]


def _match(rule: Rule) -> str:
    """A rule without port and protocol is for all protocols."""
    words = [f"ip daddr {rule.target}"]
    if rule.port and rule.protocol:
        words.append(f"{rule.protocol.value} dport {rule.port}")
    elif rule.port:
        words.append(f"meta l4proto {{ tcp, udp }} th dport {rule.port}")
    elif rule.protocol:
        words.append(f"meta l4proto {rule.protocol.value}")
    return " ".join(words)
