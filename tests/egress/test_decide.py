"""The one decision, as a table."""

from __future__ import annotations

import pytest

from pandastack.egress.decide import decide, decide_name, decide_service, names_port, rule_text
from pandastack.egress.names import matches, normal_name, plain_address
from pandastack.model.network import FORBIDDEN, Egress, NetworkPolicy, Protocol, Rule

TCP, UDP = Protocol.TCP, Protocol.UDP
LISTED = NetworkPolicy(
    Egress.LIST,
    allow=(Rule("example.org"), Rule("*.example.net", 443), Rule("203.0.113.0/24", 443, TCP), Rule("git.test", 22)),
    deny=(Rule("bad.example.net"), Rule("203.0.113.66/32")),
)
OPEN = NetworkPolicy()


def verdict(
    policy: NetworkPolicy, name: str | None, address: str | None, port: int = 443, protocol: Protocol = TCP
) -> str:
    return decide(policy, name=name, address=address, port=port, protocol=protocol, forbidden=FORBIDDEN).rule


@pytest.mark.parametrize(
    ("name", "address", "port", "rule"),
    [
        ("example.org", None, 443, "allow example.org"),
        ("example.org", None, 8080, "allow example.org"),
        ("a.example.org", None, 443, "default"),
        ("a.example.net", None, 443, "allow *.example.net:443"),
        ("a.b.example.net", None, 443, "allow *.example.net:443"),
        ("example.net", None, 443, "default"),
        ("evilexample.net", None, 443, "default"),
        ("a.example.net", None, 80, "default"),
        ("bad.example.net", None, 443, "deny bad.example.net"),
        (None, "203.0.113.5", 443, "allow 203.0.113.0/24:443/tcp"),
        (None, "203.0.113.5", 80, "default"),
        ("x.test", "203.0.113.5", 443, "allow 203.0.113.0/24:443/tcp"),
        (None, "203.0.113.66", 443, "deny 203.0.113.66/32"),
        ("example.org", "203.0.113.66", 443, "deny 203.0.113.66/32"),
        ("example.org", "169.254.169.254", 443, "forbidden 169.254.0.0/16"),
        ("example.org", "10.1.2.3", 443, "forbidden 10.0.0.0/8"),
        ("example.org", "::ffff:127.0.0.1", 443, "forbidden ::/0"),
        ("example.org", "not an address", 443, "forbidden ::/0"),
    ],
)
def test_a_list(name: str | None, address: str | None, port: int, rule: str) -> None:
    assert verdict(LISTED, name, address, port) == rule


def test_the_protocol_counts() -> None:
    assert verdict(LISTED, None, "203.0.113.5", 443, UDP) == "default"


def test_kinds() -> None:
    assert verdict(OPEN, "any.test", "203.0.113.5") == "allow"
    assert verdict(OPEN, "any.test", "192.168.1.1") == "forbidden 192.168.0.0/16"
    assert verdict(NetworkPolicy(Egress.DENY), "any.test", None) == "deny"
    assert verdict(NetworkPolicy(Egress.NONE), "any.test", None) == "none"
    assert verdict(NetworkPolicy(deny=(Rule("any.test"),)), "any.test", None) == "deny any.test"


def test_names_allow_tcp_alone() -> None:
    """As it is enforced: the packet filter knows no names."""
    assert verdict(LISTED, "example.org", None, 443, UDP) == "default"
    denied = decide(LISTED, name="example.org", address=None, port=443, protocol=UDP, forbidden=FORBIDDEN)
    assert denied.how_to_allow == "" and "only a rule for a network" in denied.reason
    named = NetworkPolicy(deny=(Rule("any.test"),))
    assert verdict(named, None, "203.0.113.5", 443, UDP) == "names"
    assert verdict(named, None, "203.0.113.5", 444, UDP) == "allow"
    assert verdict(OPEN, None, "203.0.113.5", 443, UDP) == "allow"
    by_rule = NetworkPolicy(allow=(Rule("203.0.113.0/24", 443, UDP),), deny=(Rule("any.test"),))
    assert verdict(by_rule, None, "203.0.113.5", 443, UDP) == "allow"


def test_other_protocols_need_a_rule_for_all_of_them() -> None:
    whole = NetworkPolicy(Egress.LIST, allow=(Rule("203.0.113.0/24"), Rule("198.51.100.0/24", 443)))
    for policy, address, rule in (
        (OPEN, "203.0.113.5", "protocol"),
        (whole, "203.0.113.5", "allow 203.0.113.0/24"),
        (whole, "198.51.100.5", "default"),
        (OPEN, "10.0.0.1", "forbidden 10.0.0.0/8"),
    ):
        found = decide(policy, name=None, address=address, port=0, protocol=None, forbidden=FORBIDDEN)
        assert found.rule == rule


