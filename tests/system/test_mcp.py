"""Agents at work: the protocol's own client, over both of its transports, on a real server and real machines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import client as http_client
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from pandastack.mcp.answers import FILE_BYTES
from tests.support.installation import Server, eventually

LONG = "echo begin; head -c 3000000 /dev/zero | tr '\\0' x; echo end"
NAMES = ["shell", "read_file", "write_file", "list_dir"]
TRANSPORTS = pytest.mark.parametrize("transport", ["stdio", "http"])
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def connected(
    server: Server, transport: str, sandbox: str | None = None, mode: str = "auto"
) -> AsyncIterator[Client]:
    """A client of the workspace's tools, or of those of one sandbox."""
    if transport == "stdio":
        options = ["--sandbox", sandbox] if sandbox else []
        program = StdioServerParameters(
            command=sys.executable, args=["-m", "pandastack.cli", "mcp", *options], env=server.installation.environment
        )
        async with Client(stdio_client(program), mode=mode) as client:
            yield client
        return
    url = f"{server.url}/v1/sandboxes/{sandbox}/mcp" if sandbox else f"{server.url}/mcp"
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {server.token}"}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.fixture
async def api(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(base_url=f"{server.url}/v1", headers=headers, timeout=60) as http:
        yield http


@pytest.fixture
async def sandbox(api: httpx.AsyncClient) -> AsyncIterator[str]:
    made: str = (await api.post("/sandboxes", json={"template": "base"})).json()["id"]
    yield made
    await api.delete(f"/sandboxes/{made}")


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, list[str], bool]:
    """The text of a result, the notices after it, and whether it is an error."""
    result = await client.call_tool(tool, arguments)
    texts = [each.text for each in result.content]  # type: ignore[union-attr]
    return texts[0], texts[1:], result.is_error


@TRANSPORTS
async def test_an_agent_works_in_a_workspace(server: Server, api: httpx.AsyncClient, transport: str) -> None:
    async with connected(server, transport) as client:
        assert client.server_info is not None and client.server_info.name == "pandastack"
        tools = {each.name for each in (await client.list_tools()).tools}
        assert {"create_sandbox", "run_command", "read_file", "write_file", "list_dir", "list_templates"} <= tools
        assert "code-interpreter" in (await call(client, "list_templates"))[0]
        made = json.loads((await call(client, "create_sandbox", template="base", metadata={"by": transport}))[0])
        sandbox = made["id"]
        assert (await api.get(f"/sandboxes/{sandbox}")).json()["metadata"]["by"] == transport
        assert sandbox in (await call(client, "list_sandboxes"))[0]
        script = "import sys\nprint('ü', 6 * 7)\nprint('why', file=sys.stderr)\nsys.exit(3)\n"
        written = json.loads((await call(client, "write_file", sandbox_id=sandbox, path="/a/b.py", content=script))[0])
        assert written == {"path": "/a/b.py", "bytes": len(script.encode())}
        assert (await call(client, "read_file", sandbox_id=sandbox, path="/a/b.py"))[0] == script
        ran, notices, failed = await call(client, "run_command", sandbox_id=sandbox, command="python3 /a/b.py")
        outcome = json.loads(ran)
        assert (outcome["stdout"], outcome["stderr"], outcome["exit_code"]) == ("ü 42\n", "why\n", 3)
        assert (notices, failed) == ([], False)
        listed = json.loads((await call(client, "list_dir", sandbox_id=sandbox, path="/a"))[0])
        assert [each["name"] for each in listed["entries"]] == ["b.py"]
        assert not (await call(client, "delete_sandbox", sandbox_id=sandbox))[2]
        gone, _, failed = await call(client, "run_command", sandbox_id=sandbox, command="true")
        assert failed and "not found" in json.loads(gone)["error"] and "list_sandboxes" in json.loads(gone)["hint"]


