"""Where a connection goes: the decision about it, made from its opening, and the addresses that may be dialled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pandastack.egress.answered import AnsweredNames
from pandastack.egress.decide import Verdict, decide, decide_name, names_port
from pandastack.egress.log import Via
from pandastack.egress.names import matches
from pandastack.egress.opening import Kind, Opening
from pandastack.model.network import Egress, NetworkPolicy, Protocol


@dataclass(frozen=True, slots=True)
class Rules:
    """What applies to a slot at one moment. ``hosts`` are the names that secrets are bound to."""

    policy: NetworkPolicy
    hosts: tuple[str, ...]
    forbidden: tuple[str, ...]

    def decide(self, name: str | None, address: str | None, port: int) -> Verdict:
        return decide(
            self.policy, name=name, address=address, port=port, protocol=Protocol.TCP, forbidden=self.forbidden
        )

    def is_bound(self, name: str | None) -> bool:
        return name is not None and any(matches(host, name) for host in self.hosts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants to reach. ``address``: where it connected to, None for a request to a proxy."""

    via: Via
    name: str | None
    address: str | None
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """``addresses`` may be dialled, in this order; none when ``verdict`` is negative. ``brokered``: secrets are bound
    to the name."""

    verdict: Verdict
    wanted: Wanted
    addresses: tuple[str, ...] = ()
    brokered: bool = False


def wanted_by(opening: Opening, original: tuple[str, int] | None) -> Wanted | None:
    """None: it connected to the proxy itself, and does not say whom it wants."""
    address, port = original or (None, 0)
    if opening.kind is Kind.HTTP and (head := opening.head):
        if head.forwarded and head.port:
            return Wanted("http", head.name, head.address, head.port)
        return Wanted("http", head.name, address, port) if original else None
    if not original:
        return None
    return Wanted("tls" if opening.kind is Kind.TLS else "tcp", opening.name, address, port)


def objection(rules: Rules, opening: Opening, wanted: Wanted, answered: AnsweredNames) -> Verdict | None:
    """Why a connection is refused whatever its destination: it hides the name by which it would be judged."""
    how = f"{wanted.name or wanted.address}:{wanted.port}" if wanted.name or wanted.address else ""
    if opening.kind is Kind.BROKEN:
        return Verdict(False, "malformed", reason=opening.fault)
    if not rules.policy.has_domains:
        names = answered.of(wanted.address) if wanted.address and wanted.name is None else []
        if any(map(rules.is_bound, names)):
            return Verdict(
                False, "no name", reason="secrets are bound to this host, and the connection does not name it"
            )
        return None
    if opening.hello and opening.hello.encrypted:
        reason = "encrypted ClientHello: the server name may be hidden (a browser's policy can turn it off)"
        return Verdict(False, "ech", how, reason)
    if opening.kind is Kind.TLS and wanted.name is None:
        return None if _by_network(rules, wanted) else Verdict(False, "no name", how, "TLS without a server name")
    if opening.kind is Kind.HTTP and wanted.name is None and not _by_network(rules, wanted):
        return Verdict(False, "no name", how, "HTTP without a host name")
    return None


async def find_route(
    rules: Rules,
    opening: Opening,
    wanted: Wanted,
    answered: AnsweredNames,
    resolve: Callable[[str], Awaitable[Sequence[str]]],
) -> Route:
    """Decide, resolve the name where the name is what is allowed, and decide again for each address.

    The proxy resolves by itself, so that an allowed name leads to that name's address and nowhere else.
    """
    if refused := objection(rules, opening, wanted, answered):
        return Route(refused, wanted)
    if opening.kind is Kind.RAW:
        return _raw_route(rules, wanted, answered)
    name, address, port = wanted.name, wanted.address, wanted.port
    brokered = rules.is_bound(name)
    verdict = rules.decide(name, None, port)
    dialled = name is not None and (brokered or address is None or rules.policy.egress is not Egress.ALLOW)
    if not dialled or not verdict.allowed:
        # A network that is allowed is allowed by whatever name; what denies the name, denies here too.
        verdict = rules.decide(name, address, port)
        if not verdict.allowed or brokered:
            return Route(_worded(verdict, name, address, port), wanted)
        return Route(verdict, wanted, (address,) if address else ())
    assert name is not None
    found = await resolve(name)
    verdicts = [(each, rules.decide(name, each, port)) for each in found]
    addresses = tuple(each for each, judged in verdicts if judged.allowed)
    if not addresses and verdicts:
        return Route(verdicts[0][1], Wanted(wanted.via, name, verdicts[0][0], port))
    return Route(verdict, wanted, addresses, brokered)


