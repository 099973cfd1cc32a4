"""Reports of the packet filter: what is read of them, and why packets were refused."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from pandastack.egress.refused import Packet, judge, read_packets
from pandastack.model.network import FORBIDDEN, OPEN, Egress, NetworkPolicy, Protocol, Rule

UDP, TCP, ICMP, SCTP = 17, 6, 1, 132
TO = "203.0.113.7"


def packet(protocol: int, to: str = TO, port: int = 0, first: int = 0x45) -> bytes:
    """The first 24 bytes of a packet."""
    addresses = socket.inet_aton("10.0.2.15") + socket.inet_aton(to)
    header = struct.pack("!BBHHHBBH", first, 0, 40, 7, 0, 64, protocol, 0)
    return header + addresses + struct.pack("!HH", 40000, port)


def report(payload: bytes, kind: int = 4 << 8, attribute: int = 9) -> bytes:
    """A message of the kernel with a packet's bytes, after an attribute that is of no interest."""
    body = b"\2\0\0\1" + struct.pack("=HHI", 8, 1, 0)
    body += struct.pack("=HH", 4 + len(payload), attribute) + payload + b"\0" * (-len(payload) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_reports_come_several_at_once() -> None:
    data = report(packet(UDP, port=123)) + report(b"", kind=3) + report(packet(TCP, "10.0.0.1", 22))
    assert list(read_packets(data)) == [Packet(UDP, TO, 123), Packet(TCP, "10.0.0.1", 22)]


@pytest.mark.parametrize(
    ("protocol", "port", "via"),
    [(UDP, 53, "udp"), (UDP, 443, "quic"), (TCP, 443, "tcp"), (ICMP, 0, "icmp"), (SCTP, 0, "other"), (0, 0, "other")],
)
def test_what_asked(protocol: int, port: int, via: str) -> None:
    assert [each.via for each in read_packets(report(packet(protocol, port=port)))] == [via]


def test_only_tcp_and_udp_have_ports() -> None:
    assert list(read_packets(report(packet(SCTP, port=5000)))) == [Packet(SCTP, TO, 0)]
    assert list(read_packets(report(packet(ICMP)[:20]))) == [Packet(ICMP, TO, 0)]


@pytest.mark.parametrize(
    "payload",
    [b"", packet(UDP)[:19], packet(UDP)[:23], packet(UDP, first=0x46), packet(UDP, first=0x65)],
    ids=["empty", "header cut", "ports cut", "options", "version"],
)
def test_what_is_cut_or_of_another_form_is_left_out(payload: bytes) -> None:
    assert list(read_packets(report(payload) + report(packet(UDP, port=9)))) == [Packet(UDP, TO, 9)]


def test_lengths_that_lie_end_the_reading() -> None:
    good = report(packet(UDP, port=9))
    for length in (0, 15, len(good) + 1, 2**32 - 1):
        assert list(read_packets(struct.pack("=I", length) + good[4:])) == []
    for length in (0, 3, 2**16 - 1):
        at = 16 + 4 + 8
        assert list(read_packets(good[:at] + struct.pack("=H", length) + good[at + 2 :])) == []


def test_any_bytes_are_read_without_a_fault() -> None:
    dice = random.Random(7)
    good = report(packet(UDP, port=9)) * 3
    for _ in range(2000):
        data = bytearray(good[: dice.randrange(len(good) + 1)])
        for _ in range(dice.randrange(6)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        assert len(list(read_packets(bytes(data)))) <= 12


LIST = NetworkPolicy(Egress.LIST, allow=(Rule("203.0.113.0/24", 443, Protocol.TCP), Rule("example.org")))
NO_NAME = NetworkPolicy(deny=(Rule("ads.example.org"),))
NO_MAIL = NetworkPolicy(deny=(Rule("203.0.113.0/24", 25),))


@pytest.mark.parametrize(
    ("policy", "refused", "rule", "how"),
    [
        (OPEN, Packet(UDP, "169.254.169.254", 80), "forbidden 169.254.0.0/16", ""),
        (OPEN, Packet(ICMP, "10.1.1.1", 0), "forbidden 10.0.0.0/8", ""),
        (OPEN, Packet(TCP, TO, 853), "names", f"{TO}:853"),
        (OPEN, Packet(SCTP, TO, 0), "protocol", TO),
        (OPEN, Packet(UDP, TO, 123), "filter", ""),
        (NO_NAME, Packet(UDP, TO, 443), "names", f"{TO}:443"),
        (NO_MAIL, Packet(TCP, TO, 25), "deny 203.0.113.0/24:25", ""),
        (LIST, Packet(UDP, TO, 443), "default", f"{TO}:443"),
        (LIST, Packet(ICMP, TO, 0), "default", TO),
        (NetworkPolicy(Egress.DENY), Packet(UDP, TO, 123), "deny", f"{TO}:123"),
    ],
)
def test_why_it_was_refused(policy: NetworkPolicy, refused: Packet, rule: str, how: str) -> None:
    verdict = judge(policy, refused, FORBIDDEN)
    assert (verdict.allowed, verdict.rule, verdict.how_to_allow) == (False, rule, how)
    assert verdict.reason