@TRANSPORTS
@MODES
async def test_an_agent_works_in_one_sandbox(
    server: Server, api: httpx.AsyncClient, sandbox: str, transport: str, mode: str
) -> None:
    """By the protocol of today and by the handshake of former ones."""
    async with connected(server, transport, sandbox, mode) as client:
        assert client.server_info is not None and client.server_info.name == "pandastack-sandbox"
        assert [each.name for each in (await client.list_tools()).tools] == NAMES
        ran = json.loads((await call(client, "shell", command="echo $((6*7)); pwd"))[0])
        assert (ran["stdout"], ran["exit_code"]) == ("42\n/root\n", 0)
        assert not (await call(client, "write_file", path="/workspace/x", content="here"))[2]
        assert "x" in [each["name"] for each in json.loads((await call(client, "list_dir"))[0])["entries"]]
    assert (await api.get(f"/sandboxes/{sandbox}/fs", params={"path": "/workspace/x"})).text == "here"


@TRANSPORTS
async def test_results_are_bounded_and_limits_are_kept(server: Server, sandbox: str, transport: str) -> None:
    async with connected(server, transport, sandbox) as client:
        ran, notices, _ = await call(client, "shell", command=LONG)
        shown = json.loads(ran)["stdout"]
        assert shown.startswith("begin\n") and shown.endswith("end\n") and len(shown) < 40_000
        assert len(notices) == 1 and "stdout cut" in notices[0]
        await call(client, "shell", command="head -c 1000000 /dev/zero | tr '\\0' y > /root/long")
        text, notices, _ = await call(client, "read_file", path="/root/long")
        assert text == "y" * FILE_BYTES and f"tail -c +{FILE_BYTES + 1} /root/long" in notices[0]
        late, _, failed = await call(client, "shell", command="echo part; sleep 60", timeout_ms=1000)
        error = json.loads(late)
        assert failed and "timeout" in error["error"] and error["detail"]["stdout"] == "part\n" and error["hint"]
        again = json.loads((await call(client, "shell", command="pgrep -cx sleep || true"))[0])
        assert again["stdout"] == "0\n"
        wrong, _, failed = await call(client, "shell", comand="true")
        assert failed and json.loads(wrong)["field"] in ("command", "comand")
        directory, _, failed = await call(client, "read_file", path="/etc")
        assert failed and "directory" in json.loads(directory)["error"]


def test_a_command_survives_a_caller_who_leaves(server: Server) -> None:
    with server.http() as http:
        path = f"/sandboxes/{http.post('/sandboxes', json={'template': 'base'}).json()['id']}"
        shell = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        wait = {**shell, "params": {"name": "shell", "arguments": {"command": "echo begun > /run/begun; sleep 60"}}}
        count = {**shell, "params": {"name": "shell", "arguments": {"command": "pgrep -cx sleep"}}}
        leaving = http_client.HTTPConnection(server.url.removeprefix("http://"))
        headers = {"Authorization": http.headers["authorization"], "Content-Type": "application/json"}
        leaving.request("POST", f"/v1{path}/mcp", json.dumps(wait), {**headers, "Accept": http.headers["accept"]})
        eventually(lambda: http.get(f"{path}/fs?path=/run/begun").is_success, 60, "the command has begun")
        leaving.close()

        def running() -> str:
            answer = http.post(f"{path}/mcp", json=count).json()["result"]["content"][0]["text"]
            return str(json.loads(answer)["stdout"])

        assert running() == "1\n"
        assert http.get(f"{path}/fs?path=/run/begun").text == "begun\n"
        assert http.delete(path).status_code == 204


def test_without_a_token_nothing_is_answered(server: Server) -> None:
    for path in ("/mcp", "/v1/mcp"):
        refused = httpx.post(f"{server.url}{path}", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ([], {"PANDASTACK_API": "http://127.0.0.1:9"}, "cannot talk to"),
        ([], {"PANDASTACK_API_KEY": "pds_wrong"}, "unauthorized"),
        (["--sandbox", "none"], {}, "not found"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(
    server: Server, options: list[str], settings: dict[str, str], words: str
) -> None:
    """To the person who set the agent up, not to the agent."""
    done = subprocess.run(
        [sys.executable, "-m", "pandastack.cli", "mcp", *options],
        env={**server.installation.environment, **settings},
        input="",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr and "Traceback" not in done.stderr
