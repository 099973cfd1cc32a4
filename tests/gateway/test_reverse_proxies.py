"""Real reverse proxies in front of the gateway, with the configurations that docs/reverse-proxy.md gives."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import connect

from pandastack.gateway.http.tokens import QUERY, SECURE_COOKIE
from tests.docs.blocks import ROOT, blocks
from tests.gateway.native import Native, exchange, native_server, shown
from tests.gateway.world import SANDBOX, TOKEN, World, gateway
from tests.support.tls import make_certificate

pytestmark = pytest.mark.anyio

CLIENT = "127.0.0.9"
"""Where requests come from: not the proxy's own address, which is trusted."""

API, SUFFIX = "api.example.com", "preview.example.com"

NGINX = """
daemon off;
worker_processes 1;
{user}pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


def in_docs(first: str) -> str:
    """The configuration on the page that begins with ``first``."""
    (found,) = [each.text for each in blocks(ROOT / "docs/reverse-proxy.md") if each.text.startswith(first)]
    return found


def with_places(text: str, places: dict[str, str]) -> str:
    """The configuration with this test's files and ports; each of them must be in it."""
    for shown_on_page, own in places.items():
        assert shown_on_page in text, shown_on_page
        text = text.replace(shown_on_page, own)
    return text


@dataclass
class Front:
    """A proxy that answers TLS at ``port``, and what is behind it."""

    port: int
    world: World
    native: Native
    trust: ssl.SSLContext

    @property
    def name(self) -> str:
        return f"{self.native.port}-{SANDBOX}.{SUFFIX}"

    def way(self, name: str) -> dict[str, Any]:
        return {"ssl": self.trust, "server_hostname": name, "local_addr": (CLIENT, 0)}

    async def ask(self, line: str = "GET /", headers: str = "", body: bytes = b"", name: str = "") -> tuple:  # type: ignore[type-arg]
        name = name or self.name
        return await exchange(
            self.port, f"{line} HTTP/1.1\r\nHost: {name}\r\n{headers}\r\n".encode() + body, **self.way(name)
        )

    async def open(self, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which a request has begun."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **self.way(self.name))
        writer.write(f"{head}\r\nHost: {self.name}\r\n\r\n".replace("HTTP/1.1\n", "HTTP/1.1\r\n").encode())
        return reader, writer


@contextmanager
def nginx(directory: Path, listener: socket.socket, api: int, gateway: int) -> Iterator[None]:
    port = listener.getsockname()[1]
    places = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl": str(directory),
        "127.0.0.1:8080": f"127.0.0.1:{api}",
        "127.0.0.1:8081": f"127.0.0.1:{gateway}",
    }
    site = with_places(in_docs("map "), places)
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, site=site, user="user root;" if os.geteuid() == 0 else ""))
    # It takes over a listening socket that it finds in this variable: the port is this test's from the start.
    argv = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(config)]
    with running(directory, argv, listener, NGINX=f"{listener.fileno()};"):
        yield


@contextmanager
def haproxy(directory: Path, listener: socket.socket, api: int, gateway: int) -> Iterator[None]:
    pem = directory / "both.pem"
    pem.write_bytes((directory / "pandastack.pem").read_bytes() + (directory / "pandastack.key").read_bytes())
    places = {
        "bind :443 ssl crt /etc/ssl/pandastack.pem": f"bind fd@{listener.fileno()} ssl crt {pem}",
        "127.0.0.1:8080": f"127.0.0.1:{api}",
        "127.0.0.1:8081": f"127.0.0.1:{gateway}",
    }
    config = directory / "haproxy.cfg"
    config.write_text(with_places(in_docs("global"), places))
    with running(directory, ["haproxy", "-db", "-f", str(config)], listener):
        yield


@contextmanager
def running(directory: Path, argv: list[str], listener: socket.socket, **environment: str) -> Iterator[None]:
    if shutil.which(argv[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"this host has no {argv[0]}")
    log = directory / f"{argv[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
        )
    listener.close()  # it is the proxy's alone: nobody waits for one that has died
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(20)


