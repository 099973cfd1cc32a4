"""The network as guests have it: one attacks as root, and copies of one that holds a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pandastack import Sandbox
from pandastack.host import facts
from pandastack.model.network import GUEST_ADDRESS, GUEST_GATEWAY
from tests.support import frames
from tests.support.frames import UDP
from tests.support.installation import Create
from tests.support.world import OTHER, PRIVATE, PUBLIC, World, open_world

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not facts.is_root() or facts.program("nft") is None, reason="slots need root and nftables"),
]

PORT = 9998

SEND = """
import socket, sys
device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
device.bind(("eth0", 0))
for line in sys.stdin:
    device.send(bytes.fromhex(line))
"""

HOLD = f"""
import socket, time
connection = socket.create_connection(("{PUBLIC}", {PORT}), 20)
connection.settimeout(20)
number = 0
while True:
    try:
        connection.sendall(b"%d\\n" % number)
        answer = connection.recv(100)
        state = "connected" if answer else "closed"
    except OSError as error:
        state = type(error).__name__
    with open("/run/state", "w") as file:
        file.write(f"{{number}} {{state}}")
    if state != "connected":
        break
    number += 1
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with open_world() as world:
        yield world


def send(sandbox: Sandbox, *sent: bytes) -> None:
    """Have the guest's root put frames on its device."""
    lines = "\n".join(frame.hex() for frame in sent)
    done = sandbox.exec(f"cat >/run/frames <<'EOF'\n{lines}\nEOF\npython3 -c '{SEND}' </run/frames")
    assert done.exit_code == 0, done.stderr


def test_root_in_a_guest_reaches_nothing_it_may_not(create: Create, world: World) -> None:
    attacker, _ = create(), create()
    good, packet = frames.datagram(PUBLIC, PORT, b"attack"), frames.udp(PUBLIC, PORT, b"attack")
    host = [each for each in _host_addresses() if each]
    forbidden = [
        *PRIVATE,
        *host,
        "127.0.0.1",
        GUEST_GATEWAY,
        "10.253.251.1",
        *(f"10.200.{n}.{m}" for n in (0, 16) for m in (1, 2, 5, 6)),
    ]
    attacks = [
        *(frames.datagram(each, PORT, b"attack") for each in forbidden),
        frames.datagram(PUBLIC, PORT, b"attack", source="10.0.2.16"),
        frames.ethernet(good[14:], source="52:54:00:12:34:57"),
        frames.tagged(good, 7),
        frames.ethernet(frames.ipv4(PUBLIC, UDP, packet, fragment=0x2000)),
        frames.arp(2, GUEST_GATEWAY, "52:54:00:12:34:57", GUEST_ADDRESS),
        frames.ethernet(b"\x60" + bytes(5) + b"\x3a\xff" + bytes(32), frames.IPV6),
    ]
    with (
        closing(world.datagrams(PORT)) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        here.bind(("0.0.0.0", PORT))
        here.settimeout(0.1)
        send(attacker, *attacks, frames.datagram(OTHER, PORT, b"allowed"))
        assert there.recv(100) == b"allowed"
        there.settimeout(0.3)
        for silent in (there, here):
            with pytest.raises(TimeoutError):
                silent.recv(100)


def _host_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


def test_programs_connect_outside_and_are_refused_at_once_elsewhere(create: Create, world: World) -> None:
    sandbox = create()
    with closing(world.connections(PORT)) as there:
        said = sandbox.exec(
            f"bash -c 'exec 3<>/dev/tcp/{PUBLIC}/{PORT} && echo hello >&3';"
            f" timeout 5 bash -c '</dev/tcp/{PRIVATE[0]}/80'; echo $?"
        )
        connection, _ = there.accept()
        with connection:
            assert connection.recv(100) == b"hello\n"
    assert said.stdout.split() == ["1"] and "refused" in said.stderr.lower()


class Echo:
    """Answers connections of the world's, one after the other, in the background."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(None)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                return


@contextmanager
def echoing(world: World) -> Iterator[None]:
    """What is sent to the world comes back."""
    listener = world.connections(PORT)
    Echo(listener)
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()


def state(sandbox: Sandbox) -> str:
    return sandbox.exec("cat /run/state").stdout.partition(" ")[2]


def advances(sandbox: Sandbox) -> bool:
    """Whether its connection carries data now."""
    script = 'a=$(cat /run/state); for i in $(seq 50); do sleep 0.1; [ "$a" != "$(cat /run/state)" ] && break; done'
    return sandbox.exec(f"{script}; cat /run/state").stdout.endswith("connected")


def test_copies_share_no_connection(create: Create, world: World) -> None:
    parent = create()
    with echoing(world):
        parent.exec(f"cat >/run/hold.py <<'EOF'\n{HOLD}\nEOF\nsetsid python3 /run/hold.py >/dev/null 2>&1 </dev/null &")
        parent.exec("until grep -q connected /run/state; do sleep 0.1; done")
        children = [parent.fork(), parent.fork()]
        try:
            assert advances(parent), "the parent keeps its connection"
            for child in children:
                child.exec("until ! grep -q connected /run/state; do sleep 0.1; done")
                assert state(child) in ("ConnectionResetError", "ConnectionAbortedError")
        finally:
            for child in children:
                child.kill()
        parent.hibernate()
        parent.wake()
        parent.exec("until ! grep -q connected /run/state; do sleep 0.1; done")
        assert state(parent) in ("ConnectionResetError", "ConnectionAbortedError")
        again = parent.exec(f"bash -c 'exec 3<>/dev/tcp/{PUBLIC}/{PORT} && echo again >&3 && head -1 <&3'")
        assert again.stdout == "again\n"


def test_a_pause_ends_connections_on_the_host(create: Create, world: World) -> None:
    sandbox = create()
    with echoing(world):
        sandbox.exec(
            f"cat >/run/hold.py <<'EOF'\n{HOLD}\nEOF\nsetsid python3 /run/hold.py >/dev/null 2>&1 </dev/null &"
        )
        sandbox.exec("until grep -q connected /run/state; do sleep 0.1; done")
        sandbox.pause()
        sandbox.resume()
        sandbox.exec("until ! grep -q connected /run/state; do sleep 0.1; done")
        assert state(sandbox) == "ConnectionResetError"
