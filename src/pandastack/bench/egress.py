"""What the egress process costs: a connection, a megabyte and a name through it, beside the same without it.

Everything is native and on loopback; the proxy is used through CONNECT, so that neither root nor a packet filter is
needed. A real slot adds its veth pairs to both sides alike.
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import dns.message
import dns.rrset

from pandastack.egress.client import Slot, open_egress
from pandastack.model.network import Egress, NetworkPolicy, Rule

NAME, MEGABYTES = "origin.bench.test", 256
_BLOCK = bytes(1024 * 1024)


@dataclass(frozen=True)
class EgressCost:
    """Medians: milliseconds of a connection until the first byte comes back, MB/s towards the guest, milliseconds of a
    name that is not in the cache, and how long a change of the policy took to be in force."""

    connect: float
    connect_direct: float
    rate: float
    rate_direct: float
    name: float
    name_direct: float
    change: float


def measure_egress(n: int = 50) -> EgressCost:
    """``n`` connections and names each, and three transfers."""
    return anyio.run(_measure, n)


async def _measure(n: int) -> EgressCost:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ps-")))
        origin = stack.enter_context(_serving(_listener(), _serve_origin))
        names = stack.enter_context(_serving(_datagrams(), _serve_names))
        made = (_datagrams(), _listener(), _listener(), _listener())
        udp, tcp, proxy, inward = (stack.enter_context(each) for each in made)
        policy = NetworkPolicy(Egress.LIST, allow=(Rule("*.bench.test"), Rule(NAME, origin[1])))
        opened = open_egress(directory, None, (), lambda key, decision: None, servers=[names])
        async with opened as egress:
            slot = Slot("bench", "bench", udp.fileno(), tcp.fileno(), proxy.fileno(), inward.fileno())
            await egress.open(slot, policy)
            asked = anyio.to_thread.run_sync
            through, resolver = proxy.getsockname(), udp.getsockname()
            connect = await asked(_median, n, lambda _: _exchange(through, origin[1]))
            connect_direct = await asked(_median, n, lambda _: _exchange(origin))
            seconds = await asked(_median, 3, lambda _: _exchange(through, origin[1], MEGABYTES))
            seconds_direct = await asked(_median, 3, lambda _: _exchange(origin, None, MEGABYTES))
            name = await asked(_median, n, lambda each: _look_up(resolver, f"n{each}.bench.test"))
            name_direct = await asked(_median, n, lambda each: _look_up(names, f"d{each}.bench.test"))
            started = time.perf_counter()
            await egress.change("bench", NetworkPolicy(Egress.DENY), [])
            change = time.perf_counter() - started
    return EgressCost(
        connect * 1000,
        connect_direct * 1000,
        MEGABYTES / seconds,
        MEGABYTES / seconds_direct,
        name * 1000,
        name_direct * 1000,
        change * 1000,
    )


def _median(n: int, work: Callable[[int], None]) -> float:
    times = []
    for each in range(n):
        started = time.perf_counter()
        work(each)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _exchange(server: tuple[str, int], port: int | None = None, megabytes: int = 0) -> None:
    """Ask for so much; with a ``port`` of the origin, the server is the proxy."""
    with socket.create_connection(server, timeout=30) as sock:
        if port is not None:
            sock.sendall(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
            if not sock.recv(1000).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("the proxy refuses")
        request = f"GET /{megabytes} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
        sock.sendall(request.encode())
        buffer = bytearray(len(_BLOCK))
        while sock.recv_into(buffer):
            pass


def _look_up(server: tuple[str, int], name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(dns.message.make_query(name, "A").to_wire(), server)
        sock.recv(4096)


def _listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return sock


def _datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def _serving(sock: socket.socket, serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[tuple[str, int]]:
    """Serve it in a thread; gives its address."""
    ended = threading.Event()
    sock.settimeout(0.1)
    thread = threading.Thread(target=serve, args=(sock, ended))
    thread.start()
    try:
        yield sock.getsockname()
    finally:
        ended.set()
        thread.join()
        sock.close()


def _serve_origin(listener: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        with sock:
            sock.settimeout(30)
            megabytes = int(sock.recv(4096).split()[1][1:])
            sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            for _ in range(megabytes):
                sock.sendall(_BLOCK)


def _serve_names(server: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            data, peer = server.recvfrom(4096)
        except TimeoutError:
            continue
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query, recursion_available=True)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "A", "127.0.0.1"))
        server.sendto(reply.to_wire(), peer)
