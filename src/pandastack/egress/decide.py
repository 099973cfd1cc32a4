"""The one decision about everything that a sandbox wants to reach. The resolver, the proxy and the API's explanation
all ask here, so that what is explained is what is enforced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from pandastack.egress.names import matches
from pandastack.model.network import INWARD_PORT, QUIC_PORT, Egress, NetworkPolicy, Protocol, Rule
from pandastack.model.services import is_inward, listed, service_at

DNS_TLS_PORT = 853
"""The port of DNS over TLS and over QUIC."""

NO_SERVICE = "no service"
"""The rule of a verdict about a name that is not a service."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``rule``: what decided. ``how_to_allow``: the rule that would allow it; empty when it is allowed or when no rule
    can allow it. ``reason`` is a sentence for people, empty when it is allowed."""

    allowed: bool
    rule: str
    how_to_allow: str = ""
    reason: str = ""


_NO_NETWORK = Verdict(False, "none", reason="this sandbox has no network")


def decide(
    policy: NetworkPolicy,
    *,
    name: str | None,
    address: str | None,
    port: int,
    protocol: Protocol | None,
    forbidden: Sequence[str],
) -> Verdict:
    """Whether a connection may be made.

    ``name`` is in normal form, None when the client states none. ``address`` is the one that would be dialled, None
    while the name has not been resolved: the caller must ask again for the address that it dials. ``protocol`` is None,
    and ``port`` 0, for what is neither TCP nor UDP. ``forbidden`` are the networks that no policy allows.
    """
    if policy.egress is Egress.NONE:
        return _NO_NETWORK
    if name is not None and is_inward(name):
        return Verdict(False, "inward", reason=f"{name} is reached through the door inward only")
    if address is not None and (network := _network_of(address, forbidden)):
        return Verdict(False, f"forbidden {network}", reason=f"{address} is in {network}, which no sandbox may reach")
    for rule in policy.deny:
        if _applies(rule, name, address, port, protocol):
            text = rule_text(rule)
            return Verdict(False, f"deny {text}", reason=f"the policy denies {text}")
    wanted = f"{name or address}:{port}" if protocol else f"{name or address}"
    allowing = next((rule for rule in policy.allow if _allows(rule, name, address, port, protocol)), None)
    if policy.egress is Egress.ALLOW:
        return _exception(policy, wanted, port, protocol) if allowing is None else Verdict(True, "allow")
    if policy.egress is Egress.DENY:
        return Verdict(False, "deny", wanted, "the policy denies everything")
    if allowing is not None:
        return Verdict(True, f"allow {rule_text(allowing)}")
    if address is None and protocol is Protocol.UDP:
        return Verdict(False, "default", reason=f"names are for TCP: only a rule for a network allows UDP to {name}")
    return Verdict(False, "default", wanted, f"no rule of the policy allows {wanted}")


def _exception(policy: NetworkPolicy, wanted: str, port: int, protocol: Protocol | None) -> Verdict:
    """What a policy that allows everything still refuses, unless a rule allows it."""
    if port == DNS_TLS_PORT:
        return Verdict(False, "names", wanted, "names are looked up at the sandbox's own resolver")
    if protocol is Protocol.UDP and port == QUIC_PORT and policy.has_domains:
        return Verdict(False, "names", wanted, "QUIC hides the names that the policy denies: programs use TCP then")
    if protocol is None:
        return Verdict(False, "protocol", wanted, "only TCP, UDP and pings pass without a rule for the network")
    return Verdict(True, "allow")


def decide_name(policy: NetworkPolicy, name: str) -> Verdict:
    """Whether ``name`` may be looked up: if a connection to it could be allowed on some port.

    A name that is not allowed is not asked for either, since the question itself can carry data out.
    """
    if policy.egress is Egress.NONE:
        return _NO_NETWORK
    if is_inward(name):
        return decide_service(policy, name)
    for rule in policy.deny:
        if rule.port is None and not rule.is_network and rule.protocol is None and matches(rule.target, name):
            return Verdict(False, f"deny {rule.target}", reason=f"the policy denies {rule.target}")
    if policy.egress is Egress.ALLOW:
        return Verdict(True, "allow")
    if policy.egress is Egress.DENY:
        return Verdict(False, "deny", name, "the policy denies everything")
    for rule in policy.allow:
        if not rule.is_network and matches(rule.target, name):
            return Verdict(True, f"allow {rule_text(rule)}")
    return Verdict(False, "default", name, f"no rule of the policy allows {name}")


def decide_service(policy: NetworkPolicy, name: str, port: int = INWARD_PORT) -> Verdict:
    """Whether a sandbox may reach the service with the host name ``name``, in normal form, through the door inward.

    Whether there is such a service is not known here.
    """
    if policy.egress is Egress.NONE:
        return _NO_NETWORK
    service = service_at(name)
    if service is None:
        return Verdict(False, NO_SERVICE, reason=f"{name} is not the name of a service")
    if port != INWARD_PORT:
        return Verdict(False, NO_SERVICE, reason=f"services are reached at port {INWARD_PORT}, whatever their own is")
    if entry := listed(policy.services, service):
        return Verdict(True, f"service {entry}")
    return Verdict(False, "services", str(service), f"the policy does not list the service {service}")


def names_port(policy: NetworkPolicy, name: str, port: int) -> bool:
    """Whether an ``allow`` rule states both this name and this port: then the protocol on it need not state the name.

    Not so for 80 and 443, whose protocols always can: there, an address may belong to thousands of names.
    """
    return port not in (80, 443) and any(
        rule.port == port and not rule.is_network and rule.protocol is not Protocol.UDP and matches(rule.target, name)
        for rule in policy.allow
    )


def rule_text(rule: Rule) -> str:
    """The rule as callers write it."""
    port = "" if rule.port is None else f":{rule.port}"
    return f"{rule.target}{port}" + ("" if rule.protocol is None else f"/{rule.protocol}")


def _allows(rule: Rule, name: str | None, address: str | None, port: int, protocol: Protocol | None) -> bool:
    """Whether an ``allow`` rule is for it. Names allow TCP alone, which the proxy sees."""
    return (rule.is_network or protocol is Protocol.TCP) and _applies(rule, name, address, port, protocol)


def _applies(rule: Rule, name: str | None, address: str | None, port: int, protocol: Protocol | None) -> bool:
    if rule.port not in (None, port) or rule.protocol not in (None, protocol):
        return False
    if rule.is_network:
        return address is not None and _network_of(address, (rule.target,)) is not None
    return name is not None and matches(rule.target, name)


def _network_of(address: str, networks: Sequence[str]) -> str | None:
    """The first of ``networks`` with this address. All of IPv6 counts as one that is always among them."""
    try:
        number = int(IPv4Address(address))
    except ValueError:
        return "::/0"
    return next((text for mask, first, text in _parsed(tuple(networks)) if number & mask == first), None)


@lru_cache(maxsize=4096)
def _parsed(networks: tuple[str, ...]) -> tuple[tuple[int, int, str], ...]:
    parsed = [IPv4Network(each) for each in networks if ":" not in each]
    return tuple((int(each.netmask), int(each.network_address), str(each)) for each in parsed)
