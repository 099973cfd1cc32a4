"""Processes that outlive whoever looks at them: the client, the server, the machine."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pandastack import Client, Sandbox
from tests.support.installation import Create, Installation, Server

MIB = 1024 * 1024
COUNT = "for i in $(seq 1 30); do echo line $i; echo err $i >&2; sleep 0.1; done; exit 7"
SLOWLY = COUNT.replace("0.1", "0.2")
"""It goes on counting while a server is killed and the next one starts."""
COUNTED = "".join(f"line {number}\n" for number in range(1, 31))


class Box:
    """A sandbox's processes over bare HTTP."""

    def __init__(self, http: httpx.Client, sandbox: str) -> None:
        self.http = http
        self.path = f"/sandboxes/{sandbox}/processes"

    def start(self, cmd: str, **options: Any) -> dict[str, Any]:
        answer = self.http.post(self.path, json={"cmd": cmd, **options})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def all(self) -> dict[str, Any]:
        return dict(self.http.get(self.path).raise_for_status().json())

    def get(self, process: str | int) -> dict[str, Any]:
        return dict(self.http.get(f"{self.path}/{process}").raise_for_status().json())

    def wait(self, process: str, seconds: float = 60) -> dict[str, Any]:
        answer = self.http.post(f"{self.path}/{process}/wait", json={"timeout_seconds": seconds})
        return dict(answer.raise_for_status().json())

    def output(self, process: str, offset: int = 0, stream: str = "stdout") -> bytes:
        query = {"offset": offset, "stream": stream, "follow": 1, "format": "bytes"}
        return self.http.get(f"{self.path}/{process}/output", params=query).raise_for_status().content

    def events(self, process: str, **query: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.http.stream("GET", f"{self.path}/{process}/output", params={"follow": 1, **query}) as response:
            assert response.status_code == 200
            yield from events(response)


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@pytest.fixture
def box(http: httpx.Client, sandbox: Sandbox) -> Box:
    return Box(http, sandbox.id)


def test_a_process_has_a_record(box: Box) -> None:
    started = box.start("cat >/dev/null; head -c 3000000 /dev/zero | sha256sum; exit 3", stdin=True, cwd="/tmp")
    assert (started["status"], started["exit_code"], started["stdin_open"]) == ("running", None, True)
    assert box.http.post(f"{box.path}/{started['id']}/stdin?close=1", content=b"abc").json() == {"bytes": 3}
    ended = box.wait(started["id"])
    assert (ended["status"], ended["exit_code"], ended["timed_out"]) == ("exited", 3, False)
    assert ended["usage"]["peak_rss_kb"] > 0
    assert ended["usage"]["cpu_user_ms"] + ended["usage"]["cpu_system_ms"] > 0
    assert ended["output"]["stdout"] == {"start": 0, "end": 68}
    assert box.get(started["pid"])["id"] == started["id"]
    listed = box.all()
    assert started["id"] in {each["id"] for each in listed["processes"]}
    assert listed["retention"]["records"] > 0


def test_exec_leaves_a_record_under_the_callers_id(box: Box, sandbox: Sandbox) -> None:
    chosen = str(uuid.uuid4())
    answer = box.http.post(f"/sandboxes/{sandbox.id}/exec", json={"cmd": "echo hello", "id": chosen})
    assert answer.json()["process_id"] == chosen
    assert box.output(chosen) == b"hello\n"
    again = box.http.post(f"/sandboxes/{sandbox.id}/exec", json={"cmd": "echo twice", "id": chosen})
    assert again.status_code == 409


def test_environment_directory_user_and_deadline(box: Box) -> None:
    done = box.start('echo "$A $PWD $(id -un)"; sleep 60', env={"A": "b"}, cwd="/tmp", user="nobody", timeout_seconds=1)
    ended = box.wait(done["id"])
    assert (ended["timed_out"], ended["user"], ended["timeout_seconds"]) == (True, "nobody", 1.0)
    assert box.output(done["id"]) == b"b /tmp nobody\n"


def test_signals_reach_the_group(box: Box) -> None:
    started = box.start("trap 'echo got; exit 9' USR1; echo on; while :; do sleep 0.05; done")
    assert next(iter(box.events(started["id"])))[1]["chunk"] == "on\n"
    assert box.http.post(f"{box.path}/{started['id']}/signal", json={"signal": "USR1"}).status_code == 204
    assert box.wait(started["id"])["exit_code"] == 9
    assert box.output(started["id"]) == b"on\ngot\n"
    assert box.http.post(f"{box.path}/{started['id']}/signal", json={"signal": "TERM"}).status_code == 409


def test_whoever_feeds_what_does_not_eat_may_leave(box: Box) -> None:
    started = box.start("sleep 2; head -c 400000 | wc -c", stdin=True)
    with pytest.raises(httpx.TimeoutException):
        box.http.post(f"{box.path}/{started['id']}/stdin", content=b"x" * 400_000, timeout=0.5)
    answer = box.http.post(f"{box.path}/{started['id']}/stdin", content=b"y" * 400_000)
    assert answer.status_code in (200, 409)  # it took what it wanted and ended
    assert box.wait(started["id"])["exit_code"] == 0
    assert box.output(started["id"]) == b"400000\n"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"cmd": ""}, "cmd"),
        ("", {"cmd": "true", "id": "no"}, "id"),
        ("", {"cmd": "true", "cwd": "relative"}, "cwd"),
        ("", {"cmd": "true", "timeout_seconds": -1}, "timeout_seconds"),
        ("", {"cmd": "true", "env": {"A=B": "c"}}, "env"),
        ("", {"cmd": "true", "pty": True, "rows": 70000}, "rows"),
        ("/1/signal", {"signal": "NOPE"}, "signal"),
        ("/1/wait", {"timeout_seconds": 1e9}, "timeout_seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(box: Box, path: str, body: dict[str, Any], field: str) -> None:
    answer = box.http.post(box.path + path, json=body)
    assert (answer.status_code, answer.json().get("field")) == (400, field)


def test_unknown_processes_are_not_found(box: Box) -> None:
    for unknown in (str(uuid.uuid4()), "999999", "..%2f..%2fetc"):
        assert box.http.get(f"{box.path}/{unknown}").status_code == 404
        assert box.http.get(f"{box.path}/{unknown}/output").status_code == 404


def test_a_reader_goes_on_where_it_stopped(box: Box) -> None:
    started = box.start("seq 1 60000")
    whole = "".join(f"{number}\n" for number in range(1, 60001)).encode()
    box.wait(started["id"])
    for offset in (0, 7, 65536, len(whole) - 3, len(whole)):
        assert box.output(started["id"], offset) == whole[offset:]
    last = box.http.get(f"{box.path}/{started['id']}/output", params={"offset": -6})
    assert last.content == b"60000\n"
    assert last.headers["x-pandastack-offset"] == str(len(whole) - 6)


def test_a_character_is_not_cut_at_any_border(box: Box) -> None:
    started = box.start(
        "for i in $(seq 1 40); do printf '\\360\\237'; sleep 0.01; printf '\\220\\274'; done; printf '\\377'"
    )
    chunks = [data for name, data in box.events(started["id"]) if name == "stdout"]
    assert "".join(each["chunk"] for each in chunks) == "🐼" * 40 + "\N{REPLACEMENT CHARACTER}"
    assert [each["end"] % 4 for each in chunks[:-1]] == [0] * (len(chunks) - 1)


def test_a_broken_stream_goes_on_at_its_end(box: Box, sandbox: Sandbox) -> None:
    order = {"cmd": COUNT, "on_disconnect": "keep"}
    got, end = "", 0
    with box.http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json=order) as response:
        process = response.headers["x-pandastack-process"]
        for name, data in events(response):
            if name == "stdout":
                got, end = got + data["chunk"], data["end"]
            if end > 20:
                break
    for name, data in box.events(process, stream="stdout", offset=end):
        if name == "stdout":
            got += data["chunk"]
    assert (name, data["exit_code"]) == ("exit", 7)
    assert got == COUNTED


