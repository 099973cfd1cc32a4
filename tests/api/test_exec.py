"""Commands on the wire: what a caller is told, event by event."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from pandastack.contract.events import MachineDied
from pandastack.contract.failures import Failure
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, Output, Record
from pandastack.errors import NotFoundError, ServerError
from pandastack.services.files.search import MOST_FOUND
from pandastack.services.processes.spec import Command
from tests.cluster.scripted_engine import Records, result
from tests.support.api import SETTINGS, Api, refusal
from tests.support.plane import OUTSIDER

pytestmark = pytest.mark.anyio


def script(*pieces: Record | bytes) -> Records:
    async def records(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        for piece in pieces:
            yield piece

    return records


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream; every frame must look exactly as clients split it."""
    assert text.endswith("\n\n")
    events = []
    for frame in text[:-2].split("\n\n"):
        if not frame.startswith(":"):
            name, data = frame.split("\n")
            assert name.startswith("event: ") and data.startswith("data: ")
            events.append((name[7:], json.loads(data[6:])))
    return events


async def stream(api: Api, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    response = await api.http.post(await api.sandbox() + "/exec/stream", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert response.content.isascii()
    return parse(response.text)


async def test_the_outcome_of_a_command(api: Api) -> None:
    api.engine.exec_records = script(Output(STDOUT, b"a\xff"), Output(STDERR, "ü".encode()), result(3))
    response = await api.http.post(await api.sandbox() + "/exec", json={"cmd": "x", "args": ["ignored"]})
    assert response.status_code == 200
    answer = response.json()
    assert uuid.UUID(answer.pop("process_id"))
    assert answer == {"stdout": "a�", "stderr": "ü", "exit_code": 3, "duration_ms": 2, "guest_us": 1500}


async def test_the_command_reaches_the_engine(api: Api) -> None:
    seen: list[ExecSpec] = []

    async def records(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        seen.append(spec)
        yield result()

    api.engine.exec_records = records
    path = await api.sandbox()
    for limit in (None, 0, 2.5):
        await api.http.post(f"{path}/exec", json={"cmd": "echo 'ü'", "timeout_seconds": limit})
    assert len({each.id for each in seen}) == 3
    always = ExecSpec(cmd="echo 'ü'", keep_bytes=64 * 1024 * 1024, spool=True, leave=True)
    expected = [always, always, replace(always, timeout_seconds=2.5)]
    assert [replace(each, id=None) for each in seen] == expected


async def test_a_timeout_is_a_500_with_what_was_written_until_then(api: Api) -> None:
    api.engine.exec_records = script(Output(STDOUT, b"half"), result(137, timed_out=True))
    response = await api.http.post(await api.sandbox() + "/exec", json={"cmd": "x", "timeout_seconds": 10})
    assert response.status_code == 500
    body = response.json()
    assert body["error"] == "command timeout after 10s"
    assert (body["stdout"], body["stderr"], body["code"]) == ("half", "", "command_timeout")


async def test_output_over_the_limit_is_cut_and_says_so(api: Api) -> None:
    size = SETTINGS.max_output_bytes * 3
    api.engine.exec_records = script(Output(STDOUT, b"x" * size), Output(STDERR, b"fine"), result(0))
    body = (await api.http.post(await api.sandbox() + "/exec", json={"cmd": "x"})).json()
    dropped = size - SETTINGS.max_output_bytes
    assert body["stdout"] == (
        "x" * SETTINGS.max_output_bytes + f"\n[pandastack: output truncated, {dropped} of {size} bytes dropped]\n"
    )
    assert (body["stderr"], body["exit_code"], body["truncated"]) == ("fine", 0, {"stdout": size})


@pytest.mark.parametrize("data", [b"\0" * 3000, b"\xff" * 3000, '"\\\n\u2028é😀'.encode() * 300])
async def test_output_that_is_longer_as_json_fits_a_limit_too(api: Api, data: bytes) -> None:
    api.engine.exec_records = script(Output(STDOUT, data), result(0))
    response = await api.http.post(await api.sandbox() + "/exec", json={"cmd": "x"})
    assert len(response.content) == int(response.headers["content-length"]) < 2 * SETTINGS.max_output_bytes + 400
    kept = response.json()["stdout"].partition("\n[pandastack")[0]
    assert len(kept) > 300 and data.decode(errors="replace").startswith(kept)


async def test_output_that_nobody_fetches_is_bounded_and_then_commands_are_refused(api: Api) -> None:
    path = await api.sandbox()
    sandbox_id = path.rpartition("/")[2]
    plane = api.app.state.plane
    with closing(plane.output_budget.lease(sandbox_id)) as lease:
        assert lease.take(SETTINGS.max_sandbox_buffer_bytes)
        for route, body in (("/exec", {"cmd": "x"}), ("/repl", {"code": "1"})):
            answer = refusal(await api.http.post(path + route, json=body), 429)
            assert answer["code"] == "quota_exceeded" and "PANDASTACK_MAX_BUFFER_BYTES" in answer["hint"]
        assert not api.engine.exec_begun.is_set()
        other = await api.http.post(await api.sandbox() + "/exec", json={"cmd": "x"})
        assert other.status_code == 200
    assert (await api.http.post(path + "/exec", json={"cmd": "x"})).json()["stdout"] == "hello\n"
    with pytest.raises(NotFoundError):
        await plane.commands.run(OUTSIDER, sandbox_id, Command("x"))


async def test_whatever_becomes_of_an_answer_its_output_counts_no_longer(api: Api) -> None:
    path, plane = await api.sandbox(), api.app.state.plane
    for records in (script(result(0)), script(result(1, timed_out=True)), script(Output(STDOUT, b"x" * 5000))):
        api.engine.exec_records = records
        await api.http.post(path + "/exec", json={"cmd": "x"})
    api.engine.exec_silent = True
    with anyio.move_on_after(0.2):
        await api.http.post(path + "/exec", json={"cmd": "x"})
    for each in (SETTINGS.max_sandbox_buffer_bytes, 0):
        with closing(plane.output_budget.lease(path.rpartition("/")[2])) as lease:
            assert lease.take(each)


@pytest.mark.parametrize("route", ["/exec", "/exec/stream"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"cmd": ""}', "cmd"),
        ("{}", "cmd"),
        ('{"cmd": 5}', "cmd"),
        ('{"cmd": "a\\u0000b"}', "cmd"),
        ('{"cmd": "x", "timeout_seconds": -1}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": NaN}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": Infinity}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": 1e400}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": 1e12}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": true}', "timeout_seconds"),
        ('{"cmd": "x", "timeout_seconds": "soon"}', "timeout_seconds"),
    ],
)
async def test_a_wrong_command_is_refused_before_it_runs(api: Api, route: str, body: str, field: str) -> None:
    response = await api.http.post(await api.sandbox() + route, content=body)
    assert response.status_code == 400
    assert response.json()["field"] == field
    assert not api.engine.exec_ended.is_set()


async def test_a_failed_sandbox_says_why_with_409(api: Api) -> None:
    path = await api.sandbox()
    event = MachineDied(path.rpartition("/")[2], 7, "killed")
    with anyio.fail_after(30):
        async with api.http.stream("GET", f"{path}/events?follow=1") as following:
            await api.engine.announce(event)
            async for line in following.aiter_lines():
                if "vm.died" in line:
                    break
    for route in ("/exec", "/exec/stream"):
        response = await api.http.post(path + route, json={"cmd": "true"})
        assert response.status_code == 409
        assert "killed" in response.json()["error"]
    assert (await api.http.get(path)).json()["reason"] == "killed"


async def test_a_stream_of_output(api: Api) -> None:
    umlaut = "ü".encode()
    api.engine.exec_records = script(
        Output(STDOUT, b"a" + umlaut[:1]), Output(STDERR, b"\xff"), Output(STDOUT, umlaut[1:]), result(5)
    )
    assert await stream(api, cmd="x") == [
        ("stdout", {"chunk": "a", "end": 1}),
        ("stderr", {"chunk": "�", "end": 1}),
        ("stdout", {"chunk": "ü", "end": 3}),
        ("exit", {"exit_code": 5, "duration_ms": 2}),
    ]


async def test_line_separators_that_cut_events_are_escaped(api: Api) -> None:
    text = "a\u0085b\u2028c\u2029d\re\nf"
    api.engine.exec_records = script(Output(STDOUT, text.encode()), result())
    assert (await stream(api, cmd="x"))[0] == ("stdout", {"chunk": text, "end": 16})


async def test_an_unfinished_character_comes_before_the_exit(api: Api) -> None:
    api.engine.exec_records = script(Output(STDOUT, b"\xc3"), result())
    assert [name for name, _ in await stream(api, cmd="x")] == ["stdout", "exit"]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((result(137, timed_out=True),), "timeout"),
        ((ExecFailed(Failure.of(ServerError("the shell is gone"))),), "the shell is gone"),
        ((Output(STDOUT, b"x"),), "unknown"),
        ((b"\x09garbage......",), "malformed"),
    ],
)
async def test_whatever_goes_wrong_the_stream_ends_with_an_error(
    api: Api, pieces: tuple[Record | bytes, ...], words: str
) -> None:
    api.engine.exec_records = script(*pieces)
    events = await stream(api, cmd="x", timeout_seconds=10)
    assert events[-1][0] == "error"
    assert words in events[-1][1]["error"]
    assert "exit" not in [name for name, _ in events]


