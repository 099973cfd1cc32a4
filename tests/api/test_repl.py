"""Code over the HTTP API, with an engine whose guests say what a test scripts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, Output, Record
from tests.cluster.scripted_engine import result
from tests.support.api import Api

ANSWER = {
    "stdout": "out\n",
    "stderr": "",
    "exit": 0,
    "error": None,
    "results": [{"text/plain": "42"}],
    "duration_ms": 7,
    "cells": 1,
    "timed_out": False,
    "restarted": False,
}


class Kernels:
    """A guest's kernels that do what they are told, and remember what they were asked."""

    def __init__(self, api: Api) -> None:
        self.asked: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.ran: dict[str, Any] = ANSWER
        api.engine.kernels = self.answer

    def answer(self, asked: dict[str, Any]) -> list[bytes]:
        self.asked.append(asked)
        match asked["op"]:
            case "open":
                self.sessions.append({"id": asked["id"], "language": asked["language"], "created_at": 1e9, "cells": 0})
                return [line(self.sessions[-1])]
            case "list":
                return [line({"sessions": self.sessions})]
            case "run":
                return [line({"started": True}), line(self.ran)[:5], line(self.ran)[5:]]
            case "interrupt":
                return [line({"interrupted": True})]
            case "variables":
                return [line({"variables": [{"name": "x", "type": "int", "shape": None, "repr": "1"}]})]
        return [line({})]


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


@pytest.fixture
def kernels(api: Api) -> Kernels:
    return Kernels(api)


async def test_a_session_from_its_beginning_to_its_end(api: Api, kernels: Kernels) -> None:
    url = f"{await api.sandbox()}/repl/sessions"
    opened = await api.http.post(url, json={"language": "py"})
    session = opened.json()
    assert opened.status_code == 201 and session["id"] == session["session_id"]
    assert (session["language"], session["cells"], session["created_at"]) == ("python", 0, "2001-09-09T01:46:40.000Z")
    assert [each["id"] for each in (await api.http.get(url)).json()] == [session["id"]]
    ran = await api.http.post(f"{url}/{session['id']}/run", json={"code": "6*7"})
    assert ran.json() == {
        "stdout": "out\n",
        "stderr": "",
        "exit": 0,
        "exit_code": 0,
        "error": None,
        "results": [{"text/plain": "42"}],
        "duration_ms": 7,
        "cells": 1,
        "restarted": False,
    }
    assert kernels.asked[-1] == {"op": "run", "id": session["id"], "code": "6*7", "timeout_ms": 30000}
    assert (await api.http.post(f"{url}/{session['id']}/interrupt")).json() == {"interrupted": True}
    assert (await api.http.get(f"{url}/{session['id']}/variables")).json()["variables"][0]["name"] == "x"
    assert (await api.http.delete(f"{url}/{session['id']}")).status_code == 204


