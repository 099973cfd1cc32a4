"""Frames as a guest would send them, bytes by hand: a guest may send anything."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace

from pandastack.model.network import GUEST_ADDRESS, GUEST_GATEWAY
from pandastack.network.slot import GATEWAY_MAC
from pandastack.vmm.plan import GUEST_MAC

IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
TCP, UDP, ICMP = 6, 17, 1
SYN, ACK, RST = 2, 16, 4


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(payload: bytes, kind: int = IPV4, *, to: str = GATEWAY_MAC, source: str = GUEST_MAC) -> bytes:
    return mac(to) + mac(source) + struct.pack("!H", kind) + payload


def ipv4(
    to: str, protocol: int, payload: bytes, *, source: str = GUEST_ADDRESS, fragment: int = 0, options: bytes = b""
) -> bytes:
    def header(total: int) -> bytes:
        words = 5 + len(options) // 4
        return (
            struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(payload), 7, fragment, 64, protocol, total)
            + socket.inet_aton(source)
            + socket.inet_aton(to)
            + options
        )

    return header(checksum(header(0))) + payload


def _pseudo(source: str, to: str, protocol: int, length: int) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!BBH", 0, protocol, length)


def udp(to: str, port: int, data: bytes, *, source: str = GUEST_ADDRESS, source_port: int = 40000) -> bytes:
    """A datagram as the payload of a packet."""
    length = 8 + len(data)
    bare = struct.pack("!HHHH", source_port, port, length, 0) + data
    total = checksum(_pseudo(source, to, UDP, length) + bare) or 0xFFFF
    return struct.pack("!HHHH", source_port, port, length, total) + data


def tcp(
    to: str,
    port: int,
    flags: int,
    data: bytes = b"",
    *,
    source_port: int = 40000,
    sequence: int = 1000,
    acknowledged: int = 0,
) -> bytes:
    """A segment as the payload of a packet."""

    def header(total: int) -> bytes:
        return struct.pack("!HHIIBBHHH", source_port, port, sequence, acknowledged, 0x50, flags, 65535, total, 0)

    return header(checksum(_pseudo(GUEST_ADDRESS, to, TCP, 20 + len(data)) + header(0) + data)) + data


def datagram(to: str, port: int, data: bytes, *, source: str = GUEST_ADDRESS, **options: int) -> bytes:
    """A whole, well-formed frame with a datagram."""
    return ethernet(ipv4(to, UDP, udp(to, port, data, source=source, **options), source=source))


def segment(to: str, port: int, flags: int, data: bytes = b"", **options: int) -> bytes:
    return ethernet(ipv4(to, TCP, tcp(to, port, flags, data, **options)))


def tagged(frame: bytes, tag: int) -> bytes:
    """The frame with a VLAN tag."""
    return frame[:12] + struct.pack("!HH", VLAN, tag) + frame[12:]


def arp(operation: int, sender: str, sender_mac: str, target: str, *, source: str = GUEST_MAC) -> bytes:
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    body += mac(sender_mac) + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
    return ethernet(body, ARP, to="ff:ff:ff:ff:ff:ff", source=source)


@dataclass(frozen=True)
class Heard:
    """A packet that came to the guest."""

    protocol: int
    source: str
    port: int = 0
    data: bytes = b""
    flags: int = 0
    sequence: int = 0


def parse(frame: bytes) -> Heard | None:
    """The packet in an IPv4 frame; ``None`` for any other frame."""
    if struct.unpack_from("!H", frame, 12)[0] != IPV4:
        return None
    packet = frame[14:]
    length, protocol, source = (packet[0] & 15) * 4, packet[9], socket.inet_ntoa(packet[12:16])
    body = packet[length : struct.unpack_from("!H", packet, 2)[0]]
    heard = Heard(protocol, source)
    if protocol == UDP:
        return replace(heard, port=struct.unpack_from("!H", body)[0], data=body[8:])
    if protocol == TCP:
        port, _, sequence, _, _, flags = struct.unpack_from("!HHIIBB", body)
        return replace(heard, port=port, flags=flags, sequence=sequence)
    return heard


WHO_IS_THE_GATEWAY = arp(1, GUEST_ADDRESS, GUEST_MAC, GUEST_GATEWAY)
