"""A real browser uses a web server in a guest through its preview, before and after the sandbox slept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack import Client, Sandbox
from tests.support import chromium
from tests.support.chromium import Page
from tests.support.installation import Server, eventually

PORT = 8000

SERVER = r'''
import base64, hashlib, http.server, itertools, struct

PAGE = b"""<!doctype html><title>of the guest</title>
<link rel=icon href="data:,"><link rel=stylesheet href=/style.css><p id=text>one</p>
<script>
let waiting = []
const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`)
const opened = new Promise((done, failed) => { socket.onopen = () => done(true); socket.onerror = failed })
socket.onmessage = event => waiting.shift()(event.data)
socket.onclose = () => waiting.forEach(done => done("closed"))
async function say(text) {
  await opened
  return await new Promise(done => { waiting.push(done); socket.send(text) })
}
</script>"""
numbers, visits = itertools.count(1), itertools.count(1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/socket":
            self.upgrade()
        elif self.path == "/style.css":
            self.answer(b"#text { color: rgb(1, 2, 3) }", "text/css")
        elif self.path == "/visits":
            self.answer(b"%d" % next(visits), "text/plain")
        elif self.path == "/headers":
            self.answer(self.headers["Host"].encode(), "text/plain")
        else:
            self.answer(PAGE, "text/html")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"%d %s" % (len(body), hashlib.sha256(body).hexdigest().encode()), "text/plain")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def upgrade(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n\r\n" % accept).encode()
        )
        number, count = next(numbers), itertools.count(1)
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            length = head[1] & 127
            if length == 126:
                length, = struct.unpack("!H", self.rfile.read(2))
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
            if head[0] & 15 == 8:
                return
            if head[0] & 15 == 9:
                self.wfile.write(bytes([0x8A, len(data)]) + data)
            if head[0] & 15 == 1:
                text = b"socket %d message %d: %s" % (number, next(count), data)
                self.wfile.write(bytes([0x81, len(text)]) + text)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
open("/run/ready", "w").close()
server.serve_forever()
'''
"""Loopback only; a WebSocket whose answers say which one it is and how many messages it has had."""

START = "setsid python3 /root/server.py </dev/null >/root/log 2>&1 & until test -e /run/ready; do sleep 0.1; done"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if chromium.PROGRAM is None:
        pytest.skip("this host has no chromium")
    with chromium.chromium(tmp_path) as page:
        yield page


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    """A client that knows where this server's previews are."""
    with Client(api_url=server.url, api_key=server.token, timeout=120) as client:
        client.preview_host = f"localhost:{server.installation.json('status')['ports']['http']}"
        yield client


@pytest.fixture
def site(client: Client) -> Iterator[Sandbox]:
    """A sandbox with the web server in it."""
    with client.sandboxes.create("base", persistent=True, ttl_seconds=3600) as sandbox:
        sandbox.filesystem.write("/root/server.py", SERVER.encode())
        sandbox.exec(START, check=True, timeout_seconds=60)
        yield sandbox
    sandbox.kill()


def said(page: Page, text: str) -> str:
    return str(page.evaluate(f"say({text!r})"))


def asleep(client: Client, sandbox: Sandbox) -> bool:
    return client.sandboxes.get(sandbox.id).status == "hibernated"


def test_a_browser_uses_a_server_in_a_guest_before_and_after_it_slept(
    client: Client, site: Sandbox, page: Page
) -> None:
    url = site.preview_url(PORT)
    assert f"{PORT}-{site.id}.localhost:" in url
    for turn in (1, 2):
        page.open(url)
        assert page.evaluate("document.title") == "of the guest"
        style = "getComputedStyle(document.getElementById('text')).color"
        assert page.evaluate(style) == "rgb(1, 2, 3)"
        assert said(page, "hello") == f"socket {turn} message 1: hello"
        assert page.evaluate("fetch('/visits').then(answer => answer.text())") == str(turn)
        large = "fetch('/upload', {method: 'POST', body: new Uint8Array(3000000)}).then(answer => answer.text())"
        assert page.evaluate(large).startswith("3000000 ")
        if turn == 1:
            site.hibernate()
            assert asleep(client, site)
    assert not asleep(client, site)


def test_an_open_websocket_of_a_browser_outlives_the_sleep(client: Client, site: Sandbox, page: Page) -> None:
    page.open(site.preview_url(PORT))
    assert said(page, "before") == "socket 1 message 1: before"
    for count in (2, 3):
        site.hibernate()
        assert asleep(client, site)
        assert page.evaluate("socket.readyState") == 1
        # What is sent now waits at the gateway until the sandbox is awake.
        assert said(page, "after") == f"socket 1 message {count}: after"
        assert not asleep(client, site)


def test_a_fork_has_no_websocket_of_its_parent(client: Client, site: Sandbox, page: Page) -> None:
    page.open(site.preview_url(PORT))
    assert said(page, "before") == "socket 1 message 1: before"
    child = site.fork()
    try:
        assert said(page, "after") == "socket 1 message 2: after"
        sockets = "ss -Htn state established sport = :8000 | wc -l"
        eventually(lambda: child.exec(sockets, check=True).stdout.strip() == "0", 60, "the child's end is closed")
        page.open(child.preview_url(PORT))
        assert said(page, "hello") == "socket 2 message 1: hello"
    finally:
        child.kill()