async def test_a_timeout_says_so(api: Api, kernels: Kernels) -> None:
    kernels.ran = ANSWER | {"timed_out": True, "exit": 1, "error": "KeyboardInterrupt"}
    answer = await api.http.post(f"{await api.sandbox()}/repl/sessions/1/run", json={"code": "x", "timeout_ms": 2000})
    assert (answer.status_code, answer.json()["error"]) == (500, "cell timeout after 2s")
    assert answer.json()["stdout"] == "out\n"
    kernels.ran |= {"restarted": True}
    answer = await api.http.post(f"{await api.sandbox()}/repl/sessions/1/run", json={"code": "x", "timeout_ms": 1500})
    assert "after 1.5s" in answer.json()["error"] and "lost" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/repl", {"language": "cobol", "code": "1"}, "language"),
        ("/repl/sessions", {"language": "ruby"}, "language"),
        ("/repl/sessions", {"language": ""}, "language"),
        ("/repl/sessions/1/run", {"code": ""}, "code"),
        ("/repl/sessions/1/run", {"code": " \n"}, "code"),
        ("/repl/sessions/1/run", {}, "code"),
        ("/repl/sessions/1/run", {"code": "1", "timeout_ms": 0}, "timeout_ms"),
        ("/repl/sessions/1/run", {"code": "1", "timeout_ms": -5}, "timeout_ms"),
        ("/repl/sessions/1/run", {"code": "1", "timeout_ms": True}, "timeout_ms"),
        ("/repl/sessions/1/run", {"code": "1", "timeout_ms": 10**12}, "timeout_ms"),
        ("/repl/sessions/1/run", {"code": "1", "checkpoint": "yes"}, "checkpoint"),
    ],
)
async def test_bad_input_never_reaches_the_guest(api: Api, kernels: Kernels, path: str, body: Any, field: str) -> None:
    answer = await api.http.post(await api.sandbox() + path, json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert kernels.asked == []


@pytest.mark.parametrize(("code", "status"), [("not_found", 404), ("too_many", 429), ("missing", 400), ("failed", 500)])
async def test_refusals_of_the_guest(api: Api, code: str, status: int) -> None:
    api.engine.kernels = lambda _: [line({"error": "no", "code": code})]
    url = f"{await api.sandbox()}/repl/sessions"
    assert (await api.http.post(url, json={})).status_code == status or code == "not_found"
    assert (await api.http.post(f"{url}/1/run", json={"code": "1"})).status_code == status
    assert (await api.http.delete(f"{url}/1")).status_code == status


@pytest.mark.parametrize("said", [[], [b"{"], [b"garbage\n"], [b'{"started": true}\n', b"{}\n"], [b"\n" * 5]])
async def test_a_guest_that_answers_nonsense(api: Api, said: list[bytes]) -> None:
    api.engine.kernels = lambda _: said
    answer = await api.http.post(f"{await api.sandbox()}/repl/sessions/1/run", json={"code": "1"})
    assert (answer.status_code, answer.json()["code"]) == (502, "guest_error")


async def test_a_template_without_kernels(api: Api) -> None:
    async def refuse(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        assert "start.sh" in spec.cmd
        yield result(3)

    api.engine.exec_records = refuse
    url = f"{await api.sandbox()}/repl/sessions"
    assert (await api.http.get(url)).json() == []
    answer = await api.http.post(url, json={"language": "bash"})
    assert answer.status_code == 400 and "code-interpreter" in answer.json()["hint"]


async def test_kernels_that_were_not_baked_in_are_started(api: Api) -> None:
    async def start(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        Kernels(api)
        yield result(0)

    api.engine.exec_records = start
    assert (await api.http.post(f"{await api.sandbox()}/repl/sessions", json={})).status_code == 201


async def test_a_checkpoint_after_a_cell(api: Api, kernels: Kernels) -> None:
    url = await api.sandbox()
    ran = await api.http.post(f"{url}/repl/sessions/1/run", json={"code": "x = 1\ny = 2", "checkpoint": True})
    (kept,) = (await api.http.get(f"{url}/checkpoints")).json()["checkpoints"]
    assert (ran.json()["checkpoint_id"], kept["label"]) == (kept["id"], "cell 1: x = 1\\ny = 2")


async def test_one_piece_of_code(api: Api) -> None:
    commands: list[ExecSpec] = []

    async def run(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        commands.append(spec)
        yield Output(STDOUT, b"hi\n")
        yield result(3)

    api.engine.exec_records = run
    answer = await api.http.post(f"{await api.sandbox()}/repl", json={"code": "print('hi')"})
    expected = {"language": "python", "stdout": "hi\n", "stderr": "", "exit_code": 3, "duration_ms": 2}
    assert answer.json() == expected
    assert (commands[0].cmd, commands[0].stdin) == ("python3 -", b"print('hi')")
    assert "python" in (await api.http.get("/v1/repl/languages")).json()


@pytest.mark.parametrize(("found", "status"), [(0, 200), (1, 400)])
async def test_a_missing_interpreter_is_told_from_a_program_that_ends_with_127(
    api: Api, found: int, status: int
) -> None:
    async def run(spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield result(found if "command -v" in spec.cmd else 127)

    api.engine.exec_records = run
    answer = await api.http.post(f"{await api.sandbox()}/repl", json={"code": "1", "language": "ruby"})
    assert answer.status_code == status
    assert status == 200 or answer.json()["field"] == "language"
