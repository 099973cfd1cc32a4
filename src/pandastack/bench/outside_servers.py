"""The servers of an outside world (:mod:`pandastack.bench.outside`): real ones, a thread for each connection.

They listen at the addresses of their world: HTTP (80, and 443 by TLS), DNS (53), a server for streams whose first
line says what it is for, a server for datagrams, and one that tells the owner what came. They run until their standard
input ends. This file is run by itself, without the rest of the package, so that a world is there sooner.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

CHUNK = 1 << 20
TTL = 60
"""Seconds for which a DNS answer holds."""

BODY_LIMIT = 64 << 20
"""The longest body that is echoed."""


class Seen:
    """What came."""

    def __init__(self) -> None:
        self.arrivals: deque[dict[str, Any]] = deque(maxlen=10_000)
        self.stamps: dict[str, tuple[int, float]] = {}

    def note(self, service: str, peer: tuple[Any, ...], own: tuple[Any, ...], **more: Any) -> None:
        at = {"time": time.time(), "service": service, "peer": peer[0], "address": own[0], "port": own[1]}
        self.arrivals.append(at | more)

    def stamp(self, key: str) -> None:
        count, _ = self.stamps.get(key, (0, 0.0))
        self.stamps[key] = count + 1, time.time()

    def forget(self) -> None:
        self.arrivals.clear()
        self.stamps.clear()


SEEN = Seen()


class Echo(BaseHTTPRequestHandler):
    """Answers with the request, as JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT))
        own = self.connection.getsockname()
        service = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        host = self.headers.get("Host", "")
        credentials = self.headers.get("Authorization", "")
        SEEN.note(service, self.client_address, own, host=host, path=self.path, credentials=credentials)
        self._send(
            {
                "method": self.command,
                "path": self.path,
                "host": host,
                "headers": dict(self.headers.items()),
                "body": body.decode("utf-8", "replace"),
                "address": own[0],
                "peer": self.client_address[0],
                "scheme": service,
            }
        )

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _send(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: :data:`SEEN` has it."""


class Control(Echo):
    """Tells the owner what came."""

    def do_GET(self) -> None:
        verb, _, key = self.path[1:].partition("/")
        if verb == "arrivals":
            self._send(list(SEEN.arrivals))
        elif verb == "stamps":
            self._send(SEEN.stamps.get(key, (0, 0.0)))
        else:
            SEEN.forget()
            self._send(None)


class Http(ThreadingHTTPServer):
    """Binds without asking a DNS server for its own name."""

    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "outside", int(self.server_address[1])


class Tls(Http):
    """By TLS; the handshake is the connection's own thread's."""

    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        SEEN.note("tls", client_address, request.getsockname())
        request.settimeout(30)
        with self.context.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves, or does not like the certificate, is none of ours."""


def serve_stream(connection: socket.socket, peer: Any) -> None:
    """``sink``: count until the end, and answer with bytes and seconds; ``source N``: send N bytes; ``echo``;
    ``stamp KEY``: note the time of each piece."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line = b""
    while not line.endswith(b"\n") and len(line) < 200:
        if not (byte := connection.recv(1)):
            return
        line += byte
    verb, _, value = line.decode("ascii", "replace").strip().partition(" ")
    SEEN.note("tcp", peer, connection.getsockname(), verb=verb)
    if verb == "sink":
        _sink(connection)
    elif verb == "source":
        _source(connection, int(value))
    elif verb == "echo":
        while data := connection.recv(CHUNK):
            connection.sendall(data)
    elif verb == "stamp":
        while connection.recv(CHUNK):
            SEEN.stamp(value)


def _sink(connection: socket.socket) -> None:
    buffer, total, began = bytearray(CHUNK), 0, time.perf_counter()
    while count := connection.recv_into(buffer):
        total += count
    connection.sendall(json.dumps({"bytes": total, "seconds": time.perf_counter() - began}).encode() + b"\n")


def _source(connection: socket.socket, total: int) -> None:
    chunk = memoryview(bytes(CHUNK))
    while total > 0:
        connection.sendall(chunk[:total])
        total -= CHUNK


def serve_datagrams(listener: socket.socket) -> None:
    """``stamp KEY …``: note the time; anything else is echoed."""
    while True:
        data, peer = listener.recvfrom(65536)
        if data.startswith(b"stamp "):
            SEEN.stamp(data.split()[1].decode("ascii", "replace"))
            continue
        SEEN.note("udp", peer, listener.getsockname())
        listener.sendto(data, peer)


class Zone:
    """Names and their addresses."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self._names = names

    def answer(self, wire: bytes) -> bytes:
        """The answer to one query: A records; other types of a known name are empty, other names do not exist."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        SEEN.note("dns", ("",), ("", 53), name=question.name.to_text(), type=dns.rdatatype.to_text(question.rdtype))
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= dns.flags.AA
        addresses = self.find(question.name.to_text(omit_final_dot=True).lower())
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif addresses and question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text_list(question.name, TTL, "IN", "A", addresses))
        return answer.to_wire()

    def find(self, name: str) -> list[str] | None:
        """Of the name itself, or of the nearest ``*.`` above it."""
        if name in self._names:
            return self._names[name]
        while "." in name:
            name = name.partition(".")[2]
            if f"*.{name}" in self._names:
                return self._names[f"*.{name}"]
        return None

    def serve_udp(self, listener: socket.socket) -> None:
        while True:
            wire, peer = listener.recvfrom(65536)
            with suppress(dns.exception.DNSException, IndexError):
                listener.sendto(self.answer(wire), peer)

    def serve_tcp(self, connection: socket.socket, _peer: Any) -> None:
        with connection.makefile("rwb") as file:
            while len(length := file.read(2)) == 2:
                answer = self.answer(file.read(int.from_bytes(length)))
                file.write(len(answer).to_bytes(2) + answer)
                file.flush()


def _listen_tcp(port: int, serve: Callable[[socket.socket, Any], None]) -> None:
    listener = socket.create_server(("0.0.0.0", port), backlog=1024)

    def one(connection: socket.socket, peer: Any) -> None:
        with connection:
            try:
                serve(connection, peer)
            except (OSError, ValueError, dns.exception.DNSException):
                return  # the client is gone, or speaks something else

    def accept() -> None:
        while True:
            threading.Thread(target=one, args=listener.accept(), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _listen_udp(addresses: Sequence[str], port: int, serve: Callable[[socket.socket], None]) -> None:
    """One socket for each address, so that an answer comes from the address that was asked."""
    for each in addresses:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((each, port))
        threading.Thread(target=serve, args=[listener], daemon=True).start()


def _listen_http(server: Http) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    settings = json.loads(sys.argv[1])
    zone = Zone(settings["zone"])
    addresses, ports = settings["addresses"], settings["ports"]
    _listen_udp(addresses, 53, zone.serve_udp)
    _listen_tcp(53, zone.serve_tcp)
    _listen_udp(addresses, ports["udp"], serve_datagrams)
    _listen_tcp(ports["tcp"], serve_stream)
    _listen_http(Http(("0.0.0.0", 80), Echo))
    _listen_http(Http((settings["control"], ports["control"]), Control))
    if settings["certificate"]:
        secure = Tls(("0.0.0.0", 443), Echo)
        secure.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secure.context.load_cert_chain(settings["certificate"])
        secure.context.set_alpn_protocols(["http/1.1"])
        _listen_http(secure)
    print("ready", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
