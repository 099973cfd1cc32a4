"""Connections to hosts with secrets go to the broker, or nowhere."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import anyio
import pytest

from pandastack.model.network import NetworkPolicy
from tests.support.egress import POLICY, UID, Subject
from tests.support.egress_world import HERE
from tests.support.tls import client_hello

pytestmark = [pytest.mark.anyio, pytest.mark.root]


@dataclass
class Broker:
    """Answers the client and the host itself: what it got is in ``taken``."""

    listener: socket.socket
    accept: bool = True
    taken: list[tuple[dict[str, object], bytes]] = field(default_factory=list)
    kept: list[socket.socket] = field(default_factory=list)

    def serve(self) -> None:
        while True:
            try:
                control, _ = self.listener.accept()
            except OSError:
                return
            data, beside, _, _ = control.recvmsg(65536, 200)
            if not data:
                control.close()
                return
            line, _, rest = data.partition(b"\n")
            about = json.loads(line)
            while len(rest) < about["begun"]:
                rest += control.recv(65536)
            self.taken.append((about, rest))
            descriptors = array.array("i")
            descriptors.frombytes(beside[0][2])
            client, upstream = (socket.socket(fileno=each) for each in descriptors)
            control.sendall(json.dumps({"ok": self.accept}).encode() + b"\n")
            if self.accept:
                client.sendall(b"from the broker")
                self.kept += [client, upstream, control]
            else:
                for each in (client, upstream, control):
                    each.close()


@pytest.fixture
def broker(broker_socket: Path) -> Iterator[Broker]:
    path = broker_socket
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chown(path, UID, UID)
        listener.listen()
        broker = Broker(listener)
        thread = Thread(target=broker.serve)
        thread.start()
        yield broker
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
        thread.join(5)
        for each in broker.kept:
            each.close()


def speak(subject: Subject, port: int, data: bytes) -> bytes:
    with subject.world.connect(HERE, port) as sock:
        sock.sendall(data)
        try:
            return sock.recv(1000)
        except ConnectionError:
            return b""


REQUEST = b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


@pytest.mark.parametrize("policy", [POLICY, NetworkPolicy()])
async def test_bound_hosts_go_to_the_broker(broker: Broker, subject: Subject, policy: NetworkPolicy) -> None:
    await subject.egress.change("ps0001", policy, ["allowed.test"])
    hello = client_hello("allowed.test")
    assert await anyio.to_thread.run_sync(speak, subject, 443, hello) == b"from the broker"
    assert await anyio.to_thread.run_sync(speak, subject, 80, REQUEST) == b"from the broker"
    about = {"slot": "ps0001", "sandbox": "sbx-1", "host": "allowed.test"}
    assert broker.taken == [
        (about | {"port": 443, "tls": True, "begun": len(hello)}, hello),
        (about | {"port": 80, "tls": False, "begun": len(REQUEST)}, REQUEST),
    ]
    other = REQUEST.replace(b"allowed.test", b"git.test")
    assert (await anyio.to_thread.run_sync(speak, subject, 80, other))[9:12] == (b"403" if policy is POLICY else b"200")


async def test_a_refusing_broker(broker: Broker, subject: Subject) -> None:
    broker.accept = False
    await subject.egress.change("ps0001", NetworkPolicy(), ["allowed.test"])
    assert (await anyio.to_thread.run_sync(speak, subject, 80, REQUEST))[9:12] == b"403"
    assert await anyio.to_thread.run_sync(speak, subject, 443, client_hello("allowed.test")) == b""
    await subject.decided(allowed=False, name="allowed.test", rule="secrets")


async def test_no_broker(subject: Subject) -> None:
    await subject.egress.change("ps0001", NetworkPolicy(), ["allowed.test"])
    assert (await anyio.to_thread.run_sync(speak, subject, 80, REQUEST))[9:12] == b"403"
    await subject.decided(allowed=False, name="allowed.test", rule="secrets")


async def test_the_first_secret_ends_what_was_open(subject: Subject) -> None:
    with subject.world.connect(HERE, 80) as sock:
        sock.sendall(REQUEST)
        assert await anyio.to_thread.run_sync(sock.recv, 1000)
        await subject.egress.change("ps0001", POLICY, ["allowed.test"])
        with pytest.raises(ConnectionError):
            sock.recv(1)


async def test_a_change_cuts_what_the_broker_has(broker: Broker, subject: Subject) -> None:
    await subject.egress.change("ps0001", NetworkPolicy(), ["allowed.test"])
    with subject.world.connect(HERE, 80) as sock:
        sock.sendall(REQUEST)
        assert await anyio.to_thread.run_sync(sock.recv, 1000) == b"from the broker"
        await subject.egress.change("ps0001", NetworkPolicy(), [])
        with pytest.raises(ConnectionError):
            sock.recv(1)


async def test_a_hidden_name_on_a_bound_address(subject: Subject) -> None:
    await subject.egress.change("ps0001", NetworkPolicy(), ["allowed.test"])
    await anyio.to_thread.run_sync(subject.world.lookup, "allowed.test")
    assert await anyio.to_thread.run_sync(speak, subject, 443, client_hello(None)) == b""
    await subject.decided(allowed=False, rule="no name")
