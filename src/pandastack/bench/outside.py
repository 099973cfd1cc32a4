"""An outside world on this host: a network namespace that holds public addresses, with servers in it.

What guests send to the internet is measured, and tested, against it: no packet leaves the host. The host reaches the
namespace through a veth pair. A default route in a table of its own, which rules for the world's addresses lead to,
makes these addresses what the internet's are: neither the host's nor a network's of it, which no guest may reach.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pandastack.errors import PandastackError

PREFIX = "ptw"
"""Of the names of namespaces and links; their place and the process id of their owner follow, for a later sweep."""

METADATA = "169.254.169.254"
"""Where clouds answer with a machine's credentials; the world has such a service too, and no guest may reach it."""

TCP_PORT, UDP_PORT, CONTROL_PORT = 5000, 5001, 5009
"""Of the servers for streams, for datagrams, and of the one that says what came (:mod:`.outside_servers`)."""

WORLDS = 8
"""How many fit beside each other on one host."""

FIRST_TABLE = 7000
"""The number of the first world's routing table, and the priority of the rules that lead to it."""

LOCK = Path("/run/pandastack-outside.lock")
_SERVERS = Path(__file__).with_name("outside_servers.py")
_NETNS = Path("/run/netns")
_NAME = re.compile(rf"{PREFIX}([0-9])-([0-9a-f]+)")


@dataclass(frozen=True)
class Outside:
    """A running world. ``public`` and ``other`` are public addresses, ``lan`` is a private one, ``host`` the host's."""

    name: str
    public: str
    other: str
    lan: str
    host: str
    networks: tuple[str, ...]
    """Public networks that are routed to it."""

    @property
    def netns(self) -> Path:
        return _NETNS / self.name

    def enter(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` inside."""
        return ["nsenter", f"--net={self.netns}", *argv]

    def arrivals(self) -> list[dict[str, Any]]:
        """Every connection, request and datagram that came since :meth:`forget`, oldest first; the newest 10,000."""
        found: list[dict[str, Any]] = self._ask("/arrivals")
        return found

    def stamps(self, key: str) -> tuple[int, float]:
        """How many pieces of the stream ``key`` came, and the clock's time when the last one did; (0, 0.0): none."""
        count, last = self._ask(f"/stamps/{key}")
        return count, last

    def forget(self) -> None:
        self._ask("/forget")

    def _ask(self, path: str) -> Any:
        # The private address: rules about public ones are none of this.
        with urllib.request.urlopen(f"http://{self.lan}:{CONTROL_PORT}{path}", timeout=10) as answer:
            return json.load(answer)


def plan_outside(name: str, place: int) -> tuple[Outside, list[list[str]]]:
    """The ``place``-th world (of :data:`WORLDS`), and the commands that make its namespace and the way to it."""
    block, lan, table = 128 + 16 * place, f"192.168.{70 + place}", str(FIRST_TABLE + place)
    networks = (f"198.51.100.{block}/28", f"203.0.113.{block}/28")
    world = Outside(name, f"198.51.100.{block + 10}", f"203.0.113.{block + 10}", f"{lan}.2", f"{lan}.1", networks)
    inside = ["ip", "-n", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "out0", "netns", name],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "addr", "add", f"{world.lan}/24", "dev", "out0"],
        *([*inside, "addr", "add", f"{each}/32", "dev", "lo"] for each in (world.public, world.other, METADATA)),
        [*inside, "link", "set", "out0", "up"],
        [*inside, "route", "add", "default", "via", world.host],
        ["ip", "addr", "add", f"{world.host}/24", "dev", name],
        ["ip", "link", "set", name, "up"],
        ["ip", "route", "add", "default", "via", world.lan, "dev", name, "table", table],
        *(
            ["ip", "rule", "add", "to", each, "lookup", table, "priority", table]
            for each in (*networks, f"{METADATA}/32")
        ),
    ]
    return world, commands


def free_place(names: Collection[str], routes: Collection[str]) -> int:
    """The first place that none of the worlds ``names`` has, and to whose private network none of ``routes`` leads.
    Raises :class:`PandastackError` when there is none."""
    taken = {int(found[1]) for each in names if (found := _NAME.fullmatch(each))}
    networks = [ipaddress.ip_network(each, strict=False) for each in routes]
    for place in set(range(WORLDS)) - taken:
        world, _ = plan_outside("", place)
        own = ipaddress.ip_network(f"{world.lan}/24", strict=False)
        if not any(own.overlaps(each) for each in networks):
            return place
    raise PandastackError("every network for an outside world is in use on this host", hint="ip route")


@contextmanager
def open_outside(names: Mapping[str, Sequence[str]], certificate: Path | None = None) -> Iterator[Outside]:
    """A world for as long as the block runs; needs root. ``names`` are what its DNS server knows: a name, or ``*.`` and
    a name, and its addresses, ``public``, ``other``, ``lan`` and ``metadata`` standing for the world's own. With
    ``certificate``, a PEM file of a key and its chain, port 443 answers by TLS."""
    with LOCK.open("w") as lock:  # two worlds must not choose the same place
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep()
        place = free_place(_worlds(), _routes())
        name = f"{PREFIX}{place}-{os.getpid():x}"
        world, commands = plan_outside(name, place)
        _remove(name, place)  # rules outlive the devices that they lead to
        try:
            for each in commands:
                _run(each)
        except BaseException:
            _remove(name, place)
            raise
    try:
        with _servers(world, names, certificate):
            yield world
    finally:
        _remove(name, place)


@contextmanager
def _servers(world: Outside, names: Mapping[str, Sequence[str]], certificate: Path | None) -> Iterator[None]:
    own = {**asdict(world), "metadata": METADATA}
    zone = {name: [own.get(each, each) for each in addresses] for name, addresses in names.items()}
    addresses = [world.public, world.other, world.lan, METADATA]
    settings = json.dumps(
        {
            "zone": zone,
            "certificate": certificate and str(certificate),
            "addresses": addresses,
            "ports": {"tcp": TCP_PORT, "udp": UDP_PORT, "control": CONTROL_PORT},
            "control": world.lan,
        }
    )
    argv = world.enter(sys.executable, "-P", str(_SERVERS), settings)
    # They end with their standard input: also when this process is killed.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise PandastackError("the servers of the outside world did not start")
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _routes() -> list[str]:
    routes = json.loads(_run(["ip", "-j", "-4", "route", "show", "table", "main"]))
    return [each["dst"] for each in routes if each["dst"] != "default"]


def _worlds() -> list[str]:
    return [each.name for each in _NETNS.glob(f"{PREFIX}*")]


def _sweep() -> None:
    """Remove the worlds of processes that are gone."""
    for each in _worlds():
        found = _NAME.fullmatch(each)
        if found is not None and not Path(f"/proc/{int(found[2], 16)}").exists():
            _remove(each, int(found[1]))


def _remove(name: str, place: int) -> None:
    """Whatever of it there is."""
    with suppress(PandastackError):
        while True:  # the rules have one priority, and a command deletes one of them
            _run(["ip", "rule", "delete", "priority", str(FIRST_TABLE + place)])
    for argv in (["ip", "link", "delete", name], ["ip", "netns", "delete", name]):
        with suppress(PandastackError):
            _run(argv)


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise PandastackError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}", hint="an outside world needs root")
    return done.stdout