def still_allowed(rules: Rules, wanted: Wanted, address: str, *, brokered: bool) -> Verdict:
    """The verdict about a connection that exists, under rules that have changed."""
    if rules.is_bound(wanted.name) != brokered:
        return Verdict(False, "secrets", reason="the secrets that are bound to this host have changed")
    if wanted.name is None and rules.policy.has_domains and not _by_network(rules, wanted):
        return Verdict(False, "no name", reason="the connection does not state a name")
    raw = wanted.via == "tcp" and wanted.name is not None and rules.policy.egress is Egress.LIST
    if raw and not (names_port(rules.policy, wanted.name or "", wanted.port) or _by_network(rules, wanted)):
        return Verdict(False, "default", f"{wanted.name}:{wanted.port}", "no rule states this name and port")
    return rules.decide(wanted.name, address, wanted.port)


def _raw_route(rules: Rules, wanted: Wanted, answered: AnsweredNames) -> Route:
    """Where the protocol states no name, it can only come from our own answers, where a rule states the port."""
    assert wanted.address is not None
    names = answered.of(wanted.address)
    if rules.policy.egress is not Egress.LIST:
        denied = next((v for name in names if not (v := decide_name(rules.policy, name)).allowed), None)
        verdict = denied or rules.decide(names[0] if names else None, wanted.address, wanted.port)
        return Route(verdict, wanted, (wanted.address,) if verdict.allowed else ())
    for name in [each for each in names if names_port(rules.policy, each, wanted.port)]:
        verdict = rules.decide(name, wanted.address, wanted.port)
        if verdict.allowed:
            return Route(verdict, Wanted("tcp", name, wanted.address, wanted.port), (wanted.address,))
    verdict = rules.decide(None, wanted.address, wanted.port)
    if verdict.allowed:
        return Route(verdict, wanted, (wanted.address,))
    named = Wanted("tcp", names[0] if names else None, wanted.address, wanted.port)
    if verdict.rule == "default":
        how = f"{named.name or named.address}:{wanted.port}"
        reason = f"no rule allows {how}, and the protocol states no name: such a rule must state the port"
        verdict = Verdict(False, "default", how, reason)
    return Route(verdict, named)


def may_wait(rules: Rules, original: tuple[str, int] | None, answered: AnsweredNames) -> bool:
    """Whether the client may be waiting for the server to speak first. On 80 and 443 clients always begin."""
    if original is None or original[1] in (80, 443):
        return False
    return _raw_route(rules, Wanted("tcp", None, *original), answered).verdict.allowed


def names_another(rules: Rules, opening: Opening, wanted: Wanted, address: str) -> bool:
    """Whether bytes that came after a connection was allowed without a name are for a name that is not allowed here."""
    late = replace(wanted, name=opening.name)
    if opening.kind is Kind.RAW:
        return False
    if objection(rules, opening, late, AnsweredNames()):
        return True
    if wanted.name is not None:
        return opening.name != wanted.name
    return not still_allowed(rules, late, address, brokered=False).allowed


def _by_network(rules: Rules, wanted: Wanted) -> bool:
    """Whether the address alone is allowed by a list's network: then names do not matter."""
    return (
        rules.policy.egress is Egress.LIST
        and wanted.address is not None
        and rules.decide(None, wanted.address, wanted.port).allowed
    )


def _worded(verdict: Verdict, name: str | None, address: str | None, port: int) -> Verdict:
    if verdict.allowed:
        return Verdict(False, "secrets", reason=f"secrets are bound to {name}, which no rule allows by name")
    return verdict