PROXIES: dict[str, Callable[..., Any]] = {"nginx": nginx, "haproxy": haproxy}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for both names, and its key."""
    directory = tmp_path_factory.mktemp("certificate")
    make_certificate(directory, API, SUFFIX, f"*.{SUFFIX}")
    for name in ("pandastack.pem", "pandastack.key"):
        shutil.copy(directory / "server.pem", directory / name)
    return directory


@pytest.fixture(scope="module", params=PROXIES)
async def front(
    request: pytest.FixtureRequest, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Front]:
    """One proxy for all tests of it. What stands for the API is a native server, too."""
    world = World(switches={})
    options = {"suffixes": (f"{SUFFIX}:443",), "trusted_proxies": ("127.0.0.1/32",)}
    trust = ssl.create_default_context(cafile=str(certificate / "pandastack.pem"))
    async with native_server() as native, gateway(world, tmp_path_factory.mktemp("gateway"), **options):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with PROXIES[request.param](certificate, listener, native.port, world.port):
                yield Front(port, world, native, trust)


async def test_a_request_keeps_its_host_and_its_path_and_has_its_clients_address(front: Front) -> None:
    forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"
    status, _, body = await front.ask("GET /a%2Fb//../c?d=e&f", f"{forged}X-Forwarded-Host: other\r\n")
    target, seen = shown(body)
    assert (status, target) == (200, "/a%2Fb//../c?d=e&f")
    assert seen["host"] == f"localhost:{front.native.port}"
    assert seen["x-forwarded-host"] == front.name
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (CLIENT, "https")
    assert not {"x-real-ip", "forwarded"} & seen.keys()


async def test_the_api_has_a_name_of_its_own(front: Front) -> None:
    status, _, body = await front.ask("GET /v1/sandboxes", "X-Forwarded-For: 6.6.6.6\r\n", name=API)
    target, seen = shown(body)
    assert (status, target, seen["host"]) == (200, "/v1/sandboxes", API)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (CLIENT, "https")


async def test_a_name_that_is_no_preview(front: Front) -> None:
    assert (await front.ask(name=f"80-nobody.{SUFFIX}"))[0] == 404


@pytest.mark.parametrize(
    "named", ["close, X-Forwarded-For, X-Forwarded-Proto", "Host", "keep-alive, Content-Length, X-Forwarded-For"]
)
async def test_a_client_cannot_have_headers_of_the_proxy_removed(front: Front, named: str) -> None:
    """A hop drops the headers that ``Connection`` names: those that the next hop relies on must not be among them."""
    headers = f"Connection: {named}\r\nX-Forwarded-For: 127.0.0.1\r\nContent-Length: 3\r\n"
    status, _, body = await front.ask("POST /", headers, b"abc")
    seen = shown(body)[1]
    assert status == 200
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (CLIENT, "https")
    assert seen["content-length"] == "3"


async def test_an_answer_arrives_piece_by_piece(front: Front) -> None:
    reader, writer = await front.open("GET /events HTTP/1.1")
    for number in range(3):
        await reader.readuntil(b"data: %d" % number)  # the next one is not made before
        front.native.ticks.set()
    writer.transport.abort()
    with anyio.fail_after(20):
        await front.native.left.wait()


async def test_messages_of_a_websocket(front: Front) -> None:
    way = {"ssl": front.trust, "host": "127.0.0.1", "port": front.port, "local_addr": (CLIENT, 0)}
    async with connect(f"wss://{front.name}/ws", **way) as websocket:
        for size in (1, 70_000, 900_000):
            await websocket.send("m" * size)
            assert await websocket.recv() == "m" * size


@pytest.mark.parametrize("coding", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
async def test_a_large_upload_arrives_while_it_is_sent(front: Front, coding: str) -> None:
    front.native.begun.clear()
    reader, writer = await front.open(f"POST /size HTTP/1.1\n{coding}")
    piece = bytes(1_000_000)
    if "chunked" in coding:
        piece = b"%x\r\n%s\r\n" % (len(piece), piece)
    for number in range(20):
        writer.write(piece)
        await writer.drain()
        if number == 5:
            await front.native.begun.wait()  # before the rest is sent
    writer.write(b"0\r\n\r\n" if "chunked" in coding else b"")
    await reader.readuntil(b"\r\n\r\n")
    while b"20000000}" not in (answer := await reader.read(1000)):
        assert answer
    writer.close()


async def test_an_early_refusal_of_an_upload(front: Front) -> None:
    status, _, body = await front.ask("POST /early", "Content-Length: 50000000\r\n", bytes(100_000))
    assert (status, body) == (413, b"too large")


async def test_redirects_and_cookies_are_for_the_scheme_that_clients_use(front: Front) -> None:
    status, headers, _ = await front.ask("GET /cookies")
    assert (status, headers["location"]) == (302, f"https://{front.name}/next?x=1")
    front.world.private = True
    try:
        navigation = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
        status, headers, body = await front.ask(f"GET /a?{QUERY}={TOKEN}", navigation)
        assert (status, headers["location"], body) == (303, "/a", b"")
        assert headers["set-cookie"].startswith(f"{SECURE_COOKIE}={TOKEN};") and "Secure" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        status, _, body = await front.ask("GET /a", f"{navigation}Cookie: {cookie}\r\n")
        assert status == 200 and TOKEN not in json.dumps(shown(body))
    finally:
        front.world.private = False
