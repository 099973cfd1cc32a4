"""The door inward for real: a guest, the egress process, the gateway, and what it reaches behind scripted tunnels."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from websockets.sync.client import connect

from pandastack.egress.slot import INWARD_CONNECTIONS
from pandastack.model.network import Egress, NetworkPolicy
from tests.gateway.native import Native, native_server, shown
from tests.gateway.world import SANDBOX, gateway
from tests.gateway.world import World as Inside
from tests.support.egress import UID, Subject
from tests.support.egress_world import GATEWAY, World

pytestmark = [pytest.mark.anyio, pytest.mark.root]

B, C = "8000-b.sandbox.pandastack.internal", "8000-c.sandbox.pandastack.internal"
POLICY = NetworkPolicy(Egress.DENY, services=("sandbox:b:8000", "sandbox:b:9000", "db:gone"))
NAVIGATION = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
CLOSED = NetworkPolicy(Egress.DENY)


@pytest.fixture
async def native(subject: Subject) -> AsyncIterator[Native]:
    """What listens in the sandbox that is called; ``subject`` has put this thread into the host's namespace."""
    async with native_server() as native:
        yield native


@pytest.fixture
async def door(subject: Subject, native: Native, gateway_socket: Path, tmp_path: Path) -> AsyncIterator[Inside]:
    """The gateway behind the door, with one service; the guest's policy lists it."""
    inside = Inside(private=True)
    inside.services["sandbox:b:8000"] = native.port
    await subject.egress.change("ps0001", POLICY, [])
    async with gateway(inside, tmp_path, inward=str(gateway_socket), inward_uid=UID):
        with anyio.fail_after(60):
            yield inside


