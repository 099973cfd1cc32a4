"""An outside world for a slot: namespaces for a guest, its slot, the host and the internet, and what answers there.

Every TCP connection of the guest is redirected to the proxy's port in the slot, as the rules of a real slot do.
The main thread is in the host's namespace while a test runs, so what it starts is there too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from pandastack.model.network import INWARD_PORT
from tests.support.tls import make_certificate

HERE, THERE = "203.0.113.10", "203.0.113.11"
"""Two addresses of the internet."""

GATEWAY, GUEST = "10.0.2.2", "10.0.2.15"
PROXY_PORT = 3129
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread is in the network namespace meanwhile: sockets that it makes stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        target = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            _enter(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Names:
    """A name server. ``asked`` are the names that it was asked for; several answers of a name are given in turn."""

    port: int = 0
    records: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ttl: int = 1

    def reply(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        reply = dns.message.make_response(query, recursion_available=True)
        turns = self.records.get(name)
        if turns is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answers = turns.pop(0) if len(turns) > 1 else turns[0]
            reply.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", "A", answers))
        elif question.rdtype == dns.rdatatype.HTTPS:
            text = "1 . alpn=h3,h2 ech=AAT+DQAA ipv4hint=203.0.113.10"
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", "HTTPS", text))
        elif question.rdtype == dns.rdatatype.TXT:
            pieces = [f'"{"x" * 200}"' for _ in range(20)]
            reply.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", "TXT", pieces))
        return reply.to_wire(max_size=65535)


@dataclass(frozen=True)
class World:
    host: str
    guest: str
    slot: str
    internet: str
    names: Names
    certificate: ssl.SSLContext

    def listeners(self) -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
        """For questions by UDP and TCP, the proxy's, and that of the door inward; made anew for each test."""
        with inside(self.slot):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((GATEWAY, 53))
            return udp, *(_listening(GATEWAY, port) for port in (53, PROXY_PORT, INWARD_PORT))

    def connect(self, address: str, port: int) -> socket.socket:
        """From the guest."""
        with inside(self.guest):
            sock = socket.socket()
        sock.settimeout(5)
        try:
            sock.connect((address, port))
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, query: dns.message.Message, timeout: float = 5) -> dns.message.Message:
        """From the guest, over UDP. Raises ``TimeoutError``."""
        with inside(self.guest), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.sendto(query.to_wire(), (GATEWAY, 53))
            return dns.message.from_wire(sock.recv(65535))

    def lookup(self, name: str, kind: str = "A", timeout: float = 5) -> tuple[str, list[str]]:
        """The code and the records of an answer."""
        reply = self.ask(dns.message.make_query(name, kind, use_edns=0), timeout)
        return dns.rcode.to_text(reply.rcode()), [item.to_text() for each in reply.answer for item in each]


def _listening(address: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(128)
    return sock


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@contextmanager
def a_world(directory: Path) -> Iterator[World]:
    if shutil.which("nft") is None:
        pytest.skip("this host has no nft")
    tag = f"ptw{os.getpid():x}"
    host, guest, slot, internet = (f"{tag}{end}" for end in "hgsi")
    with ExitStack() as stack:
        for each in (host, guest, slot, internet):
            _ip("netns", "add", each)
            stack.callback(_ip, "netns", "del", each)
            _ip("-n", each, "link", "set", "lo", "up")
        _link(host, "net", "203.0.113.1/24", internet, "host", f"{HERE}/24")
        _ip("-n", internet, "addr", "add", f"{THERE}/24", "dev", "host")
        _link(slot, "tap0", f"{GATEWAY}/24", guest, "eth0", f"{GUEST}/24")
        _ip("-n", guest, "route", "add", "default", "via", GATEWAY)
        rules = f"""
            add table ip test
            add chain ip test redirect_all {{ type nat hook prerouting priority dstnat; }}
            add rule ip test redirect_all ip daddr != {GATEWAY} meta l4proto tcp redirect to :{PROXY_PORT}
        """
        nft = ["nsenter", f"--net=/run/netns/{slot}", "nft", "-f", "-"]
        subprocess.run(nft, input=rules.encode(), check=True, timeout=10)
        names = Names()
        world = World(host, guest, slot, internet, names, make_certificate(directory, "allowed.test"))
        with inside(host):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("127.0.0.1", 0))
        names.port = server.getsockname()[1]
        stack.enter_context(_thread(server, lambda: _answer(server, names)))
        with inside(internet):
            for port, talk in ((80, http), (443, world_tls(world)), (22, banner), (8080, http)):
                listener = _listening("0.0.0.0", port)
                stack.enter_context(_thread(listener, lambda ear=listener, talk=talk: _accept(ear, talk)))
        yield world


def _link(one: str, name: str, address: str, other: str, peer: str, peer_address: str) -> None:
    _ip("-n", one, "link", "add", name, "type", "veth", "peer", "name", peer, "netns", other)
    for netns, device, own in ((one, name, address), (other, peer, peer_address)):
        _ip("-n", netns, "addr", "add", own, "dev", device)
        _ip("-n", netns, "link", "set", device, "up")


@contextmanager
def _thread(sock: socket.socket, work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        if sock.type is socket.SOCK_DGRAM:
            _LIBC.shutdown(sock.fileno(), 2)
        thread.join(10)
        sock.close()


def _answer(server: socket.socket, names: Names) -> None:
    while True:
        try:
            data, peer = server.recvfrom(4096)
        except OSError:
            return
        if not data:
            return
        server.sendto(names.reply(data), peer)


def _accept(listener: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_talk, args=(sock, talk), daemon=True).start()


def _talk(sock: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    with sock, suppress(OSError):
        sock.settimeout(30)
        talk(sock)


def http(sock: socket.socket) -> None:
    """Answers each request with its Host; after an upgrade it echoes; ``/bytes/N`` gives N bytes."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(65536)):
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        target = head.split(b" ")[1]
        if b"upgrade:" in head.lower():
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
            while data or (data := sock.recv(65536)):
                sock.sendall(data)
                data = b""
            return
        if target.startswith(b"/bytes/"):
            size = int(target.rpartition(b"/")[2])
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = b"x" * 1_000_000
            while size:
                size -= sock.send(block[: min(size, len(block))])
            continue
        host = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"host:")), b"Host: none")
        body = host.partition(b":")[2].strip() + b" " + target
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def banner(sock: socket.socket) -> None:
    """Speaks first, then echoes."""
    sock.sendall(b"SSH-2.0-test\r\n")
    while data := sock.recv(65536):
        sock.sendall(data)


def world_tls(world: World) -> Callable[[socket.socket], None]:
    """Says the server name that it was asked for, then echoes."""

    def talk(sock: socket.socket) -> None:
        tls = world.certificate.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with tls:
            tls.do_handshake()
            tls.sendall(b"hello\n")
            while data := tls.recv(65536):
                tls.sendall(data)

    return talk