def test_a_client_that_leaves_a_stream_ends_its_command(box: Box, sandbox: Sandbox) -> None:
    with box.http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json={"cmd": "echo on; sleep 60"}) as response:
        process = response.headers["x-pandastack-process"]
        next(events(response))
    ended = box.wait(process)
    assert (ended["cancelled"], ended["exit_code"]) == (True, 137)


def test_beyond_what_is_kept_the_gap_is_said(http: httpx.Client, create: Create) -> None:
    box = Box(http, create().id)
    started = box.start(f"head -c {200 * MIB} /dev/zero; echo the end")
    end = 200 * MIB + 8
    ended = box.wait(started["id"], 120)
    assert ended["output"]["stdout"]["end"] == end
    start = ended["output"]["stdout"]["start"]
    assert end - 66 * MIB < start <= end - 64 * MIB
    names = [
        (name, data) for name, data in box.events(started["id"], stream="stdout", offset=start - 10) if name != "stdout"
    ]
    assert names[0] == ("gap", {"stream": "stdout", "start": start - 10, "end": start})
    assert names[-1][0] == "exit"
    with http.stream("GET", f"{box.path}/{started['id']}/output") as response:
        assert int(response.headers["x-pandastack-offset"]) == start
        size = sum(len(chunk) for chunk in response.iter_raw())
    assert size == end - start
    assert len(http.post(f"/sandboxes/{box.path.split('/')[2]}/exec", json={"cmd": "df /"}).json()["stdout"]) > 0


