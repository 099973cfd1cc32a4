"""The network's bench: what needs neither machines nor a network; and the outside world itself, which needs root."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode
import pytest

from pandastack.bench import network, probe
from pandastack.bench.network import NAMES, POLICIES, Samples, rows, unit, with_slots
from pandastack.bench.outside import (
    METADATA,
    TCP_PORT,
    UDP_PORT,
    WORLDS,
    Outside,
    free_place,
    open_outside,
    plan_outside,
)
from pandastack.bench.outside_servers import Zone
from pandastack.bench.slots import Slots
from pandastack.errors import PandastackError
from pandastack.model.network_rules import parse_policy


def test_each_row_is_compared_with_its_base() -> None:
    samples = Samples()
    for name, value in {
        "floor": 40.0,
        "create_none": 20.0,
        "create_allow": 21.0,
        "create_list": 22.0,
        "creates_in_a_row_per_s": 12.0,
        "nat_upload": 50.0,
        "proxy_upload": 40.0,
        "proxy_connect": 3.0,
        "counted_out": 1.04,
        "dns": 2.0,
    }.items():
        samples[name].append(value)
    found = {row.name: row for row in rows(with_slots(samples, Slots([0.5], [30.0], [24.0])))}
    ratios = {name: row.ratio for name, row in found.items() if row.ratio is not None}
    assert ratios == {
        "create_none": 0.5,
        "create_allow": 1.05,
        "create_list": 1.1,
        "creates_in_a_row_per_s": 0.5,
        "proxy_upload": 0.8,
    }
    assert [found[name].unit for name in ("slot_ready", "slots_made_per_s", "nat_upload", "counted_out", "dns")] == [
        "ms",
        "1/s",
        "MB/s",
        "×",
        "ms",
    ]


def test_units_say_what_a_row_is() -> None:
    assert unit("proxy_policy_bites_tcp") == unit("create_in_a_row") == "ms"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_what_sandboxes_are_created_with_is_a_policy(policy: object) -> None:
    parse_policy(policy, "network")


def test_measuring_programs_are_programs() -> None:
    compile(probe.PROGRAM, "probe", "exec")


def test_worlds_beside_each_other_have_nothing_in_common() -> None:
    worlds = [plan_outside(f"ptw{place}-1", place)[0] for place in range(WORLDS)]
    for kind in ("public", "other", "lan", "host"):
        assert len({getattr(each, kind) for each in worlds}) == WORLDS
    assert len({network for each in worlds for network in each.networks}) == 2 * WORLDS


@pytest.mark.parametrize(
    ("names", "routes", "place"),
    [
        ([], [], 0),
        (["ptw0-1f"], [], 1),
        (["ptw1-1f"], ["192.168.70.0/24"], 2),
        (["pandastack-none", "ptwx"], ["10.0.0.0/8"], 0),
    ],
)
def test_a_world_takes_the_first_free_place(names: list[str], routes: list[str], place: int) -> None:
    assert free_place(names, routes) == place


def test_a_world_without_a_place_is_an_error() -> None:
    with pytest.raises(PandastackError, match="in use"):
        free_place([], ["192.168.0.0/16"])


def test_a_zone_finds_names_and_those_below() -> None:
    zone = Zone({"a.example.org": ["192.0.2.1"], "*.a.example.org": ["192.0.2.2"]})
    assert zone.find("a.example.org") == ["192.0.2.1"]
    assert zone.find("x.y.a.example.org") == ["192.0.2.2"]
    assert zone.find("b.example.org") is None


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with open_outside(NAMES) as outside:
        yield outside


@pytest.mark.root
def test_the_world_answers_and_says_what_came(outside: Outside) -> None:
    outside.forget()
    for host in (outside.public, outside.other, outside.lan, METADATA):
        with urllib.request.urlopen(f"http://{host}/x", timeout=10) as answer:
            assert answer.status == 200
    assert [(each["service"], each["address"]) for each in outside.arrivals()] == [
        ("http", outside.public),
        ("http", outside.other),
        ("http", outside.lan),
        ("http", METADATA),
    ]
    query = dns.message.make_query(f"n1.{network.DOMAIN}", "A")
    for ask in (dns.query.udp, dns.query.tcp):
        assert outside.public in ask(query, outside.public, timeout=10).answer[0].to_text()
    missing = dns.query.udp(dns.message.make_query("example.com", "A"), outside.public, timeout=10)
    assert missing.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.root
def test_streams_are_counted_and_stamped(outside: Outside) -> None:
    with socket.create_connection((outside.public, TCP_PORT), 10) as stream:
        stream.sendall(b"sink\n" + bytes(100_000))
        stream.shutdown(socket.SHUT_WR)
        assert b'"bytes": 100000' in stream.recv(999)
    with socket.create_connection((outside.public, TCP_PORT), 10) as stream:
        stream.sendall(b"source 100000\n")
        assert len(stream.makefile("rb").read()) == 100_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(10)
        datagrams.connect((outside.other, UDP_PORT))
        began = time.time()
        datagrams.send(b"stamp this\n")
        datagrams.send(b"hello")  # in order: the answer to it comes after the stamp
        assert datagrams.recv(99) == b"hello"
    count, last = outside.stamps("this")
    assert count == 1 and began <= last <= time.time()
    assert outside.stamps("that") == (0, 0.0)


@pytest.mark.root
def test_nothing_is_left_of_a_world() -> None:
    with open_outside({}) as outside:
        assert outside.netns.exists()
    assert not outside.netns.exists()
    listed = subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
    assert not [each for each in outside.networks if each in listed]