async def test_a_silent_command_keeps_the_connection_alive(api: Api) -> None:
    pinged = anyio.Event()

    async def records(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        await pinged.wait()
        yield result()

    api.engine.exec_records = records
    with anyio.fail_after(30):
        async with api.http.stream("POST", await api.sandbox() + "/exec/stream", json={"cmd": "x"}) as response:
            text = ""
            async for chunk in response.aiter_text():
                text += chunk
                if ": ping\n\n" in text:
                    pinged.set()
    assert parse(text)[-1][0] == "exit"


async def test_a_client_that_leaves_cancels_the_command(api: Api) -> None:
    async def records(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"x")
        await anyio.sleep_forever()

    api.engine.exec_records = records
    path = await api.sandbox()
    async with api.http.stream("POST", f"{path}/exec/stream", json={"cmd": "x"}) as response:
        await anext(response.aiter_raw())
    with anyio.fail_after(30):
        await api.engine.exec_ended.wait()


async def test_a_client_that_leaves_before_the_engine_answers_cancels_the_command(api: Api) -> None:
    api.engine.exec_silent = True
    path = await api.sandbox()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(api.http.post, f"{path}/exec/stream", json={"cmd": "x"}))
            await api.engine.exec_begun.wait()
            tasks.cancel_scope.cancel()
        await api.engine.exec_ended.wait()


