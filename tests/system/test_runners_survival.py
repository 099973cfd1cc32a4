"""The server is killed in the middle of invocations and CI jobs: each ends once, as documented, and nothing is left.

A receiver of webhooks is the witness: events are stored together with what they tell of.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pandastack import Client, ConflictError, PandastackError
from pandastack.host.processes.descriptors import descriptors
from tests.support.installation import Installation, Server, eventually, serving, shelves
from tests.support.receiver import Receiver, receiving

HANDLER = """
import time


def handler(event, context):
    time.sleep(event or 0)
    return event
"""
NOTHING_WAITS = {"PANDASTACK_READY_MACHINES": "0", "PANDASTACK_WEBHOOK_NETWORKS": "127.0.0.0/8"}
"""No machine is made ahead, so that each one has a run, a job or a caller."""
JOB = "echo begun; sleep {}; echo done"
POOL = "survivors"


@dataclass
class Accepted:
    """What servers have promised to do: ids of jobs and of runs."""

    function: str
    jobs: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def prepared(client: Client, receiver: Receiver, *, concurrency: int) -> Accepted:
    """A function, a pool, and the witness."""
    client.webhooks.create(receiver.url, events=["sandbox.created", "run.ended", "job.ended"])
    client.runners.put(POOL, concurrency=concurrency)
    client.runners.refresh(POOL)
    made = client.functions.create(POOL, code=HANDLER, template="base", concurrency=100)
    return Accepted(made["id"])


def events(receiver: Receiver, type: str) -> dict[str, dict[str, Any]]:
    """What was told, by the event's id: a delivery that is repeated is one event."""
    told = {each.id: json.loads(each.body) for each in list(receiver.received)}
    return {event_id: each["data"] for event_id, each in told.items() if each["type"] == type}


def log_of(client: Client, job_id: str) -> str:
    return "".join(text for stream, text in client.jobs.logs(job_id) if stream == "stdout")


def check_jobs(client: Client, accepted: Accepted, receiver: Receiver) -> Counter[str]:
    """Every job has ended once, and its commands have run at most once."""
    states = Counter[str]()
    for job_id in accepted.jobs:
        log, job = log_of(client, job_id), client.jobs.get(job_id)
        states[job["state"]] += 1
        if job["state"] == "succeeded":
            assert log == "begun\ndone\n", job
        else:
            assert (job["state"], job["reason"]) == ("error", "interrupted"), job
            assert log.count("begun") <= 1, log
    eventually(lambda: len(events(receiver, "job.ended")) >= len(accepted.jobs), 30, "every end is told")
    told = Counter(each["id"] for each in events(receiver, "job.ended").values())
    assert told == Counter(accepted.jobs)
    return states


def check_runs(client: Client, accepted: Accepted, receiver: Receiver) -> Counter[str]:
    """Every run has ended once, and had at most one machine."""
    statuses, machines = Counter[str](), []
    for run_id in accepted.runs:
        run = client.functions.wait(accepted.function, run_id)
        statuses[run["status"]] += 1
        machines.append(run["sandbox_id"])
        if run["status"] != "success":
            assert (run["status"], run["error"]) == ("error", "the server ended during the run"), run
    eventually(lambda: len(events(receiver, "run.ended")) >= len(accepted.runs), 30, "every end is told")
    told = Counter(each["id"] for each in events(receiver, "run.ended").values())
    assert told == Counter(accepted.runs)
    made = Counter(each["id"] for each in events(receiver, "sandbox.created").values())
    assert all(made[each] <= 1 for each in machines)
    return statuses


