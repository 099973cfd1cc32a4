"""What slots are called, which addresses they have, and what becomes of policies: pure functions."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from pandastack.errors import BadRequestError
from pandastack.model.network import FORBIDDEN, OPEN, Egress, Limits, NetworkPolicy, Protocol, Rule
from pandastack.network.blocks import foreign_blocks
from pandastack.network.host_networks import (
    Route,
    find_clash,
    networks_of,
    parse_addresses,
    parse_routes,
    read_addresses,
    read_routes,
)
from pandastack.network.policy_rules import plan_policy_rules
from pandastack.network.rules import ProxiedPorts, plan_host_rules, plan_slot_rules
from pandastack.network.slot import slot_name, slot_number
from pandastack.network.subnets import DEFAULT, parse_subnets
from pandastack.vmm.plan import GUEST_MAC

TAG = "00c0ffee"
WEB, MAIL = Rule("203.0.113.0/24", 443), Rule("198.51.100.7/32", 25, Protocol.TCP)
TIME, HOST = Rule("198.51.100.0/24", 123, Protocol.UDP), Rule("*.example.org")


def test_a_name_fits_a_device_and_has_its_number() -> None:
    assert len(slot_name(TAG, 16383)) == 15
    assert slot_number(TAG, slot_name(TAG, 4711)) == 4711
    for other in (slot_name("00c0ffed", 1), f"ps-{TAG}", f"ps-{TAG}00zz", f"ps-{TAG}00001", "eth0", ""):
        assert slot_number(TAG, other) is None


def test_addresses_of_the_first_and_the_last_slot() -> None:
    subnets = parse_subnets(DEFAULT, "x")
    assert (subnets.count, subnets.block_size, subnets.blocks) == (16384, 1024, 16)
    assert subnets.addresses(0) == ("10.200.0.1", "10.200.0.2")
    assert subnets.addresses(16383) == ("10.200.255.253", "10.200.255.254")
    assert subnets.block_network(1) == IPv4Network("10.200.16.0/20")
    assert subnets.block_of(1024) == 1


def test_a_small_network_is_one_block() -> None:
    subnets = parse_subnets("192.168.9.0/28", "x")
    assert (subnets.count, subnets.blocks, list(subnets.numbers(0))) == (4, 1, [0, 1, 2, 3])
    assert subnets.block_network(0) == IPv4Network("192.168.9.0/28")


@pytest.mark.parametrize("text", ["10.200.0.1/16", "10.200.0.0/29", "0.0.0.0/0", "fd00::/64", "ten", "", "10.0.0.0/8x"])
def test_a_bad_network_names_the_setting(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_NETWORK") as caught:
        parse_subnets(text, "PANDASTACK_NETWORK")
    assert caught.value.field == "PANDASTACK_NETWORK"


ROUTES = [
    Route(IPv4Network("0.0.0.0/0"), "eth0", direct=False),
    Route(IPv4Network("192.0.2.0/24"), "eth0"),
    Route(IPv4Network("203.0.113.0/24"), "eth0", direct=False),
    Route(IPv4Network("10.200.32.0/30"), slot_name("deadbeef", 2048)),
    Route(IPv4Network("10.200.16.4/30"), slot_name(TAG, 1025)),
]


def test_the_hosts_networks_are_those_it_reaches_without_a_router() -> None:
    addresses = [IPv4Address(each) for each in ("127.0.0.1", "192.0.2.2", "10.200.16.5", "198.51.100.1")]
    assert networks_of(ROUTES, addresses) == ["192.0.2.0/24", "192.0.2.2/32", "198.51.100.1/32"]


def test_what_the_kernel_says_of_routes_and_addresses() -> None:
    table = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
    assert parse_routes(table) == ROUTES[:2]
    trie = """Local:
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""
    assert parse_addresses(trie) == [IPv4Address("192.0.2.2")]
    assert read_routes() and read_addresses()


def test_slots_are_no_clash_but_the_hosts_networks_are() -> None:
    assert find_clash(IPv4Network(DEFAULT), ROUTES) is None
    vpn = Route(IPv4Network("10.0.0.0/8"), "tun0", direct=False)
    assert find_clash(IPv4Network(DEFAULT), [*ROUTES, vpn]) == vpn


def test_blocks_with_slots_of_others_are_theirs() -> None:
    assert foreign_blocks(parse_subnets(DEFAULT, "x"), TAG, ROUTES) == {2}
    assert foreign_blocks(parse_subnets("172.20.0.0/16", "x"), TAG, ROUTES) == set()