async def test_a_running_command_holds_the_idle_clock(api: Api) -> None:
    go_on = anyio.Event()

    async def records(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"x")
        await go_on.wait()
        yield result()

    api.engine.exec_records = records
    path = await api.sandbox()
    activity = api.app.state.plane.sandboxes._activity
    async with api.http.stream("POST", f"{path}/exec/stream", json={"cmd": "x"}) as response:
        assert activity.busy(path.rpartition("/")[2])
        go_on.set()
        await response.aread()
    await anyio.wait_all_tasks_blocked()
    assert not activity.busy(path.rpartition("/")[2])


@pytest.mark.parametrize("follow", ["1", "true"])
async def test_a_followed_console_shows_whole_lines_as_they_come(api: Api, follow: str) -> None:
    path = await api.sandbox()
    api.engine.console = "old\npart"
    with anyio.fail_after(30):
        async with api.http.stream("GET", f"{path}/logs", params={"follow": follow, "stream": "both"}) as response:
            lines = response.aiter_lines()
            seen = ""
            async for line in lines:
                seen += line
                if "old" in line:
                    api.engine.show("ial\nnew\n")
                if "new" in line:
                    break
    assert '{"line": "old\\n"}' in seen
    assert '{"line": "partial\\n"}' in seen


async def test_a_followed_log_of_events_ends_with_the_sandbox(api: Api) -> None:
    path = await api.sandbox()
    with anyio.fail_after(30):
        async with api.http.stream("GET", f"{path}/events?follow=true") as response:
            assert (await api.http.delete(path)).status_code == 204
            events = parse((await response.aread()).decode())
    assert [(name, data["type"]) for name, data in events] in ([("event", "sandbox.running")], [])


async def test_a_search_returns_a_bounded_number_of_bytes(api: Api) -> None:
    """A guest may claim long lines without end; it is told to stop when there is enough."""
    line = b"/f\0001:" + b"x" * 100_000 + b"\n"

    async def records(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        while True:
            yield Output(STDOUT, line)

    api.engine.exec_records = records
    with anyio.fail_after(60):
        url = await api.sandbox() + "/fs/search"
        answer = (await api.http.get(url, params={"path": "/", "text": "x", "limit": 10_000})).json()
    assert answer["truncated"] is True
    assert MOST_FOUND * 0.99 < sum(len(each["text"]) for each in answer["matches"]) * 4 <= MOST_FOUND