def test_a_gigabyte_slows_nobody_and_a_reader_that_stalls_neither(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    box = Box(http, sandbox.id)
    with http.stream("POST", f"{box.path[: -len('/processes')]}/exec/stream", json={"cmd": "cat /dev/zero"}) as stalled:
        reader = stalled.iter_raw()  # kept: a generator that is dropped closes its response
        next(reader)
        assert sandbox.exec("echo quick", timeout_seconds=30).stdout == "quick\n"
        with http.stream(
            "POST",
            f"/sandboxes/{sandbox.id}/exec/stream",
            json={"cmd": "head -c 1000000000 /dev/zero | tr '\\0' a | head -c 30000000"},
        ) as big:
            total = sum(len(data.get("chunk", "")) for _, data in events(big))
    assert total == 30_000_000


def test_hibernation_keeps_processes_and_their_output(http: httpx.Client, create: Create) -> None:
    sandbox = create(persistent=True)
    box = Box(http, sandbox.id)
    started = box.start(COUNT)
    quick = box.start("echo done")
    box.wait(quick["id"])
    assert next(iter(box.events(started["id"])))[0] in ("stdout", "stderr")
    sandbox.hibernate()
    sandbox.wake()
    assert box.wait(started["id"])["exit_code"] == 7
    assert box.output(started["id"]).decode() == COUNTED
    assert box.output(quick["id"]) == b"done\n"


def test_a_stream_that_a_hibernation_broke_goes_on_where_it_was(http: httpx.Client, create: Create) -> None:
    sandbox = create(persistent=True)
    got, end, last = "", 0, ""
    with http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json={"cmd": COUNT}) as response:
        process = response.headers["x-pandastack-process"]
        for last, data in events(response):
            if last == "stdout":
                if not got:
                    sandbox.hibernate()
                got, end = got + data["chunk"], data["end"]
    assert last == "error"
    box = Box(http, sandbox.id)
    assert got + box.output(process, end).decode() == COUNTED  # which wakes it
    ended = box.get(process)
    assert (ended["exit_code"], ended["cancelled"]) == (7, False)