def chain(script: str, name: str) -> list[str]:
    """The rules that a script puts into a chain."""
    marker = f" pandastack {name} "
    return [line.partition(marker)[2] for line in script.splitlines() if line.startswith("add rule") and marker in line]


LIST = NetworkPolicy(Egress.LIST, allow=(WEB, TIME))
DNS = ["udp dport 53 redirect to :53", "tcp dport 53 redirect to :53"]
NO_DNS_TLS = "meta l4proto { tcp, udp } th dport 853 return"


@pytest.mark.parametrize(
    ("policy", "ports", "rules"),
    [
        (OPEN, frozenset(), [NO_DNS_TLS, "meta l4proto { tcp, udp } ACCEPT", "icmp type echo-request ACCEPT"]),
        (NetworkPolicy(Egress.DENY), "all", []),
        (NetworkPolicy(Egress.NONE), frozenset(), []),
        (
            LIST,
            "all",
            [
                "ip daddr 203.0.113.0/24 meta l4proto { tcp, udp } th dport 443 ACCEPT",
                "ip daddr 198.51.100.0/24 udp dport 123 ACCEPT",
            ],
        ),
        (
            NetworkPolicy(Egress.ALLOW, deny=(MAIL, HOST)),
            "all",
            [
                "ip daddr 198.51.100.7/32 tcp dport 25 return",
                NO_DNS_TLS,
                "udp dport 443 return",
                "meta l4proto udp ACCEPT",
                "icmp type echo-request ACCEPT",
            ],
        ),
    ],
)
def test_what_a_policy_lets_through(policy: NetworkPolicy, ports: ProxiedPorts, rules: list[str]) -> None:
    script = plan_policy_rules(policy, ports, 77)
    assert [rule.replace("ct mark set 77 accept", "ACCEPT") for rule in chain(script, "judged")] == rules


def test_what_the_proxy_gets() -> None:
    assert chain(plan_policy_rules(OPEN, frozenset()), "redirected") == DNS
    assert chain(plan_policy_rules(OPEN, frozenset({443, 80})), "redirected") == [
        *DNS,
        "tcp dport { 80, 443 } redirect to :15001",
    ]
    both = NetworkPolicy(Egress.LIST, allow=(WEB, TIME, HOST), deny=(MAIL,))
    assert chain(plan_policy_rules(both, "all"), "redirected") == [
        *DNS,
        "ip daddr 198.51.100.7/32 tcp dport 25 redirect to :15001",
        "ip daddr 203.0.113.0/24 tcp dport 443 return",
        "meta l4proto tcp redirect to :15001",
    ]
    assert chain(plan_policy_rules(NetworkPolicy(Egress.NONE), "all"), "redirected") == []


def test_another_resolver_is_reached_where_a_rule_names_its_port() -> None:
    named = NetworkPolicy(Egress.LIST, allow=(Rule("203.0.113.53/32", 53, Protocol.UDP),))
    assert chain(plan_policy_rules(named, "all"), "redirected") == [
        "ip daddr 203.0.113.53/32 udp dport 53 return",
        *DNS,
        "meta l4proto tcp redirect to :15001",
    ]


def test_limits_hold_both_ways() -> None:
    policy = NetworkPolicy(limits=Limits(kbytes_per_second=1000, packets_per_second=200, connections_per_second=3))
    script = plan_policy_rules(policy, frozenset())
    for name in ("rated", "received"):
        assert chain(script, name) == [
            "limit rate over 1000 kbytes/second burst 250 kbytes drop",
            "limit rate over 200/second burst 50 packets drop",
        ]
    assert chain(script, "fresh") == ["limit rate over 3/second burst 3 packets drop"]


def test_a_policy_replaces_all_of_the_former() -> None:
    script = plan_policy_rules(OPEN, frozenset()).splitlines()
    flushed = {line.split()[-1] for line in script if line.startswith("flush chain")}
    assert flushed == {"rated", "redirected", "judged", "known", "fresh", "received"}


def test_what_is_forbidden_comes_before_any_policy() -> None:
    forward = chain(plan_slot_rules(GUEST_MAC, FORBIDDEN), "forward")
    judged = [index for index, rule in enumerate(forward) if "@forbidden" in rule]
    assert judged and max(judged) < forward.index("jump judged")
    assert max(judged) < forward.index("jump known")


def test_the_hosts_wall_becomes_no_router_for_others() -> None:
    network = IPv4Network(DEFAULT)
    foreign = 'iifname != "ps-*" oifname != "ps-*" drop'
    assert foreign in plan_host_rules(TAG, network, FORBIDDEN, routes=True)
    assert foreign not in plan_host_rules(TAG, network, FORBIDDEN, routes=False)
