"""The protocol over HTTP, message by message, for clients that know less of it than the library's own."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from pandastack.api.allowance import Allowance
from tests.support.api import SETTINGS, Api

pytestmark = pytest.mark.anyio

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}


async def post(api: Api, path: str, message: object, **headers: str) -> httpx.Response:
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await api.http.post(path, content=content, headers=headers)


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp"])
async def test_initialize(api: Api, path: str) -> None:
    wanted = {**INITIALIZE, "params": {"protocolVersion": "2025-06-18", "capabilities": {}}}
    answer = await post(api, path, wanted)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    result = answer.json()["result"]
    assert (result["protocolVersion"], result["serverInfo"]["name"]) == ("2025-06-18", "pandastack")
    assert "tools" in result["capabilities"] and "mcp-session-id" not in answer.headers
    assert (await post(api, path, INITIALIZE)).json()["result"]["protocolVersion"] == "2025-03-26"


async def test_initialize_of_a_sandbox(api: Api) -> None:
    result = (await post(api, f"{await api.sandbox()}/mcp", INITIALIZE)).json()["result"]
    assert (result["protocolVersion"], result["serverInfo"]["name"]) == ("2024-11-05", "pandastack-sandbox")


async def test_notifications_are_noted(api: Api) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    noted = await post(api, "/mcp", note)
    assert (noted.status_code, noted.content) == (202, b"")
    noted = await post(api, f"{await api.sandbox()}/mcp", note)
    assert (noted.status_code, noted.content) == (204, b"")


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (b"{", -32700, 400),
        (b"[" * 100_000, -32700, 400),
        ([request("ping")], -32600, 400),
        (request("no/such"), -32601, None),
        (request("tools/call", name="no_such_tool"), -32602, None),
        (request("tools/call"), -32602, None),
    ],
)
async def test_what_is_refused(api: Api, message: object, code: int, status: int | None) -> None:
    answer = await post(api, "/mcp", message)
    assert answer.json()["error"]["code"] == code
    assert answer.status_code == (status or answer.status_code)


async def test_any_client_is_understood(api: Api) -> None:
    for headers in ({}, {"accept": "text/html"}, {"content-type": "text/plain", "accept": "application/json"}):
        answer = await post(api, "/mcp", request("ping"), **headers)
        assert (answer.status_code, answer.json()["result"]) == (200, {})


async def test_other_methods_are_not_allowed(api: Api) -> None:
    for path in ("/mcp", "/v1/mcp", f"{await api.sandbox()}/mcp"):
        for method in ("GET", "DELETE", "PUT"):
            answer = await api.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_message_may_not_be_large(api: Api) -> None:
    answer = await post(api, "/mcp", request("ping", padding="x" * 2**20))
    assert answer.status_code == 413


async def test_the_tools_are_those_whose_routes_are_served(api: Api) -> None:
    listed = (await post(api, "/mcp", request("tools/list"))).json()["result"]["tools"]
    names = [each["name"] for each in listed]
    assert names[:3] == ["create_sandbox", "list_sandboxes", "delete_sandbox"]
    served = api.app.openapi()["paths"]
    assert ("create_database" in names) == ("/v1/databases" in served)
    hints = {each["name"]: each["annotations"] for each in listed}
    assert hints["delete_sandbox"]["destructiveHint"] and hints["list_sandboxes"]["readOnlyHint"]
    here = (await post(api, f"{await api.sandbox()}/mcp", request("tools/list"))).json()["result"]["tools"]
    assert [each["name"] for each in here] == ["shell", "read_file", "write_file", "list_dir"]


async def test_a_call_is_made_for_the_caller(api: Api) -> None:
    created = await post(api, "/mcp", request("tools/call", name="create_sandbox", arguments={"template": "base"}))
    result = created.json()["result"]
    (content,) = result["content"]
    assert (content["type"], result["isError"]) == ("text", False)
    sandbox = json.loads(content["text"])
    assert (await api.http.get(f"/v1/sandboxes/{sandbox['id']}")).json()["id"] == sandbox["id"]
    wrong = await post(api, "/mcp", request("tools/call", name="create_sandbox", arguments={"template": ""}))
    result = wrong.json()["result"]
    refusal = json.loads(result["content"][0]["text"])
    assert result["isError"] and "template" in refusal["error"] and refusal["hint"]


async def test_a_sandbox_of_its_own_cannot_be_left(api: Api) -> None:
    mine, other = await api.sandbox(), await api.sandbox()
    given = {"path": "/etc/hostname", "sandbox_id": other.rpartition("/")[2]}
    answer = await post(api, f"{mine}/mcp", request("tools/call", name="read_file", arguments=given))
    result = answer.json()["result"]
    assert result["isError"] and json.loads(result["content"][0]["text"])["field"] == "sandbox_id"


async def test_a_workspace_calls_so_often_and_no_more(api: Api) -> None:
    api.app.state.tool_calls = Allowance(SETTINGS.mcp_calls_per_minute, lambda: 0.0)  # none grows back meanwhile
    call = request("tools/call", name="list_sandboxes", arguments={})
    allowed = 0
    while "result" in (answer := (await post(api, "/v1/mcp", call)).json()):
        allowed += 1  # more of them become free while the calls take their time
        assert allowed < 4 * SETTINGS.mcp_calls_per_minute
    assert allowed >= SETTINGS.mcp_calls_per_minute
    refused = answer["error"]
    assert refused["code"] == -32000 and "try again in" in refused["message"]
    assert "result" in (await post(api, "/mcp", request("tools/list"))).json()
    path = await api.sandbox()
    here = request("tools/call", name="read_file", arguments={"path": "/etc/hostname"})
    assert (await post(api, f"{path}/mcp", here)).json()["result"]["content"][0]["text"] == "guest\n"


def test_an_allowance_grows_back() -> None:
    clock = [0.0]
    allowance = Allowance(60, lambda: clock[0])
    assert [allowance.take("a") for _ in range(60)] == [0.0] * 60
    assert allowance.take("a") == pytest.approx(1)
    assert allowance.take("b") == 0
    clock[0] = 1.5
    assert allowance.take("a") == 0
    assert allowance.take("a") == pytest.approx(0.5)
    clock[0] = 10_000
    assert [allowance.take("a") for _ in range(61)][59:] == [0, pytest.approx(1)]


async def test_an_agent_builds(api: Api) -> None:
    """The scripted guest prints no archive, so the build fails; what was built has arrived."""
    given = {"files": {"src/a.txt": "1"}, "command": "cp src/a.txt $OUT"}
    answer = await post(api, "/mcp", request("tools/call", name="start_build", arguments=given))
    started = json.loads(answer.json()["result"]["content"][0]["text"])
    assert (started["status"], started["command"]) == ("running", "cp src/a.txt $OUT")
    with anyio.fail_after(20):
        await api.http.get(f"/v1/builds/{started['id']}/logs?follow=1")
    asked = request("tools/call", name="get_build", arguments={"build_id": started["id"]})
    ended = json.loads((await post(api, "/mcp", asked)).json()["result"]["content"][0]["text"])
    assert (ended["status"], ended["reason"]) == ("failed", "artifacts")
    assert b"src/a.txt" in b"".join(api.engine.received)
