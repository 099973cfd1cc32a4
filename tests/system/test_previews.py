"""Previews of real sandboxes: by host name, by link and by tunnel; asleep, and while the server is killed."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pandastack import Client, Sandbox
from pandastack.host import facts
from tests.support.installation import NONE_AHEAD, Installation, Server, eventually, serving

SERVER = r"""
import base64, hashlib, socketserver, struct

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            headers = {}
            while (header := self.rfile.readline().strip()):
                name, _, value = header.decode().partition(": ")
                headers[name.lower()] = value
            if "sec-websocket-key" in headers:
                return self.echo(headers["sec-websocket-key"])
            self.rfile.read(int(headers.get("content-length", 0)))
            body = (line.split()[1].decode() + " " + headers.get("host", "")).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def echo(self, key):
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        self.wfile.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while head := self.rfile.read(2):
            size = head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.rfile.read(2))[0]
            mask, data = self.rfile.read(4), self.rfile.read(size)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            if head[0] & 15 == 8:
                return
            length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
            self.wfile.write(bytes([head[0]]) + length + data)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server(("127.0.0.1", 8000), Handler).serve_forever()
"""
START = f"cat > /root/server.py <<'EOS'\n{SERVER}\nEOS\n(setsid python3 /root/server.py </dev/null >/root/log 2>&1 &)"


def door(server: Server) -> int:
    """The port of the gateway's door."""
    state = json.loads((server.installation.data / "server.json").read_bytes())
    return int(state["ports"]["http"])


def start(sandbox: Sandbox) -> None:
    sandbox.exec(START + "\nuntil grep -q ':1F40 ' /proc/net/tcp; do sleep 0.1; done", check=True)  # not idle meanwhile
    eventually(lambda: any(each.port == 8000 for each in sandbox.ports()), 60, "the server listens")


def get(server: Server, sandbox: Sandbox, path: str = "/x") -> httpx.Response:
    headers = {"Host": f"8000-{sandbox.id}.localhost"}
    return httpx.get(f"http://127.0.0.1:{door(server)}{path}", headers=headers, timeout=120)


@contextmanager
def dialled(server: Server, sandbox: Sandbox) -> Iterator[ClientConnection]:
    url = f"ws://8000-{sandbox.id}.localhost:{door(server)}/"
    way = create_connection(("127.0.0.1", door(server)))
    with connect(url, sock=way, ping_interval=None, open_timeout=60) as socket:
        yield socket


def said(socket: ClientConnection, text: str) -> None:
    socket.send(text)
    assert socket.recv(120) == text


def test_a_web_server_by_name_by_path_by_link_and_by_tunnel(server: Server, client: Client) -> None:
    with client.sandboxes.create("base", ttl_seconds=600) as sandbox:
        assert get(server, sandbox).status_code == 502
        start(sandbox)
        assert get(server, sandbox, "/a?b").text == "/a?b localhost:8000"
        with server.http() as http:
            assert http.get(f"/sandboxes/{sandbox.id}/proxy/8000/p/q").text == "/p/q localhost:8000"
            assert http.get(f"/sandboxes/{sandbox.id}/proxy/8001/").status_code == 502
        link = sandbox.create_preview(8000)
        assert urllib.request.urlopen(f"{link.url}c?d").read() == b"/c?d localhost:8000"
        sandbox.revoke_preview(link.prefix)
        eventually(lambda: httpx.get(link.url).status_code == 401, 60, "a revoked link is refused")
        argv = [sys.executable, "-m", "pandastack.cli", "port-forward", sandbox.id, "8000:0"]
        environment = {
            **server.installation.environment,
            "PANDASTACK_API": server.url,
            "PANDASTACK_API_KEY": server.token,
        }
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as forward:
            assert forward.stdout is not None
            address = forward.stdout.readline().split()[0]
            for _ in range(2):
                assert httpx.get(f"http://{address}/f", timeout=60).text == f"/f {address}"
            forward.terminate()


def test_a_websocket_outlives_sleep_and_a_killed_server(place: Installation) -> None:
    """One connection of one client from the beginning to the end: hibernated twice, the server killed below it."""
    with serving(place) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        start(sandbox)
        entered = dialled(server, sandbox)
        socket = entered.__enter__()
        said(socket, "before")
        for number in range(2):
            sandbox.hibernate()
            assert sandbox.refresh().status == "hibernated"
            said(socket, f"woke {number}")
            assert sandbox.refresh().status == "running"
        port = door(server)
        server.kill()
        socket.send("said while there is no server")
    with serving(place, **NONE_AHEAD) as (server, client):
        assert door(server) == port
        assert socket.recv(120) == "said while there is no server"
        said(socket, "after")
        checkpoint = client.sandboxes.get(sandbox.id).checkpoint("here").id
        said(socket, "after a checkpoint")
        client.sandboxes.get(sandbox.id).rewind(checkpoint)
        with pytest.raises(ConnectionClosed):
            socket.recv(60)
        client.sandboxes.delete(sandbox.id)
    assert place.left_behind() == []


