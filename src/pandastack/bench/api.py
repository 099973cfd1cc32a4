"""The measured requests, over kept-alive connections and with the standard library's plain client, so that the server
is measured and not the client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from pandastack import errors


class Api:
    """A workspace of a running server; each thread has a connection of its own."""

    def __init__(self, url: str, token: str, template: str) -> None:
        self._address = url.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._template = template
        self._local = threading.local()

    def create(self, template: str | None = None, **options: Any) -> str:
        body = {"template": template or self._template, "ttl_seconds": 600, "metadata": {"kind": "bench"}}
        return str(self.post("/sandboxes", body | options)["id"])

    @contextmanager
    def sandbox(self, template: str | None = None) -> Iterator[str]:
        """A workspace's connection for as long as the block runs."""
        made = self.create(template)
        try:
            yield made
        finally:
            self.delete(made)

    def execute(self, sandbox: str, cmd: str) -> dict[str, Any]:
        return self.post(f"/sandboxes/{sandbox}/exec", {"cmd": cmd})

    def delete(self, name: str, kind: str = "/sandboxes") -> None:
        self._send("DELETE", f"{kind}/{name}")

    def pid(self, sandbox: str) -> int:
        return int(self.get(f"/sandboxes/{sandbox}/metrics")["pid"])

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._send("GET", path))
        return answer

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The server's answer; an empty answer becomes an empty object."""
        answer: dict[str, Any] = json.loads(self._send("POST", path, body or {}) or b"{}")
        return answer

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._send("PUT", path, body) or b"{}")
        return answer

    def patch(self, path: str, body: dict[str, Any]) -> None:
        self._send("PATCH", path, body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        connection = self._connection()
        connection.request(method, f"/v1{path}", None if body is None else json.dumps(body), self._headers)
        with connection.getresponse() as response:
            answer = response.read()
        if response.status >= 400:
            raise errors.from_body(response.status, json.loads(answer))
        return answer

    def rest(self) -> None:
        """Close this thread's connection before a long pause, in which the server would."""
        self._connection().close()

    def _connection(self) -> HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection(self._address, timeout=60)
        connection: HTTPConnection = self._local.connection
        return connection


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Add the block's milliseconds to ``into``."""
    started = time.perf_counter()
    yield
    into.append((time.perf_counter() - started) * 1000)