def test_a_fork_has_the_processes_but_knows_whose_they_were(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    box = Box(http, sandbox.id)
    started = box.start(COUNT)
    child = sandbox.fork()
    try:
        copy = Box(http, child.id)
        own = copy.start("echo own")
        assert copy.get(started["id"])["inherited"]
        assert not copy.get(own["id"])["inherited"]
        assert not box.get(started["id"])["inherited"]
        for each in (box, copy):
            assert each.wait(started["id"])["exit_code"] == 7
            assert each.output(started["id"]).decode() == COUNTED
    finally:
        child.kill()


def test_a_process_keeps_its_sandbox_from_being_idle_but_not_in_the_background(
    http: httpx.Client, create: Create
) -> None:
    busy, idle = create(ttl_seconds=1), create(ttl_seconds=1)
    started = Box(http, busy.id).start("sleep 4; echo there")
    Box(http, idle.id).start("sleep 60", background=True)
    with http.stream("GET", f"/sandboxes/{idle.id}/events", params={"follow": 1}) as response:
        for _ in events(response):
            pass  # until it is gone
    assert http.get(f"/sandboxes/{idle.id}").status_code == 404
    assert Box(http, busy.id).output(started["id"]) == b"there\n"


def test_a_killed_server_loses_neither_output_nor_exit_code(place: Installation) -> None:
    """By the stream's own count, by the start of a synchronous command, and for one that nobody looked at."""
    chosen = str(uuid.uuid4())
    with place.serving() as server, Client(server.url, server.token) as client, server.http() as http:
        sandbox = client.sandboxes.create("base", persistent=True)
        box = Box(http, sandbox.id)
        alone = box.start(SLOWLY)
        waiting = box.start("read line; echo got $line", stdin=True)
        got, end = "", 0
        with (
            suppress(httpx.HTTPError),
            http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json={"cmd": SLOWLY}) as response,
        ):
            streamed = response.headers["x-pandastack-process"]
            _ask_and_leave(server, sandbox.id, chosen)
            for name, data in events(response):
                if name == "stdout":
                    got, end = got + data["chunk"], data["end"]
                if end > 30 and server.process.poll() is None:
                    server.kill()
    with place.serving() as server, Client(server.url, server.token) as client, server.http() as http:
        box = Box(http, sandbox.id)
        for process in (alone["id"], chosen, streamed):
            assert box.wait(process)["exit_code"] == 7
        assert box.output(alone["id"]).decode() == COUNTED
        assert box.output(chosen).decode() == COUNTED
        assert got + box.output(streamed, end).decode() == COUNTED
        assert box.output(chosen, stream="stderr").decode() == COUNTED.replace("line", "err")
        assert http.post(f"{box.path}/{waiting['id']}/stdin?close=1", content=b"more\n").json() == {"bytes": 5}
        assert box.output(waiting["id"]) == b"got more\n"
        client.sandboxes.delete(sandbox.id)


def test_a_deadline_is_kept_while_the_server_is_away(place: Installation) -> None:
    with place.serving() as server, Client(server.url, server.token) as client, server.http() as http:
        sandbox = client.sandboxes.create("base", persistent=True)
        started = Box(http, sandbox.id).start("trap '' TERM; echo on; sleep 600", timeout_seconds=3)
        server.kill()
    time.sleep(6)  # nobody is there to be told
    with place.serving() as server, Client(server.url, server.token) as client, server.http() as http:
        ended = Box(http, sandbox.id).get(started["id"])
        assert (ended["status"], ended["timed_out"], ended["exit_code"]) == ("exited", True, 137)
        assert Box(http, sandbox.id).output(started["id"]) == b"on\n"
        client.sandboxes.delete(sandbox.id)


def _ask_and_leave(server: Server, sandbox: str, process: str) -> None:
    """A synchronous command whose caller goes away before the answer."""
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/v1/sandboxes/{sandbox}/exec"
    with suppress(httpx.TimeoutException):
        httpx.post(url, json={"cmd": SLOWLY, "id": process}, headers=headers, timeout=0.5)


def test_limits_are_refused_with_their_setting(place: Installation) -> None:
    few = replace(place, settings={**place.settings, "PANDASTACK_MAX_PROCESSES": "2", "PANDASTACK_MAX_STREAMS": "1"})
    with (
        few.serving() as server,
        Client(server.url, server.token) as client,
        server.http() as http,
        client.sandboxes.create("base") as sandbox,
    ):
        box = Box(http, sandbox.id)
        started = [box.start("sleep 60", background=True) for _ in range(2)]
        refused = http.post(box.path, json={"cmd": "true"})
        assert (refused.status_code, "PANDASTACK_MAX_PROCESSES" in refused.json()["hint"]) == (429, True)
        with http.stream("GET", f"{box.path}/{started[0]['id']}/output", params={"follow": 1}) as held:
            reader = held.iter_raw()
            next(reader)
            refused = http.post(f"/sandboxes/{sandbox.id}/exec", json={"cmd": "true"})
            assert (refused.status_code, "retry-after" in refused.headers) == (429, False)
