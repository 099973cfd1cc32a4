"""All paths out of a slot, with names of every kind: one decision, and the face that it has on each path."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable

import anyio
import dns.message
import pytest

from pandastack.model.network import Egress, NetworkPolicy, Rule
from tests.support.egress import Subject
from tests.support.egress_world import HERE, THERE, World
from tests.support.tls import client_hello, extension, handmade_hello, server_name, trusting_all

pytestmark = [pytest.mark.anyio, pytest.mark.root]

RESET = "reset"


def http(world: World, request: str, address: str = HERE, port: int = 80) -> str:
    """The status and body of the first answer, or that there was none."""
    try:
        with world.connect(address, port) as sock:
            return answer(sock, request)
    except ConnectionError:
        return RESET


def answer(sock: socket.socket, request: str) -> str:
    sock.sendall(request.encode("latin-1"))
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := sock.recv(65536)):
            return RESET if not data else data.decode()
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length")), 0)
    while len(body) < length:
        body += sock.recv(65536)
    return f"{head.split()[1].decode()} {body.decode()}".strip()


def get(host: str) -> str:
    return f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"


def absolute(host: str) -> str:
    return f"GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"


def tls(world: World, name: str | None, address: str = HERE, before: str = "") -> str:
    """What the origin says inside TLS. ``before``: a CONNECT."""
    try:
        with world.connect(address, 80 if before else 443) as sock:
            if before and (status := answer(sock, before)) != "200":
                return status[:3]
            with trusting_all().wrap_socket(sock, server_hostname=name) as secure:
                return secure.recv(100).decode().strip()
    except (ConnectionError, ssl.SSLError):
        return RESET


def through(world: World, name: str) -> str:
    return tls(world, name, before=f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n")


PATHS: dict[str, tuple[Callable[[World, str], str], str, str]] = {
    "http": (lambda world, name: http(world, get(name))[:3], "200", "403"),
    "absolute": (lambda world, name: http(world, absolute(name))[:3], "200", "403"),
    "connect": (through, "hello", "403"),
    "tls": (tls, "hello", RESET),
    "dns": (lambda world, name: world.lookup(name)[0], "NOERROR", "REFUSED"),
}
"""What an allowed and a denied name look like on each path."""


NAMES = {
    "allowed.test": True,
    "ALLOWED.Test": True,
    "a.wild.test": True,
    "xn--bcher-kva.test": True,
    "denied.test": False,
    "wild.test": False,
    "allowed.test.denied.test": False,
    "private.test": False,
    "meta.test": False,
}


@pytest.mark.parametrize("path", PATHS)
async def test_paths_and_names(subject: Subject, path: str) -> None:
    go, good, bad = PATHS[path]
    for name, allowed in NAMES.items():
        subject.decisions.clear()
        face = await anyio.to_thread.run_sync(go, subject.world, name)
        assert (name, face) == (name, good if allowed else bad)
        decision = await subject.decided(allowed=allowed, name=name.lower())
        assert bool(decision.reason) is not allowed


async def test_a_final_dot(subject: Subject) -> None:
    assert await anyio.to_thread.run_sync(http, subject.world, get("allowed.test.")) == "200 allowed.test. /x"


async def test_names_that_are_denied_are_not_asked_for(subject: Subject) -> None:
    for name in ("denied.test", "c2VjcmV0.denied.test"):
        assert (await anyio.to_thread.run_sync(subject.world.lookup, name))[0] == "REFUSED"
    assert subject.world.names.asked == []


async def test_the_refusal_says_how_to_allow(subject: Subject) -> None:
    body = json.loads((await anyio.to_thread.run_sync(http, subject.world, get("denied.test")))[4:])
    assert (body["host"], body["port"], body["rule"]) == ("denied.test", 80, "default")
    assert body["how_to_allow"] == "pandastack network allow sbx-1 denied.test:80"
    query = dns.message.make_query("denied.test", "A", use_edns=0)
    reply = await anyio.to_thread.run_sync(subject.world.ask, query)
    assert [option.code for option in reply.options] == [15]


async def test_an_allowed_address_is_not_a_way_to_another_name(subject: Subject) -> None:
    # Every name of the list is dialled at its own address, wherever the guest connected to.
    assert await anyio.to_thread.run_sync(http, subject.world, get("allowed.test"), THERE) == "200 allowed.test /x"
    assert await anyio.to_thread.run_sync(tls, subject.world, "denied.test", HERE) == RESET
    assert await anyio.to_thread.run_sync(tls, subject.world, None, HERE) == RESET
    await subject.decided(allowed=False, rule="no name")


async def test_a_name_that_moves_to_a_forbidden_address(subject: Subject) -> None:
    assert (await anyio.to_thread.run_sync(subject.world.lookup, "flip.test")) == ("NOERROR", [HERE])
    await anyio.sleep(1.2)  # the answer's time to live
    assert (await anyio.to_thread.run_sync(http, subject.world, get("flip.test")))[:3] == "403"
    assert (await subject.decided(allowed=False, name="flip.test")).rule == "forbidden 127.0.0.0/8"


async def test_hidden_names(subject: Subject) -> None:
    def hello(data: bytes) -> str:
        with subject.world.connect(HERE, 443) as sock:
            sock.sendall(data)
            try:
                return sock.recv(1).hex() or RESET
            except ConnectionError:
                return RESET

    hidden = handmade_hello(server_name(b"allowed.test"), extension(0xFE0D, b"x"))
    assert await anyio.to_thread.run_sync(hello, hidden) == RESET
    await subject.decided(allowed=False, rule="ech")
    twice = client_hello("allowed.test") + b"\x14\x03\x03\0\1\1" + client_hello("denied.test")
    await anyio.to_thread.run_sync(hello, twice)
    await subject.decided(allowed=False, rule="another name")


async def test_a_tunnel_for_another_name(subject: Subject) -> None:
    before = "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n"
    assert await anyio.to_thread.run_sync(tls, subject.world, "denied.test", HERE, before) == RESET
    await subject.decided(allowed=False, rule="another name")


async def test_every_request_of_a_connection(subject: Subject) -> None:
    def talk() -> list[str]:
        with subject.world.connect(HERE, 80) as sock:
            requests = [get("allowed.test"), get("ALLOWED.test"), get("denied.test")]
            return [answer(sock, each)[:3] for each in requests]

    assert await anyio.to_thread.run_sync(talk) == ["200", "200", "403"]
    await subject.decided(allowed=False, name="denied.test")


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: denied.test\r\n\r\n",
        "GET http://denied.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
        "GET / HTTP/1.1\nHost: allowed.test\n\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {HERE}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n",
    ],
)
async def test_requests_that_cannot_be_judged(subject: Subject, request_: str) -> None:
    assert (await anyio.to_thread.run_sync(http, subject.world, request_))[:3] == "403"


async def test_websockets(subject: Subject) -> None:
    def talk() -> bytes:
        with subject.world.connect(HERE, 80) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: allowed.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while b"\r\n\r\n" not in sock.recv(65536):
                pass
            sock.sendall(b"\x81\x02hi")
            return sock.recv(100)

    assert await anyio.to_thread.run_sync(talk) == b"\x81\x02hi"


async def test_raw_protocols_by_rule(subject: Subject) -> None:
    def speak(port: int, address: str = HERE) -> str:
        try:
            with subject.world.connect(address, port) as sock:
                sock.sendall(b"SSH-2.0-client\r\n")
                data = b""
                while b"client" not in data:
                    if not (more := sock.recv(100)):
                        return RESET
                    data += more
                return data.decode().splitlines()[0]
        except ConnectionError:
            return RESET

    assert await anyio.to_thread.run_sync(speak, 22) == RESET  # nobody asked for its name
    await anyio.to_thread.run_sync(subject.world.lookup, "git.test")
    assert await anyio.to_thread.run_sync(speak, 22) == "SSH-2.0-test"
    await anyio.to_thread.run_sync(subject.world.lookup, "allowed.test")
    assert await anyio.to_thread.run_sync(speak, 8080) == RESET  # its rule states no port
    assert await anyio.to_thread.run_sync(speak, 443) == RESET
    assert (await subject.decided(allowed=True, name="git.test", rule="allow git.test:22")).via in ("dns", "tcp")


async def test_a_server_that_speaks_first(subject: Subject) -> None:
    await anyio.to_thread.run_sync(subject.world.lookup, "git.test")

    def listen(then: bytes) -> tuple[bytes, bytes]:
        with subject.world.connect(HERE, 22) as sock:
            said = sock.recv(100)
            sock.sendall(then)
            try:
                return said, sock.recv(100)
            except ConnectionError:
                return said, b""

    assert await anyio.to_thread.run_sync(listen, b"hello\r\n") == (b"SSH-2.0-test\r\n", b"hello\r\n")
    assert await anyio.to_thread.run_sync(listen, client_hello("denied.test")) == (b"SSH-2.0-test\r\n", b"")


async def test_networks_do_not_need_names(subject: Subject) -> None:
    policy = NetworkPolicy(Egress.LIST, allow=(Rule(f"{HERE}/32", 443), Rule("allowed.test")))
    await subject.egress.change("ps0001", policy, [])
    assert await anyio.to_thread.run_sync(tls, subject.world, None) == "hello"
    assert await anyio.to_thread.run_sync(tls, subject.world, "denied.test") == "hello"
    assert await anyio.to_thread.run_sync(tls, subject.world, None, THERE) == RESET


async def test_a_change_bites_at_once(subject: Subject) -> None:
    sock = await anyio.to_thread.run_sync(subject.world.connect, HERE, 80)
    with sock:
        assert (await anyio.to_thread.run_sync(answer, sock, get("allowed.test")))[:3] == "200"
        await subject.egress.change("ps0001", NetworkPolicy(Egress.LIST, allow=(Rule("other.test"),)), [])
        with pytest.raises(ConnectionError):
            sock.sendall(b"x")
            sock.recv(1)
            sock.sendall(b"x")
    assert (await anyio.to_thread.run_sync(subject.world.lookup, "allowed.test"))[0] == "REFUSED"
    assert (await anyio.to_thread.run_sync(http, subject.world, get("allowed.test")))[:3] == "403"
    assert (await anyio.to_thread.run_sync(http, subject.world, get("other.test")))[:3] == "200"


async def test_connections_that_stay_allowed_live_on(subject: Subject) -> None:
    sock = await anyio.to_thread.run_sync(subject.world.connect, HERE, 80)
    with sock:
        assert (await anyio.to_thread.run_sync(answer, sock, get("allowed.test")))[:3] == "200"
        await subject.egress.change("ps0001", NetworkPolicy(Egress.LIST, allow=(Rule("allowed.test", 80),)), [])
        assert (await anyio.to_thread.run_sync(answer, sock, get("allowed.test")))[:3] == "200"


@pytest.mark.parametrize("egress", [Egress.DENY, Egress.NONE])
async def test_policies_without_a_way_out(subject: Subject, egress: Egress) -> None:
    await subject.egress.change("ps0001", NetworkPolicy(egress), [])
    assert (await anyio.to_thread.run_sync(http, subject.world, get("allowed.test")))[:3] == "403"
    if egress is Egress.DENY:
        assert (await anyio.to_thread.run_sync(subject.world.lookup, "allowed.test"))[0] == "REFUSED"
        assert await anyio.to_thread.run_sync(subject.world.lookup, "gateway.pandastack.internal") == (
            "NOERROR",
            ["10.0.2.2"],
        )
    else:
        with pytest.raises(TimeoutError):
            await anyio.to_thread.run_sync(subject.world.lookup, "gateway.pandastack.internal", "A", 0.5)


async def test_much_data(subject: Subject) -> None:
    def fetch() -> int:
        with subject.world.connect(HERE, 80) as sock:
            sock.sendall(b"GET /bytes/50000000 HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n")
            total = 0
            while total < 50_000_000 and (data := sock.recv(1_000_000)):
                total += len(data)
            return total

    assert await anyio.to_thread.run_sync(fetch) >= 50_000_000
