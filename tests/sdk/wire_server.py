"""A real HTTP server that answers what a test tells it to, in order, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RECORD = {
    "id": "0b5f",
    "template": "base",
    "cpu": 2,
    "memory_mb": 256,
    "status": "running",
    "persistent": False,
}

FILE = {"kind": "file", "size": 3, "mode": "-rw-r--r--", "uid": 0, "gid": 0, "mtime": 1.5}
_ADDED = {"path": "/a", "kind": "file", "change": "added", "what": [], "before": None, "after": FILE, "patch": "+a\n"}
_CHANGED = {"kind": "file", "change": "changed", "what": ["content"], "before": FILE, "after": FILE, "unread": True}
DIFF = {
    "from": "k1",
    "to": "now",
    "added": 1,
    "removed": 0,
    "changed": 7,
    "changes": [_ADDED, {"path": "/b", **_CHANGED}],
    "truncated": True,
}


@dataclass(frozen=True)
class Reply:
    """``body`` is sent as JSON unless it is bytes; ``cut`` breaks the connection off within the body.

    With ``endless`` it is sent again and again until the client leaves.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    endless: bool = False

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class WireServer:
    """The script and the record; ``url`` is where it listens."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._replies: deque[Reply] = deque()

    def will(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    def next_reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        unscripted = Reply(500, {"error": f"the test did not expect {asked.method} {asked.path}"})
        return self._replies.popleft() if self._replies else unscripted

    @property
    def lines(self) -> list[str]:
        return [f"{each.method} {each.path}" for each in self.asked]

    @property
    def unused(self) -> int:
        return len(self._replies)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wire: WireServer

    def _answer(self) -> None:
        chunked = self.headers.get("transfer-encoding") == "chunked"
        body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers.get("content-length") or 0))
        reply = self.wire.next_reply(Asked(self.command, self.path, dict(self.headers), body))
        content = reply.content()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.endless:
            self._repeat(content)
            return
        if reply.status != 204:
            self.send_header("Content-Length", str(len(content) + reply.cut))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = reply.cut

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _repeat(self, content: bytes) -> None:
        self.close_connection = True
        self.end_headers()  # without a length the body ends with the connection
        with suppress(ConnectionError):
            while True:
                self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving() -> Iterator[WireServer]:
    """A server for the length of a block; a scripted reply that nobody asked for fails the test."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire = Handler.wire = WireServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield wire
        assert wire.unused == 0, f"{wire.unused} scripted replies were never asked for; asked: {wire.lines}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sse(*events: tuple[str, object]) -> bytes:
    """The body of an event stream."""
    return b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)
