"""Which ports programs in a guest listen at, from its table of sockets (proc_net_tcp(5)). Pure."""

from __future__ import annotations

from collections.abc import Iterable

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
"""The guest's tables of sockets. The second is missing where IPv6 is off."""

_LISTENING = "0A"
_ANY = ("00000000", "0" * 32)
_LOOPBACK_6 = ("00000000000000000000000001000000",)
_MAPPED = "0000000000000000FFFF0000"


def listening_ports(lines: Iterable[str]) -> set[int]:
    """The ports that can be reached on the guest's loopback. Lines that make no sense are skipped."""
    found = set()
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTENING:
            continue
        address, _, port = fields[1].rpartition(":")
        try:
            number = int(port, 16)
        except ValueError:
            continue
        if 1 <= number <= 65535 and _is_on_loopback(address.upper()):
            found.add(number)
    return found


def _is_on_loopback(address: str) -> bool:
    """Whether a connection to 127.0.0.1 or [::1] arrives. The kernel prints words in the guest's byte order: little."""
    last = address.removeprefix(_MAPPED)
    return address in _ANY or address in _LOOPBACK_6 or last in _ANY or (len(last) == 8 and last.endswith("7F"))