def test_how_to_allow() -> None:
    denied = decide(LISTED, name="new.test", address=None, port=8443, protocol=TCP, forbidden=FORBIDDEN)
    assert (denied.allowed, denied.how_to_allow) == (False, "new.test:8443")
    assert "new.test:8443" in denied.reason
    never = decide(LISTED, name=None, address="10.0.0.1", port=443, protocol=TCP, forbidden=FORBIDDEN)
    assert never.how_to_allow == ""


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("example.org", "allow example.org"),
        ("x.example.net", "allow *.example.net:443"),
        ("bad.example.net", "deny bad.example.net"),
        ("other.test", "default"),
    ],
)
def test_names_that_may_be_looked_up(name: str, rule: str) -> None:
    assert decide_name(LISTED, name).rule == rule


def test_a_name_that_is_denied_on_one_port_may_be_looked_up() -> None:
    policy = NetworkPolicy(deny=(Rule("half.test", 25),))
    assert decide_name(policy, "half.test").allowed
    assert verdict(policy, "half.test", None, 25) == "deny half.test:25"


def test_names_with_a_port_of_their_own() -> None:
    assert names_port(LISTED, "git.test", 22)
    assert not names_port(LISTED, "example.org", 22)  # the rule states no port
    assert not names_port(LISTED, "a.example.net", 443)  # TLS states names
    assert rule_text(Rule("git.test", 22, TCP)) == "git.test:22/tcp"


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("Example.ORG.", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("localhost", "localhost"),
        ("", None),
        (".", None),
        ("a..b", None),
        (".example.org", None),
        ("example.org..", None),
        ("bücher.example", None),
        ("a b.example", None),
        ("a\0.example", None),
        ("127.0.0.1", None),
        ("127.1", None),
        ("2130706433", None),
        ("0x7f.1", None),
        ("0x7f000001", None),
        ("example.0x", None),
        ("-a.example", None),
        ("a" * 64 + ".example", None),
        (".".join(["a" * 60] * 5), None),
        ("*.example.org", None),
    ],
)
def test_normal_names(raw: str, normal: str | None) -> None:
    assert normal_name(raw) == normal


def test_addresses_in_their_usual_spelling_only() -> None:
    assert plain_address("203.0.113.5") == "203.0.113.5"
    assert [plain_address(each) for each in ("0177.0.0.1", "1.2.3", "::1", "0x1.2.3.4", "1.2.3.4 ")] == [None] * 5


def test_wildcards_are_names_below() -> None:
    assert matches("*.example.org", "a.example.org")
    assert not matches("*.example.org", "example.org")
    assert not matches("*.example.org", ".example.org")
    assert not matches("*.example.org", "aexample.org")


B = "8000-b.sandbox.pandastack.internal"


@pytest.mark.parametrize(
    ("services", "name", "rule", "how"),
    [
        (("sandbox:b:8000",), B, "service sandbox:b:8000", ""),
        (("sandbox:b",), B, "service sandbox:b", ""),
        (("sandbox:b:8001", "sandbox:b"), B, "service sandbox:b", ""),
        (("sandbox:b:8001",), B, "services", "sandbox:b:8000"),
        (("sandbox:b:80",), B, "services", "sandbox:b:8000"),
        (("sandbox:bb:8000",), B, "services", "sandbox:b:8000"),
        (("db:b", "app:b"), B, "services", "sandbox:b:8000"),
        ((), B, "services", "sandbox:b:8000"),
        (("db:Main",), "main.db.pandastack.internal", "service db:Main", ""),
        (("sandbox:b",), "b.sandbox.pandastack.internal", "no service", ""),
        (("sandbox:b",), "gateway.pandastack.internal", "no service", ""),
        (("sandbox:b",), "8000-b.sandbox.pandastack.internal.evil.test", "no service", ""),
        (("sandbox:b",), "8000-b.sandbox", "no service", ""),
    ],
)
def test_services(services: tuple[str, ...], name: str, rule: str, how: str) -> None:
    for egress in (Egress.ALLOW, Egress.LIST, Egress.DENY):
        found = decide_service(NetworkPolicy(egress, services=services), name)
        assert (found.rule, found.how_to_allow, found.allowed) == (rule, how, rule.startswith("service "))
    assert decide_service(NetworkPolicy(Egress.NONE, services=services), name).rule == "none"
    assert not decide_service(NetworkPolicy(services=services), name, 8000).allowed


def test_names_of_services_never_lead_outside() -> None:
    """Whatever the policy: also where they are listed, and where all names are allowed."""
    for policy in (NetworkPolicy(services=("sandbox:b",)), NetworkPolicy(deny=(Rule("bad.test"),)), LISTED):
        for address in (None, "203.0.113.5"):
            for name in (B, "pandastack.internal", "gateway.pandastack.internal"):
                assert not decide(
                    policy, name=name, address=address, port=80, protocol=TCP, forbidden=FORBIDDEN
                ).allowed
    assert decide_name(NetworkPolicy(services=("sandbox:b",)), B).allowed
    assert not decide_name(NetworkPolicy(), B).allowed
