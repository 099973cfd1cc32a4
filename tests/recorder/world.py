"""A host that builds fetch from, and a proxy between it and an ordinary client."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.abc import ByteStream, SocketAttribute

from pandastack.broker.authority import Authority, make_ca
from pandastack.host import facts
from pandastack.host.tls import load_chain
from pandastack.recorder.client import Recorder, open_recorder
from pandastack.recorder.messages import Mode, Start

UID = 0x6F00_0001 if facts.is_root() else None
LOOPBACK = ("127.0.0.0/8",)
BIG = bytes(range(256)) * 20_000


@dataclass
class Host:
    """``url`` is that of its HTTPS side, ``plain`` of the other; ``seen`` the requests as it got them."""

    url: str = ""
    plain: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    content: bytes = b"first"
    hold: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> int:
        return sum(each[1] == path for each in self.seen)


@contextmanager
def open_host(trust: Path) -> Iterator[Host]:
    """Serves on loopback, as ``localhost``; its authority's certificate is written to ``trust``."""
    host, authority = Host(), Authority(make_ca())
    trust.write_text(authority.pem)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.seen.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
            _answer(host, self)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(context, authority.chain("localhost"))
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True)
    threads = [threading.Thread(target=each.serve_forever, daemon=True) for each in servers]
    for each in threads:
        each.start()
    host.url, host.plain = (
        f"{scheme}://localhost:{each.server_port}" for scheme, each in zip(("https", "http"), servers, strict=True)
    )
    try:
        yield host
    finally:
        host.hold.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _answer(host: Host, to: BaseHTTPRequestHandler) -> None:
    status, headers, body = 200, {"Content-Type": "text/plain", "Set-Cookie": "a=b"}, host.content
    match to.path.partition("?")[0]:
        case "/moved":
            status, headers = 302, {"Location": "/there"}
        case "/missing":
            status = 404
        case "/busy":
            status = 503
        case "/big":
            body = BIG
        case "/varies":
            headers["Vary"], body = "Accept", to.headers["Accept"].encode()
        case "/cut":
            headers["Content-Length"] = "1000"
        case "/chunked":
            to.send_response(200)
            to.send_header("Transfer-Encoding", "chunked")
            to.end_headers()
            to.wfile.write(b"3\r\none\r\n")
            to.wfile.flush()
            host.hold.wait(30)
            to.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")
            return
    to.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        to.send_header(name, value)
    to.end_headers()
    if to.command == "GET":
        to.wfile.write(body)
    to.close_connection = True


@dataclass
class Stage:
    recorder: Recorder
    client: httpx.AsyncClient
    port: int


@asynccontextmanager
async def open_stage(
    directory: Path, mode: Mode, lock: str = "", networks: tuple[str, ...] = LOOPBACK, most: int = 1 << 26
) -> AsyncIterator[Stage]:
    """A proxy, and an ordinary client of it, which trusts it and nobody else."""
    start = Start(mode, lock, networks, most)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with open_recorder(directory, start, UID) as recorder, anyio.create_task_group() as tasks:

        async def carry(stream: ByteStream) -> None:
            async with stream:
                await recorder.carry(stream)

        accepting = anyio.CancelScope()

        async def accept() -> None:
            with accepting:
                await listener.serve(carry, task_group=tasks)

        tasks.start_soon(accept)
        trusted = ssl.create_default_context(cadata=recorder.certificate)
        async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", verify=trusted, timeout=60) as client:
            yield Stage(recorder, client, port)
        accepting.cancel()  # connections end by themselves: the client has closed them
    await listener.aclose()
