"""``bench create``: how long until there is a sandbox, and what it costs to use, keep and end one.

Floor and create are measured in turns in one run, so that a host whose speed drifts does not favour either.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from pandastack import errors
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.host.usage import private_bytes

PARALLEL = 4


@dataclass
class Samples:
    """Milliseconds, unless the name says otherwise."""

    floor: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    create_first_exec: list[float] = field(default_factory=list)
    delete: list[float] = field(default_factory=list)
    exec_warm: list[float] = field(default_factory=list)
    exec_host_share: list[float] = field(default_factory=list)
    create_parallel_per_s: list[float] = field(default_factory=list)
    idle_private_mb: list[float] = field(default_factory=list)
    cold_boot: list[float] = field(default_factory=list)


class Api:
    """The requests that are measured, over one kept-alive connection a thread and with the standard library's plain
    client: what is measured is the server."""

    def __init__(self, url: str, token: str, template: str) -> None:
        self._address = url.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._template = template
        self._local = threading.local()

    def create(self) -> str:
        body = {"template": self._template, "ttl_seconds": 600, "metadata": {"kind": "bench"}}
        return str(self._json("POST", "/v1/sandboxes", body)["id"])

    def execute(self, sandbox: str, cmd: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/sandboxes/{sandbox}/exec", {"cmd": cmd})

    def delete(self, sandbox: str) -> None:
        self._send("DELETE", f"/v1/sandboxes/{sandbox}")

    def pid(self, sandbox: str) -> int:
        return int(self._json("GET", f"/v1/sandboxes/{sandbox}/metrics")["pid"])

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._send(method, path, body))
        return answer

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        connection = self._connection()
        connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        with connection.getresponse() as response:
            answer = response.read()
        if response.status >= 400:
            raise errors.from_body(response.status, json.loads(answer))
        return answer

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


def measure(api: Api, floor: Floor, n: int) -> Samples:
    """All measures but the cold boot. ``n`` creates, in turns with as many bare restores."""
    samples = Samples()
    floor.measure()  # the first restore reads the image from the disk
    _one(api, Samples())
    for _ in range(n):
        samples.floor.append(floor.measure())
        _one(api, samples)
    _warm(api, samples, n)
    _parallel(api, samples)
    _idle(api, samples)
    return samples


def _one(api: Api, samples: Samples) -> None:
    """One sandbox from create to delete, one command in between."""
    with timed(samples.create_first_exec):
        with timed(samples.create):
            sandbox = api.create()
        api.execute(sandbox, "true")
    with timed(samples.delete):
        api.delete(sandbox)


def _warm(api: Api, samples: Samples, n: int) -> None:
    """A command that does nothing, again and again: what the guest does not account for is the host's share."""
    sandbox = api.create()
    for _ in range(3):
        api.execute(sandbox, "true")
    for _ in range(n):
        with timed(samples.exec_warm):
            answer = api.execute(sandbox, "true")
        samples.exec_host_share.append(samples.exec_warm[-1] - answer["guest_us"] / 1000)
    api.delete(sandbox)


def _parallel(api: Api, samples: Samples, rounds: int = 5) -> None:
    """Creates per second with :data:`PARALLEL` requests under way at any time."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in range(rounds):
            count = 4 * PARALLEL
            started = time.perf_counter()
            made = list(pool.map(lambda _: api.create(), range(count)))
            samples.create_parallel_per_s.append(count / (time.perf_counter() - started))
            list(pool.map(api.delete, made))


def _idle(api: Api, samples: Samples, count: int = 10) -> None:
    """Memory that would be free again without the sandbox, in megabytes, for sandboxes that ran nothing."""
    made = [api.create() for _ in range(count)]
    samples.idle_private_mb = [private_bytes(api.pid(sandbox)) / 1e6 for sandbox in made]
    for sandbox in made:
        api.delete(sandbox)


def rows(samples: Samples) -> list[Row]:
    """The report's rows; creates are held against the floor."""
    floor = samples.floor
    return [
        summarize("floor", "ms", floor),
        summarize("create", "ms", samples.create, floor),
        summarize("create_first_exec", "ms", samples.create_first_exec, floor),
        summarize("exec_warm", "ms", samples.exec_warm),
        summarize("exec_host_share", "ms", samples.exec_host_share),
        summarize("delete", "ms", samples.delete),
        summarize("create_parallel_per_s", "1/s", samples.create_parallel_per_s),
        summarize("idle_private_mb", "MB", samples.idle_private_mb),
        summarize("cold_boot", "ms", samples.cold_boot),
    ]