def request(host: str = B, target: str = "/", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def ask(world: World, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to one request of the guest; status 0: none came."""
    with world.connect(GATEWAY, 80) as sock:
        sock.settimeout(20)
        sock.sendall(data)
        return answer(sock)


def answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(65536)):
                return 0, {}, data
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += sock.recv(65536)
    except ConnectionError:
        return 0, {}, data
    return int(first.split()[1]), headers, body


async def asked(subject: Subject, data: bytes) -> tuple[int, dict[str, str], bytes]:
    return await anyio.to_thread.run_sync(ask, subject.world, data)


async def test_a_listed_service_answers_and_hears_who_calls(subject: Subject, door: Inside, native: Native) -> None:
    forged = "X-Pandastack-Caller: other\r\nX_Pandastack_Caller: other\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n"
    status, _, body = await asked(subject, request(target="/x?y", more=forged))
    target, seen = shown(body)
    assert (status, target) == (200, "/x?y")
    assert (seen["x-pandastack-caller"], seen["host"]) == ("sbx-1", f"localhost:{native.port}")
    assert (seen["x-forwarded-host"], seen["cookie"]) == (B, "a=b")
    assert not {"x_pandastack_caller", "x-forwarded-for"} & seen.keys()
    assert (await anyio.to_thread.run_sync(subject.world.lookup, B)) == ("NOERROR", [GATEWAY])
    decision = await subject.decided(allowed=True, name=B, rule="service sandbox:b:8000")
    assert (decision.via, decision.port) == ("service", 80)


async def test_a_sleeping_sandbox_is_woken(subject: Subject, door: Inside, native: Native) -> None:
    door.asleep.add(SANDBOX)
    assert (await asked(subject, request()))[0] == 200
    assert door.wakes == 1


@pytest.mark.parametrize(
    ("host", "status", "rule"),
    [
        (C, 403, "services"),
        ("8001-b.sandbox.pandastack.internal", 403, "services"),
        ("b.db.pandastack.internal", 403, "services"),
        ("gateway.pandastack.internal", 404, "no service"),
        (f"x.{B}", 404, "no service"),
        ("allowed.test", 404, "no service"),
        ("10.0.2.2", 404, "no service"),
    ],
)
async def test_what_is_not_listed_is_refused(
    subject: Subject, door: Inside, native: Native, host: str, status: int, rule: str
) -> None:
    for name in ("sandbox:c:8000", "sandbox:b:8001", "db:b"):  # they exist
        door.services[name] = native.port
    found, _, body = await asked(subject, request(host))
    told = json.loads(body)
    assert found == status and "error" in told
    if status == 403:
        assert told["how_to_allow"].startswith("pandastack network allow sbx-1 ")
    else:
        assert B in told["services"]
    decision = await subject.decided(allowed=False, rule=rule)
    assert decision.via == "service" and decision.reason
    assert door.connections == {}


async def test_what_is_listed_and_does_not_exist_is_not_found(subject: Subject, door: Inside) -> None:
    for host in ("gone.db.pandastack.internal", "9000-b.sandbox.pandastack.internal"):
        status, headers, body = await asked(subject, request(host, more=NAVIGATION))
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body)["error"].startswith("there is no service")


async def test_a_connection_is_for_one_service(subject: Subject, door: Inside, native: Native) -> None:
    def twice(second: bytes) -> tuple[int, int]:
        with subject.world.connect(GATEWAY, 80) as sock:
            sock.settimeout(20)
            sock.sendall(request())
            first = answer(sock)[0]
            sock.sendall(second)
            return first, answer(sock)[0]

    assert await anyio.to_thread.run_sync(twice, request()) == (200, 200)
    assert await anyio.to_thread.run_sync(twice, request(C)) == (200, 403)
    assert await anyio.to_thread.run_sync(twice, request("9000-b.sandbox.pandastack.internal")) == (200, 0)
    await subject.decided(allowed=False, name=C)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05hello" + bytes(40),
        b"SSH-2.0-x\r\n" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT " + B.encode() + b":80 HTTP/1.1\r\nHost: " + B.encode() + b":80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + B.encode() + b"\r\nHost: " + C.encode() + b"\r\n\r\n",
        b"GET http://" + C.encode() + b"/ HTTP/1.1\r\nHost: " + B.encode() + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: "
        + B.encode()
        + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "ssh", "http2", "connect", "two hosts", "two names", "two lengths"],
)
async def test_what_is_not_plain_http(subject: Subject, door: Inside, data: bytes) -> None:
    assert (await asked(subject, data))[0] in (0, 403)
    await subject.decided(allowed=False, rule="malformed")
    assert door.connections == {}


async def test_a_websocket_and_uploads(subject: Subject, door: Inside, native: Native) -> None:
    def talk() -> int:
        with subject.world.connect(GATEWAY, 80) as sock, connect(f"ws://{B}/ws", sock=sock, proxy=None) as client:
            for size in (1, 300_000):
                client.send("m" * size)
                assert len(client.recv(20)) == size
        size = 3_000_000
        body = f"POST /size HTTP/1.1\r\nHost: {B}\r\nContent-Length: {size}\r\n\r\n".encode() + b"y" * size
        return int(json.loads(ask(subject.world, body)[2])["bytes"])

    assert await anyio.to_thread.run_sync(talk) == 3_000_000


async def test_a_change_ends_what_it_forbids_and_nothing_else(subject: Subject, door: Inside, native: Native) -> None:
    def listen() -> socket.socket:
        sock = subject.world.connect(GATEWAY, 80)
        sock.settimeout(20)
        sock.sendall(request(target="/events"))
        data = b""
        while b"data: 0" not in data:
            data += sock.recv(65536)
        return sock

    sock = await anyio.to_thread.run_sync(listen)
    with sock:
        narrow = NetworkPolicy(Egress.LIST, services=("db:other", "sandbox:b"))
        await subject.egress.change("ps0001", narrow, [])
        native.ticks.set()
        assert b"data: 1" in await anyio.to_thread.run_sync(sock.recv, 65536)
        await subject.egress.change("ps0001", CLOSED, [])
        sock.setblocking(False)
        with pytest.raises(ConnectionError):
            sock.recv(65536)  # it has ended before the change was answered
        await native.left.wait()
    assert (await asked(subject, request()))[0] == 403
    assert "the policy has changed" in (await subject.decided(allowed=False, name=B)).reason
    await subject.egress.change("ps0001", NetworkPolicy(Egress.NONE), [])
    assert (await asked(subject, request()))[0] == 403


async def test_without_a_gateway_or_an_egress_process_nothing_passes(
    subject: Subject, native: Native, gateway_socket: Path, tmp_path: Path
) -> None:
    await subject.egress.change("ps0001", POLICY, [])
    status, _, body = await asked(subject, request())
    assert (status, json.loads(body)["code"]) == (503, "unavailable")
    inside = Inside()
    inside.services["sandbox:b:8000"] = native.port
    async with gateway(inside, tmp_path, inward=str(gateway_socket), inward_uid=UID):
        assert (await asked(subject, request()))[0] == 200
        first = subject.egress.pid
        assert first
        os.kill(first, signal.SIGSTOP)

        def knock() -> bytes:
            with subject.world.connect(GATEWAY, 80) as sock:
                sock.settimeout(0.3)
                sock.sendall(request())
                return sock.recv(100)

        with pytest.raises(TimeoutError):
            await anyio.to_thread.run_sync(knock)
        os.kill(first, signal.SIGKILL)
        with anyio.fail_after(20):
            while subject.egress.pid in (None, first):
                await subject.egress.settled()
        assert (await asked(subject, request()))[0] == 200
    assert (await asked(subject, request()))[0] == 503


async def test_other_users_of_the_host_are_not_heard(door: Inside, gateway_socket: Path) -> None:
    line = b'{"caller": "sbx-1", "service": "sandbox:b:8000"}\n' + request()
    program = f"""
import os, socket, sys
user = int(sys.argv[1])
os.setresuid(user, user, user)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect({str(gateway_socket)!r})
try:
    sock.sendall({line!r})
    print(sock.recv(12).decode())
except ConnectionError:
    print("")
"""

    async def run(user: int) -> str:
        done = await anyio.run_process([sys.executable, "-I", "-c", program, str(user)])
        return done.stdout.decode().strip()

    assert await run(UID) == "HTTP/1.1 200"
    assert await run(UID + 1) == ""


async def test_a_sandbox_cannot_take_all_places(subject: Subject, door: Inside, native: Native) -> None:
    def many() -> list[int]:
        held = []
        try:
            for _ in range(INWARD_CONNECTIONS + 1):
                sock = subject.world.connect(GATEWAY, 80)
                held.append(sock)
                sock.settimeout(20)
                sock.sendall(request())
            return [answer(sock)[0] for sock in held]
        finally:
            for sock in held:
                sock.close()

    found = await anyio.to_thread.run_sync(many)
    assert sorted(set(found)) == [0, 200] and found.count(0) == 1
    await subject.decided(allowed=False, rule="limit")