def check_nothing_is_left(client: Client, place: Installation, accepted: Accepted) -> None:
    """Nothing but the version of the pool and that of the function; and when these are deleted, nothing."""
    eventually(lambda: client.sandboxes.list() == [], 30, "no record of a machine is left")
    assert len(shelves(place)) == 2
    client.functions.delete(accepted.function)
    client.runners.delete(POOL)
    eventually(lambda: shelves(place) == [], 30, "the versions are gone")
    for each in client.webhooks.list():
        client.webhooks.delete(each["id"])
    machines = place.layout.engine / "pool" / "machines"
    deadline = time.monotonic() + 60
    while (left := sorted(machines.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [path.read_text() for each in left for path in each.glob("journal.json")] == []
    assert (left, place.machines()) == ([], [])


def test_each_run_and_job_ends_once_when_the_server_is_killed(place: Installation, receiver: Receiver) -> None:
    with serving(place, **NOTHING_WAITS) as (server, client):
        accepted = prepared(client, receiver, concurrency=1)
        running = client.jobs.create(POOL, JOB.format(1000))["id"]
        waiting = client.jobs.create(POOL, JOB.format(0))["id"]
        run = client.functions.start(accepted.function, input=200)
        accepted.jobs, accepted.runs = [running, waiting], [run["id"]]
        next(text for _, text in client.jobs.logs(running) if "begun" in text)
        eventually(lambda: {running, run["sandbox_id"]} <= running_ids(client), 30, "both have machines")
        version = client.runners.get(POOL)["version"]
        server.kill()
    with serving(place, **NOTHING_WAITS) as (server, client):
        run = client.functions.run(accepted.function, run["id"])
        assert client.jobs.get(running)["state"] == run["status"] == "error"
        assert check_jobs(client, accepted, receiver) == {"error": 1, "succeeded": 1}
        assert check_runs(client, accepted, receiver) == {"error": 1}
        eventually(lambda: client.sandboxes.list() == [], 30, "no machine is left")
        client.runners.put(POOL, prepare=["echo begun; sleep 1000"])
        client.runners.refresh(POOL, wait=False)
        assert any("begun" in text for _, text in client.runners.logs(POOL))
        with pytest.raises(ConflictError):
            client.runners.refresh(POOL, wait=False)
        server.kill()
    with serving(place, **NOTHING_WAITS) as (_, client):
        found = client.runners.get(POOL)
        assert found["version"] == version and "server ended" in (found["error"] or "")
        assert client.functions.invoke(accepted.function, input=0)["status"] == "success"
        check_nothing_is_left(client, place, accepted)
    assert place.left_behind() == []


def running_ids(client: Client) -> set[str]:
    return {each.id for each in client.sandboxes.list() if each.status == "running"}


def burst(server: Server, client: Client, accepted: Accepted, chance: random.Random) -> None:
    """Ask for jobs and runs from several sides, and kill the server at some moment meanwhile."""
    taken = [0.1, 1000.0]

    def ask(number: int) -> None:
        with suppress(PandastackError, OSError):
            if number % 2:
                accepted.jobs.append(client.jobs.create(POOL, JOB.format(taken[number % 4 // 2]))["id"])
            else:
                accepted.runs.append(client.functions.start(accepted.function, input=taken[number % 4 // 2] / 10)["id"])

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, number) for number in range(16)]
        time.sleep(chance.uniform(0.05, 4.0))
        server.kill()
    for each in asked:
        each.result()


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_in_a_burst(place: Installation, receiver: Receiver) -> None:
    """What an answer has promised is kept; a request that got none may have made something, which ends as well."""
    chance = random.Random(1)
    with serving(place, **NOTHING_WAITS) as (_, client):
        accepted = prepared(client, receiver, concurrency=4)
    for _round in range(8):
        with serving(place, **NOTHING_WAITS) as (server, client):
            burst(server, client, accepted, chance)
            server.process.wait(30)
    with serving(place, **NOTHING_WAITS) as (_, client):
        unanswered = [each["id"] for each in client.jobs.list(limit=1000) if each["id"] not in accepted.jobs]
        for each in accepted.jobs + unanswered:  # those that were queued begin now, and sleep
            if client.jobs.get(each)["steps"] == [JOB.format(1000.0)]:
                client.jobs.cancel(each)
        for each in accepted.jobs + unanswered:
            log_of(client, each)
        print(report(client, accepted, receiver, place))
        check_nothing_is_left(client, place, accepted)
    assert place.left_behind() == []


def report(client: Client, accepted: Accepted, receiver: Receiver, place: Installation) -> str:
    """Check every job and run, and say how many ended how."""
    jobs = {each: client.jobs.get(each) for each in accepted.jobs}
    for job_id, job in jobs.items():
        log = log_of(client, job_id)
        assert log.count("begun") <= 1, f"it ran twice: {job}"
        possible = {"succeeded": (1,), "error": (0, 1), "cancelled": (0,)}
        assert log.count("done") in possible[job["state"]], job
        assert job["state"] != "error" or job["reason"] == "interrupted", job
    eventually(
        lambda: set(accepted.jobs) <= {each["id"] for each in events(receiver, "job.ended").values()},
        60,
        "all are told",
    )
    told = Counter(each["id"] for each in events(receiver, "job.ended").values())
    assert set(told.values()) == {1}
    with sqlite3.connect(place.data / "pandastack.db") as database:
        runs = [row[0] for row in database.execute("SELECT id FROM function_runs")]
    assert set(accepted.runs) <= set(runs)
    everything = Accepted(accepted.function, runs=runs)
    statuses = check_runs(client, everything, receiver)
    states = Counter(each["state"] for each in jobs.values())
    return f"{len(jobs)} jobs: {dict(states)}; {len(runs)} runs: {dict(statuses)}"


@dataclass(frozen=True)
class Traces:
    """What a running server has: open descriptors, namespaces, directories of machines, rows of each table."""

    descriptors: int
    namespaces: int
    machines: int
    disks: int
    rows: dict[str, int]


def traces(server: Server) -> Traces:
    place = server.installation
    with sqlite3.connect(place.data / "pandastack.db") as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables.remove("idempotency_keys")  # they are kept for a day
        rows = {each: database.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in tables}
    return Traces(
        sum(1 for _ in descriptors(server.process.pid)),
        len(list(Path("/run/netns").glob(f"*{place.layout.tag}*"))),
        len(place.machines()),
        len(list((place.layout.engine / "pool" / "machines").iterdir())) + len(shelves(place)),
        rows,
    )


@pytest.mark.slow
def test_hundreds_of_invocations_leave_nothing(place: Installation) -> None:
    """Fifty at once, then two hundred in a row; after each the same is left, and it is nothing."""
    settings = {"PANDASTACK_READY_MACHINES": "1", "PANDASTACK_MAX_FUNCTION_RUNS": "50"}
    with serving(place, **settings) as (server, client):
        client.sandboxes.create("base").kill()

        def phase(name: str, invoke: Callable[[str], list[str]]) -> Traces:
            made = client.functions.create(name, code=HANDLER, template="base", concurrency=50, timeout_seconds=300)
            began = time.monotonic()
            statuses = Counter(invoke(made["id"]))
            print(f"{name}: {dict(statuses)} in {time.monotonic() - began:.1f} s")
            assert set(statuses) == {"success"}
            client.functions.delete(made["id"])
            eventually(lambda: client.sandboxes.list() == [] and shelves(place) == [], 60, "its machines end")
            eventually(lambda: settled(place), 60, "only machines made ahead are left")
            found = traces(server)
            print(found)
            return found

        def once(function: str) -> str:
            with Client(server.url, server.token, 300, max_create_retry_seconds=0) as own:
                return own.functions.invoke(function, input=0)["status"]

        def at_once(function: str) -> list[str]:
            with ThreadPoolExecutor(50) as threads:
                return list(threads.map(lambda _: once(function), range(50)))

        first = phase("burst", at_once)
        second = phase("row", lambda function: [once(function) for _ in range(200)])
        third = phase("again", at_once)
        for later in (second, third):
            assert (later.rows, later.disks) == (first.rows, later.machines)
            assert later.machines <= first.machines and later.namespaces <= first.namespaces
            assert later.descriptors < first.descriptors + 10
    assert (place.left_behind(), shelves(place)) == ([], [])


def settled(place: Installation) -> bool:
    """Whether there are as many machines as are made ahead, for the template alone."""
    machines = list((place.layout.engine / "pool" / "machines").iterdir())
    found = len(place.machines())
    time.sleep(1)
    return found == len(place.machines()) == len(machines)
