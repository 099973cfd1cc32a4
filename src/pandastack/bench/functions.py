"""``bench functions``: deploys and calls of functions, in turns with bare restores of the same template.

One function has imported pandas and the other nothing: a call of both costs the same if no call imports.
"""

from __future__ import annotations

import base64
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.bench.subject import open_floor
from pandastack.engine.layout import Layout
from pandastack.errors import PandastackError

TEMPLATE = "code-interpreter"
BURST = 10
SETTLE_SECONDS = 3.0
"""Seconds without requests before each call: a machine that waits is replaced in that time, if one waits."""

PANDAS = "import pandas\n\ndef handler(event, context):\n    return int(pandas.Series(event).sum())\n"
EMPTY = "def handler(event, context):\n    return sum(event)\n"
_EVENT, _RESULT = [1, 2, 3], 6


@dataclass
class Samples:
    """Milliseconds; rates in calls per second."""

    floor: list[float] = field(default_factory=list)
    deploy: list[float] = field(default_factory=list)
    pandas: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    floor_rate: list[float] = field(default_factory=list)


async def bench(
    layout: Layout, api: Api, n: int, progress: Callable[[str], None]
) -> tuple[dict[str, object], list[Row]]:
    """The facts of this machine, and the report's rows. Needs a running server."""
    async with open_floor(layout, TEMPLATE) as (floor, machine), open_floor(layout, TEMPLATE, 2) as (second, _):
        samples = await anyio.to_thread.run_sync(measure, api, (floor, second), n, progress)
    return machine, rows(samples)


def measure(api: Api, floors: Sequence[Floor], n: int, progress: Callable[[str], None]) -> Samples:
    """``n`` calls of each function, in turns with the floor, then a burst, and calls by as many clients as there are
    floors, which are measured at once as well."""
    samples, floor = Samples(), floors[0]
    floor.measure()  # the first restore reads the image from the disk
    with _function(api, EMPTY, None) as empty, _function(api, PANDAS, samples.deploy) as pandas:
        for number in range(n):
            progress(f"call {number + 1} of {n}")
            samples.floor.append(floor.measure())
            for function, into in ((pandas, samples.pandas), (empty, samples.empty)):
                time.sleep(SETTLE_SECONDS)
                with timed(into):
                    samples.inside.append(call(api, function))
        progress(f"{BURST} calls at once")
        samples.burst = _at_once(api, pandas)
        progress(f"{n} calls by each of {len(floors)} clients")
        time.sleep(SETTLE_SECONDS)
        samples.rate = [_rate([lambda: call(api, pandas)] * len(floors), n)]
        samples.floor_rate = [_with_call(_rate([each.measure for each in floors], n), len(floors), samples.inside)]
    return samples


def call(api: Api, function: str) -> float:
    """One call; the milliseconds that the function itself took. Raises :class:`PandastackError` for a wrong result."""
    run = api.post(f"/functions/{function}/invoke", {"input": _EVENT})
    if run["status"] != "success" or run["result"] != _RESULT:
        raise PandastackError(f"the function failed: {run.get('error') or run['result']}")
    return float(run["duration_ms"])


@contextmanager
def _function(api: Api, source: str, into: list[float] | None) -> Iterator[str]:
    code = base64.b64encode(source.encode()).decode()
    body = {"name": f"bench-{uuid.uuid4().hex[:8]}", "runtime": "python", "code": code, "concurrency": BURST}
    with timed([] if into is None else into):
        made = api.post("/functions", body)["id"]
    try:
        yield made
    finally:
        api.delete(made, "/functions")


def _at_once(api: Api, function: str) -> list[float]:
    took: list[float] = []

    def one() -> None:
        with timed(took):
            call(api, function)

    _threads([one] * BURST)
    if len(took) < BURST:
        raise PandastackError(f"only {len(took)} of {BURST} calls at once succeeded")
    return took


def _rate(clients: Sequence[Callable[[], float]], n: int) -> float:
    """How many calls a second all clients together make, each ``n``, one after the other."""
    done: list[float] = []

    def work(one: Callable[[], float]) -> None:
        for _ in range(n):
            done.append(one())

    began = time.perf_counter()
    _threads([partial(work, each) for each in clients])
    took = time.perf_counter() - began
    if len(done) < n * len(clients):
        raise PandastackError(f"only {len(done)} of {n * len(clients)} calls succeeded")
    return len(done) / took


def _with_call(rate: float, clients: int, inside: Sequence[float]) -> float:
    """The rate of bare restores if a call followed each, which takes what it took in a machine that was alone."""
    return clients / (clients / rate + statistics.median(inside) / 1000)


def _threads(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def rows(samples: Samples) -> list[Row]:
    """The report's rows; calls are compared with the floor."""
    return [
        summarize("floor", "ms", samples.floor),
        summarize("function_deploy", "ms", samples.deploy),
        summarize("function_call", "ms", samples.pandas, samples.floor),
        summarize("function_call_empty", "ms", samples.empty, samples.floor),
        summarize("function_itself", "ms", samples.inside),
        summarize("function_burst", "ms", samples.burst, samples.floor),
        summarize("function_calls_per_s", "1/s", samples.rate, samples.floor_rate),
    ]
