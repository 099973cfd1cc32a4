"""Sessions of code: what is sent, and what is made of the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pandastack import AsyncClient, AsyncSandbox, CodeContext, Execution, Sandbox, SandboxTimeout, ServerError
from pandastack.errors import QuotaError
from tests.sdk.wire_server import RECORD, Reply, WireServer

SESSIONS = "/v1/sandboxes/0b5f/repl/sessions"
RAN = {"stdout": "o", "stderr": "e", "exit": 1, "exit_code": 0, "error": "Traceback", "duration_ms": 5}


@pytest.fixture
def context(sandbox: Sandbox) -> CodeContext:
    return CodeContext(sandbox, "s1")


@pytest.mark.parametrize(
    ("asked", "sent"), [("python", "python"), ("Python3", "python"), ("py", "python"), ("sh", "bash"), ("ruby", "ruby")]
)
def test_a_session_is_opened_and_closed(sandbox: Sandbox, wire: WireServer, asked: str, sent: str) -> None:
    wire.will(Reply(201, {"id": "s1", "session_id": "s1"}), Reply(204))
    with sandbox.create_code_context(asked) as context:
        assert (context.id, context.language) == ("s1", sent)
    assert json.loads(wire.asked[0].body) == {"language": sent}
    assert wire.lines == [f"POST {SESSIONS}", f"DELETE {SESSIONS}/s1"]


def test_more_than_it_may_have(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(429, {"error": "at most 8", "code": "quota_exceeded"}))
    with pytest.raises(QuotaError):
        sandbox.create_code_context()


@pytest.mark.parametrize(
    ("arguments", "body"),
    [({}, {}), ({"timeout_seconds": 2.5}, {"timeout_ms": 2500})],
)
def test_a_cell(context: CodeContext, wire: WireServer, arguments: dict[str, Any], body: dict[str, Any]) -> None:
    wire.will(Reply(200, RAN | {"results": [{"type": "text/plain", "data": "1"}], "checkpoint_id": "c"}))
    ran = context.run_code("1/0", **arguments)
    wire.will(Reply(200, RAN))
    context.run_code_and_checkpoint("1/0", **arguments)
    assert json.loads(wire.asked[1].body) == {"code": "1/0", **body, "checkpoint": True}
    assert (ran.stdout, ran.stderr, ran.exit_code, ran.error) == ("o", "e", 1, "Traceback")
    assert (ran.text, ran.logs, ran.checkpoint_id) == ("1", {"stdout": "o", "stderr": "e"}, "c")
    assert json.loads(wire.asked[0].body) == {"code": "1/0", **body}
    assert wire.lines == [f"POST {SESSIONS}/s1/run"] * 2


def test_both_shapes_of_results() -> None:
    made = Execution.from_dict(
        {
            "results": [
                {"type": "image/png", "data": "iVBOR"},
                {"text/plain": "t", "text/html": "<b>", "application/json": '{"a": [1]}', "text/latex": "$x$"},
                {"application/vnd.pandastack.chart+json": '{"axes": []}', "image/svg+xml": "<svg/>"},
                {"application/json": "no json", "text/markdown": "*m*"},
                "nonsense",
            ]
        }
    )
    picture, values, chart, other = made.results
    assert (made.png, made.text, picture.chart, picture.text) == ("iVBOR", "t", "iVBOR", None)
    assert (values.html, values.json, values.latex, values.chart) == ("<b>", {"a": [1]}, "$x$", None)
    assert (chart.chart_data, chart.chart, chart.svg) == ({"axes": []}, "<svg/>", "<svg/>")
    assert (other.json, other.markdown, other.jpeg) == ("no json", "*m*", None)
    assert Execution.from_dict({}) == Execution()


def test_a_timeout(context: CodeContext, wire: WireServer) -> None:
    wire.will(Reply(500, {"error": "cell timeout after 2s", "code": "command_timeout"}))
    with pytest.raises(SandboxTimeout, match="2s"):
        context.run_code("while True: pass", timeout_seconds=2)
    wire.will(Reply(500, {"error": "the kernels failed", "code": "server_error"}))
    with pytest.raises(ServerError, match="failed"):
        context.run_code("1")


def test_interrupt_variables_and_what_there_is(sandbox: Sandbox, context: CodeContext, wire: WireServer) -> None:
    shown = {"name": "x", "type": "int", "shape": None, "repr": "1"}
    wire.will(
        Reply(200, {"interrupted": True}),
        Reply(200, {"variables": [shown]}),
        Reply(200, [{"id": "s1", "language": "bash"}]),
    )
    assert context.interrupt() is True
    assert context.variables() == [shown]
    assert [(each.id, each.language) for each in sandbox.code_contexts()] == [("s1", "bash")]


GONE = Reply(404, {"error": "no such session", "code": "not_found"})


@pytest.mark.parametrize("replies", [[GONE, GONE], [Reply(500)]])
def test_closing_never_fails(context: CodeContext, wire: WireServer, replies: list[Reply]) -> None:
    wire.will(*replies)
    context.close()


@pytest.mark.anyio
async def test_the_waiting_flavour(async_client: AsyncClient, wire: WireServer) -> None:
    wire.will(Reply(201, {"id": "s1"}), Reply(200, RAN), Reply(204))
    async with async_client, await AsyncSandbox.from_dict(RECORD, async_client).create_code_context() as context:
        assert (await context.run_code("x")).stdout == "o"
    assert wire.lines[-1] == f"DELETE {SESSIONS}/s1"
