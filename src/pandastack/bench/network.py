"""``bench network``: what a network costs at create, and what goes through it.

Creates with each kind of policy alternate with the floor. What guests send goes to an outside world on this host:
directly, translated by the kernel (*NAT*), and through the proxy, where a name decides. The two alternate as well.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.outside import TCP_PORT, UDP_PORT, Outside
from pandastack.bench.probe import end_streams, install, probe, start_stream
from pandastack.bench.report import Row, summarize
from pandastack.bench.slots import Slots
from pandastack.errors import PandastackError

DOMAIN = "bench.example.org"
"""The world's DNS server knows it and every name below it."""

NAMES = {DOMAIN: ("public",), f"*.{DOMAIN}": ("public",)}

POLICIES: dict[str, Any] = {
    "none": "none",
    "allow": "allow",
    "deny": "deny",
    "list": {"egress": {"allow": [f"{DOMAIN}:{TCP_PORT}/tcp", f"*.{DOMAIN}", "203.0.113.0/24:443/tcp"]}},
}
"""What sandboxes are created with, by the row's name."""

IN_A_ROW = 30
MEGABYTES = 8
CONNECTIONS = 10
TRIPS = 50
QUERIES = 20

QUIET_SECONDS = 0.4
"""A stream without a piece for so long has been cut."""

STREAM_SECONDS = 20.0
"""Until a stream has begun, or has been cut; one that has not by then is reported as an error."""


class Samples(defaultdict[str, list[float]]):
    """Samples by the row's name: milliseconds, unless :func:`unit` says otherwise."""

    def __init__(self) -> None:
        super().__init__(list)


@dataclass(frozen=True)
class Subject:
    """What is measured: a server, the bare restore to compare it with, and the world that its guests reach."""

    api: Api
    floor: Floor
    outside: Outside


