"""``bench exec``: the cost of a command, its output, a file and a key beyond that of the guest and its channel.

Raw and real transfers alternate in one run, on two copies of the same guest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from websockets.sync.client import connect

from pandastack.bench import tunnel
from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.raw import RawChannel, bare_machine
from pandastack.bench.report import Row, summarize
from pandastack.bench.tunnel import Rates

AT_ONCE = 50
BOXES = 10
STREAM_MB = 24
FILE_MB = 16
_TEXT = "/run/bench-text"
_FILE = "/run/bench-file"
_MAKE = f"yes 'the quick brown fox jumps over the lazy dog' | head -c {STREAM_MB}000000 > {_TEXT}"
_SHOW = f"cat {_TEXT}"


@dataclass
class Samples:
    """Milliseconds or MB/s or commands per second, as the names say."""

    warm_ms: list[float] = field(default_factory=list)
    host_share_ms: list[float] = field(default_factory=list)
    in_one_per_s: list[float] = field(default_factory=list)
    across_ten_per_s: list[float] = field(default_factory=list)
    stream: list[float] = field(default_factory=list)
    raw_stream: list[float] = field(default_factory=list)
    download: list[float] = field(default_factory=list)
    raw_download: list[float] = field(default_factory=list)
    upload: list[float] = field(default_factory=list)
    raw_upload: list[float] = field(default_factory=list)
    tunnel: Rates = field(default_factory=Rates)
    echo_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Wire:
    """Transfers over plain HTTP and WebSockets, with a minimal client."""

    url: str
    token: str

    def stream(self, sandbox: str, cmd: str) -> float:
        """MB/s of a command's output by ``exec/stream``, not counting the events' own bytes."""
        body = b'{"cmd": "%s"}' % cmd.encode()
        started = time.perf_counter()
        self._request("POST", f"/v1/sandboxes/{sandbox}/exec/stream", body)
        return STREAM_MB / (time.perf_counter() - started)

    def download(self, sandbox: str, path: str) -> float:
        """MB/s of reading a file."""
        started = time.perf_counter()
        size = self._request("GET", f"/v1/sandboxes/{sandbox}/fs?path={quote(path)}")
        return size / 1e6 / (time.perf_counter() - started)

    def upload(self, sandbox: str, path: str, data: bytes) -> float:
        """MB/s of writing a file."""
        started = time.perf_counter()
        self._request("PUT", f"/v1/sandboxes/{sandbox}/fs?path={quote(path)}", data)
        return len(data) / 1e6 / (time.perf_counter() - started)

    def echoes(self, sandbox: str, n: int) -> list[float]:
        """Milliseconds from a key to the terminal's response, for ``n`` keys."""
        url = f"ws{self.url.removeprefix('http')}/v1/sandboxes/{sandbox}/exec/pty?cmd=cat"
        samples: list[float] = []
        with connect(url, additional_headers={"Authorization": f"Bearer {self.token}"}, compression=None) as socket:
            for _ in range(n + 3):
                with timed(samples):
                    socket.send(b"x")
                    socket.recv()
        return samples[3:]

    def _request(self, method: str, path: str, body: bytes | None = None) -> int:
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=120)
        connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
        size = 0
        with connection.getresponse() as response:
            while chunk := response.read1(1 << 20):
                size += len(chunk)
        connection.close()
        return size


def measure(api: Api, wire: Wire, floor: Floor, n: int) -> Samples:
    """All measures: ``n`` samples of short ones, half or a quarter as many of long ones."""
    samples = Samples()
    sandbox = api.create()
    _warm(api, samples, sandbox, n)
    samples.echo_ms = wire.echoes(sandbox, 2 * n)
    with bare_machine(floor) as raw:
        _transfers(api, wire, raw, samples, sandbox, max(5, n // 2))
        samples.tunnel = tunnel.measure(raw, max(5, n // 2))
    _at_once(api, samples.in_one_per_s, [sandbox], max(3, n // 4))
    others = [api.create() for _ in range(BOXES)]
    _at_once(api, samples.across_ten_per_s, others, max(3, n // 4))
    for each in (sandbox, *others):
        api.delete(each)
    return samples


def _warm(api: Api, samples: Samples, sandbox: str, n: int) -> None:
    for _ in range(3):
        api.execute(sandbox, "true")
    for _ in range(n):
        with timed(samples.warm_ms):
            answer = api.execute(sandbox, "true")
        samples.host_share_ms.append(samples.warm_ms[-1] - answer["guest_us"] / 1000)


def _transfers(api: Api, wire: Wire, raw: RawChannel, samples: Samples, sandbox: str, n: int) -> None:
    data = bytes(FILE_MB * 1_000_000)
    api.execute(sandbox, _MAKE)
    raw.command(_MAKE)
    wire.stream(sandbox, _SHOW)  # code is translated when it first runs
    raw.command(_SHOW)
    for _ in range(n):
        samples.raw_stream.append(raw.command(_SHOW))
        samples.stream.append(wire.stream(sandbox, _SHOW))
    api.execute(sandbox, f"rm {_TEXT}")
    raw.command(f"rm {_TEXT}")
    for _ in range(n):
        samples.raw_upload.append(raw.upload(_FILE, data))
        samples.upload.append(wire.upload(sandbox, _FILE, data))
        samples.raw_download.append(raw.download(_FILE))
        samples.download.append(wire.download(sandbox, _FILE))


def _at_once(api: Api, into: list[float], sandboxes: Sequence[str], rounds: int) -> None:
    """Commands per second with :data:`AT_ONCE` running at once, spread over ``sandboxes``."""
    targets: list[Any] = [sandboxes[number % len(sandboxes)] for number in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for round_number in range(rounds + 1):
            started = time.perf_counter()
            list(pool.map(lambda each: api.execute(each, "true"), targets))
            if round_number:  # the first request connects
                into.append(AT_ONCE / (time.perf_counter() - started))


def rows(samples: Samples) -> list[Row]:
    """The report's rows; transfers are compared with the raw channel."""
    return [
        summarize("exec_warm", "ms", samples.warm_ms),
        summarize("exec_host_share", "ms", samples.host_share_ms),
        summarize("exec_50_in_one_per_s", "1/s", samples.in_one_per_s),
        summarize("exec_50_across_ten_per_s", "1/s", samples.across_ten_per_s),
        summarize("channel_out", "MB/s", samples.raw_stream),
        summarize("exec_stream", "MB/s", samples.stream, samples.raw_stream),
        summarize("file_download", "MB/s", samples.download, samples.raw_download),
        summarize("file_upload", "MB/s", samples.upload, samples.raw_upload),
        summarize("tunnel_download", "MB/s", samples.tunnel.download, samples.tunnel.raw_download),
        summarize("tunnel_upload", "MB/s", samples.tunnel.upload, samples.tunnel.raw_upload),
        summarize("pty_echo", "ms", samples.echo_ms),
    ]