def test_many_requests_to_a_sleeper_wake_it_once(server: Server, client: Client) -> None:
    with client.sandboxes.create("base", ttl_seconds=600) as sandbox:
        start(sandbox)
        sandbox.hibernate()
        with ThreadPoolExecutor(30) as pool:
            texts = [answer.text for answer in pool.map(lambda _: get(server, sandbox), range(60))]
        assert texts == ["/x localhost:8000"] * 60
        with server.http() as http:
            events = [each["type"] for each in http.get(f"/sandboxes/{sandbox.id}/events").json()["events"]]
        assert events.count("sandbox.woken") == 1


def test_visitors_of_a_sandbox_that_they_do_not_wake(server: Server, client: Client) -> None:
    """Over TLS that a client verifies, answered by a process that has nothing to lose."""
    metadata = {"previews": "private", "wake": "off"}
    with client.sandboxes.create("base", ttl_seconds=600, metadata=metadata) as sandbox:
        start(sandbox)
        link, name = sandbox.create_preview(8000), f"8000-{sandbox.id}.localhost"
        trusting = ssl.create_default_context(cadata=server.installation.cli("ca").stdout)

        def visit(headers: Mapping[str, str]) -> httpx.Response:
            with httpx.Client(verify=trusting, timeout=120) as http:
                return http.get(
                    f"https://127.0.0.1:{door(server)}/x",
                    headers={"Host": name, **headers},
                    extensions={"sni_hostname": name},
                )

        token = {"X-Pandastack-Preview-Token": link.token}
        assert visit({}).status_code == 401
        assert visit(token).text == "/x localhost:8000"
        sandbox.hibernate()
        refused = visit(token)
        assert (refused.status_code, refused.headers["retry-after"], refused.json()["code"]) == (503, "60", "asleep")
        assert sandbox.refresh().status == "hibernated"
        sandbox.exec("true", check=True)
        assert visit(token).status_code == 200
    if facts.is_root():
        (status,) = gateways(server.installation.data)
        assert f"Uid:\t{server.installation.layout.gateway_uid}\t" in status
        assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status


def gateways(data: Path) -> list[str]:
    """What the kernel says of the gateways of a data directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"pandastack.gateway" in words and json.loads(words[-2])["data"] == str(data):
                found.append((process / "status").read_text())
    return found


def test_a_stream_in_a_fork_is_alive_in_the_parent(server: Server, client: Client) -> None:
    with client.sandboxes.create("base", ttl_seconds=600) as sandbox:
        start(sandbox)
        with dialled(server, sandbox) as socket:
            said(socket, "before")
            with sandbox.fork() as child:
                said(socket, "after")
                count = "grep -c ' 01 ' /proc/net/tcp || true"
                eventually(lambda: child.exec(count).stdout == "0\n", 20, "nothing is connected in the child")
                assert get(server, child).status_code == 200  # its server goes on


def test_an_idle_sandbox_sleeps_below_an_open_connection(place: Installation) -> None:
    settings = {"PANDASTACK_IDLE_AFTER": "3"}
    with serving(place, **settings) as (server, client):
        sandbox = client.sandboxes.create("base", persistent=True)
        start(sandbox)
        with dialled(server, sandbox) as socket:
            said(socket, "before")
            eventually(lambda: sandbox.refresh().status == "hibernated", 60, "it is hibernated")
            said(socket, "woken")
        client.sandboxes.delete(sandbox.id)


def test_an_open_connection_keeps_a_sandbox_from_being_deleted(server: Server, client: Client) -> None:
    sandbox = client.sandboxes.create("base", ttl_seconds=60)
    start(sandbox)
    with dialled(server, sandbox) as socket:
        said(socket, "before")
        sandbox.set_ttl(4)
        threading.Event().wait(8)
        assert client.sandboxes.get(sandbox.id).status == "running"
        said(socket, "after")
    eventually(lambda: sandbox.id not in [each.id for each in client.sandboxes.list()], 60, "it is deleted")