def measure(subject: Subject, n: int, progress: Callable[[str], None]) -> Samples:
    """All measures, ``n`` times. Those of names are left out, and ``progress`` told, where the server's resolver does
    not ask the world's."""
    samples = Samples()
    few = max(3, n // 4)
    progress(f"{n} creates with each kind of policy")
    _creates(subject, samples, n)
    progress(f"{IN_A_ROW} creates in a row")
    _creates_in_a_row(subject.api, samples)
    with _sandbox(subject.api, "allow") as direct, _sandbox(subject.api, "list") as named:
        ways = {"nat": (direct, subject.outside.public)}
        if _knows_names(subject.api, named):
            ways["proxy"] = (named, DOMAIN)
        else:
            progress(f"names are not measured: start the server with PANDASTACK_RESOLVERS={subject.outside.public}")
        progress(f"{', '.join(ways)}: connections and transfers")
        for round_number in range(few + 1):
            # Code that runs for the first time is translated: the first round is none.
            _transfers(subject.api, samples if round_number else Samples(), ways)
        if "proxy" in ways:
            progress("names")
            _names(subject.api, samples, named)
        _counters(subject.api, samples, direct, ways["nat"][1])
        progress(f"changes of policy, {few} times")
        for round_number in range(few):
            for way, (sandbox, host) in ways.items():
                _changes(subject, samples, way, sandbox, host, round_number)
    return samples


def _creates(subject: Subject, samples: Samples, n: int) -> None:
    api, kinds = subject.api, list(POLICIES)
    subject.floor.measure()  # the first restore reads the image from the disk
    for kind in kinds:
        api.delete(api.create(network=POLICIES[kind]))
    for round_number in range(n):
        samples["floor"].append(subject.floor.measure())
        # No kind always comes first after the floor, or after the same other one.
        for step in range(len(kinds)):
            kind = kinds[(round_number + step * (1 + round_number % 2 * 2)) % len(kinds)]
            with timed(samples[f"create_{kind}"]):
                sandbox = api.create(network=POLICIES[kind])
            api.delete(sandbox)


def _creates_in_a_row(api: Api, samples: Samples) -> None:
    """Without a pause and without a delete: faster than machines and slots can be made anew."""
    made: list[str] = []
    try:
        began = time.perf_counter()
        for _ in range(IN_A_ROW):
            with timed(samples["create_in_a_row"]):
                made.append(api.create())
        samples["creates_in_a_row_per_s"].append(IN_A_ROW / (time.perf_counter() - began))
    finally:
        for sandbox in made:
            api.delete(sandbox)


@contextmanager
def _sandbox(api: Api, kind: str) -> Iterator[str]:
    """A sandbox with a policy and the measuring program."""
    sandbox = api.create(network=POLICIES[kind])
    try:
        install(api, sandbox)
        yield sandbox
    finally:
        api.delete(sandbox)


def _knows_names(api: Api, sandbox: str) -> bool:
    try:
        return bool(probe(api, sandbox, "dns", DOMAIN, 1, 0))
    except PandastackError:
        return False


def _transfers(api: Api, samples: Samples, ways: dict[str, tuple[str, str]]) -> None:
    for verb, count in (("connect", CONNECTIONS), ("latency", TRIPS), ("upload", MEGABYTES), ("download", MEGABYTES)):
        for way, (sandbox, host) in ways.items():
            samples[f"{way}_{verb}"] += probe(api, sandbox, verb, host, count)


def _names(api: Api, samples: Samples, sandbox: str) -> None:
    """Names that the resolver has to ask for, and one that it was asked for before."""
    probe(api, sandbox, "dns", f"*.{DOMAIN}", QUERIES, 0)
    samples["dns"] += probe(api, sandbox, "dns", f"*.{DOMAIN}", QUERIES, QUERIES)
    samples["dns_again"] += probe(api, sandbox, "dns", DOMAIN, QUERIES, 0)


def _counters(api: Api, samples: Samples, sandbox: str, host: str) -> None:
    """Bytes counted over bytes sent and received: above 1 by the headers."""
    before = api.get(f"/sandboxes/{sandbox}/network")
    for verb in ("upload", "download"):
        probe(api, sandbox, verb, host, MEGABYTES)
    with timed(samples["network_get"]):
        after = api.get(f"/sandboxes/{sandbox}/network")
    for way in ("out", "in"):
        counted = int(after[f"bytes_{way}"]) - int(before[f"bytes_{way}"])
        samples[f"counted_{way}"].append(counted / (MEGABYTES << 20))


def _changes(subject: Subject, samples: Samples, way: str, sandbox: str, host: str, round_number: int) -> None:
    """From the request that forbids what streams flow to, until the last piece of them came."""
    ports = {"udp": UDP_PORT, "tcp": TCP_PORT} if way == "nat" else {"tcp": TCP_PORT}
    keys = {kind: f"{way}{kind}{round_number}" for kind in ports}
    for kind, port in ports.items():
        start_stream(subject.api, sandbox, keys[kind], host, port)
    for key in keys.values():
        _wait(partial(_flows, subject.outside, key), "a stream from the guest begins")
    policy = f"/sandboxes/{sandbox}/network"
    began = time.time()
    with timed(samples[f"{way}_policy_put"]):
        subject.api.put(policy, {"egress": "deny"})
    for kind, key in keys.items():
        _wait(partial(_is_quiet, subject.outside, key), "a denied stream ends")
        samples[f"{way}_policy_bites_{kind}"].append(max(0.0, (subject.outside.stamps(key)[1] - began) * 1000))
    end_streams(subject.api, sandbox)
    subject.api.put(policy, {"egress": "allow"} if way == "nat" else POLICIES["list"])


def _flows(outside: Outside, key: str) -> bool:
    return outside.stamps(key)[0] > 20


def _is_quiet(outside: Outside, key: str) -> bool:
    return time.time() - outside.stamps(key)[1] > QUIET_SECONDS


def _wait(holds: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + STREAM_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise PandastackError(f"not within {STREAM_SECONDS:g} s: {what}")
        time.sleep(0.02)


def rows(samples: Samples) -> list[Row]:
    """The report's rows. ``create_none`` is compared with the floor, other creates with it; the proxy with NAT; creates
    in a row with the slots that a pool can make."""
    return [summarize(name, unit(name), values, samples.get(_base(name))) for name, values in samples.items() if values]


def with_slots(samples: Samples, slots: Slots) -> Samples:
    """The samples, after those of slots."""
    found = Samples()
    found["slot_ready"] += slots.ready
    found["slot_made"] += slots.made
    found["slots_made_per_s"] += slots.made_per_s
    found.update(samples)
    return found


def _base(name: str) -> str:
    if name == "create_none":
        return "floor"
    if name in ("create_allow", "create_deny", "create_list"):
        return "create_none"
    if name == "creates_in_a_row_per_s":
        return "slots_made_per_s"
    return name.replace("proxy_", "nat_") if name.startswith("proxy_") else ""


def unit(name: str) -> str:
    """Of a row."""
    if name.endswith("_per_s"):
        return "1/s"
    if name.endswith(("_upload", "_download")):
        return "MB/s"
    return "×" if name.startswith("counted_") else "ms"
