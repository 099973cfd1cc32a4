"""Routes of the contract that no SDK calls; the dashboard and scripts do."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.installation import Server, eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_a_file_is_deleted(http: httpx.Client, path: str) -> None:
    http.put(f"{path}/fs", params={"path": "/root/d/file"}, content=b"x")
    for _ in range(2):
        assert http.delete(f"{path}/fs", params={"path": "/root/d"}).status_code == 204
    assert http.get(f"{path}/fs/stat", params={"path": "/root/d/file"}).status_code == 404


def test_events(http: httpx.Client, path: str) -> None:
    http.post(f"{path}/pause")
    http.post(f"{path}/resume")
    listed = http.get(f"{path}/events").json()["events"]
    assert [each["type"] for each in listed] == ["sandbox.running", "sandbox.paused", "sandbox.resumed"]
    assert {"template", "boot_ms", "boot_mode", "phases"} <= set(listed[0]["payload"])
    assert all(path.endswith(each["sandbox_id"]) and each["time"] for each in listed)
    assert [each["type"] for each in http.get(f"{path}/events?tail=1").json()["events"]] == ["sandbox.resumed"]
    with http.stream("GET", f"{path}/events", params={"follow": "1"}) as following:
        lines = (line for line in following.iter_lines() if line.startswith(("event", "data")))
        assert next(lines) == "event: event"
        assert json.loads(next(lines).removeprefix("data: "))["type"] == "sandbox.running"


def test_commands_over_one_websocket(server: Server, path: str) -> None:
    with server.websocket(f"{path}/exec/ws") as socket:
        socket.send(json.dumps({"id": "slow", "cmd": "sleep 60"}))
        socket.send(json.dumps({"id": "a", "cmd": "echo out; echo err >&2; exit 3"}))
        frames = [json.loads(socket.recv(60)) for _ in range(3)]
        assert {"id": "a", "stream": "stdout", "data": "out\n"} in frames
        assert {"id": "a", "stream": "stderr", "data": "err\n"} in frames
        assert (frames[-1]["id"], frames[-1]["exit"]) == ("a", 3)
        for sent, error in (("{", "bad json"), ('{"cmd": "true"}', "id required"), ('{"id": "x"}', "cmd required")):
            socket.send(sent)
            answer = json.loads(socket.recv(60))
            assert answer["id"] in ("", "x") and answer["error"].startswith(error)
        socket.send(json.dumps({"id": "slow", "cancel": True}))
        ended = json.loads(socket.recv(60))
        assert ended["id"] == "slow" and ("exit" in ended or "error" in ended)


def test_one_piece_of_code(http: httpx.Client, path: str) -> None:
    languages = http.get("/repl/languages").json()
    assert {"python", "bash"} <= set(languages)
    ran = http.post(f"{path}/repl", json={"code": "import sys; print(6 * 7); sys.exit(3)"})
    assert (ran.status_code, ran.json()["language"]) == (200, "python")
    assert [ran.json()[each] for each in ("stdout", "stderr", "exit_code")] == ["42\n", "", 3]
    assert http.post(f"{path}/repl", json={"code": "1", "language": "cobol"}).status_code == 400


def test_languages_of_servers(http: httpx.Client) -> None:
    told = http.get("/lsp/languages").json()
    assert told["supported"] == ["python"] and told["note"]


def test_a_language_server_that_is_not_there(server: Server, path: str) -> None:
    """Those that are there talk to an editor in ``tests/system/test_lsp.py``."""
    for route, status in ((f"{path}/lsp/cobol", 400), (f"/sandboxes/{UNKNOWN}/lsp/python", 404)):
        with pytest.raises(InvalidStatus) as refused, server.websocket(route):
            pass
        assert refused.value.response.status_code == status
    with server.websocket(f"{path}/lsp/py", subprotocols=[Subprotocol("lsp")]) as socket:
        assert socket.subprotocol == "lsp"
        frames = list(socket)
    told = [json.loads(frame) for frame in frames if isinstance(frame, str)]
    assert "error" in told[-1] or "exit" in told[-1]


def test_usage(http: httpx.Client, path: str) -> None:
    used = http.get(f"{path}/metrics").json()
    names = {"pid", "uptime_seconds", "host_cpu_percent", "host_rss_bytes", "host_vsz_bytes", "threads"}
    assert names <= set(used)
    assert all(isinstance(used[name], int | float) for name in names)


def test_health_version_and_metrics_need_no_token(server: Server) -> None:
    health = httpx.get(f"{server.url}/healthz")
    assert (health.status_code, health.json()["status"], bool(health.json()["checks"])) == (200, "ok", True)
    assert httpx.get(f"{server.url}/version").json()["service"] == "pandastack"
    metrics = httpx.get(f"{server.url}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain") and "pandastack_" in metrics.text


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp"])
def test_agents_of_a_workspace(server: Server, http: httpx.Client, path: str) -> None:
    """More of it, with the protocol's own client, is in ``tests/system/test_mcp.py``."""
    url = f"{server.url}{path}"
    told = http.post(url, json=message("initialize")).json()["result"]
    assert (told["protocolVersion"], told["serverInfo"]["name"]) == ("2025-03-26", "pandastack")
    assert http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
    called = http.post(url, json=message("tools/call", name="list_templates")).json()["result"]
    assert called["isError"] is False and called["content"][0]["type"] == "text"
    assert "base" in {each["name"] for each in json.loads(called["content"][0]["text"])}
    assert http.post(url, content=b"{").json()["error"]["code"] == -32700
    refused = http.get(url)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_agents_of_a_sandbox(http: httpx.Client, path: str) -> None:
    told = http.post(f"{path}/mcp", json=message("initialize")).json()["result"]
    assert (told["protocolVersion"], told["serverInfo"]["name"]) == ("2024-11-05", "pandastack-sandbox")
    assert http.post(f"{path}/mcp", json={"jsonrpc": "2.0", "method": "notifications/cancelled"}).status_code == 204
    run = message("tools/call", name="shell", arguments={"cmd": "echo $((6*7))"})
    called = http.post(f"{path}/mcp", json=run).json()["result"]
    assert json.loads(called["content"][0]["text"])["stdout"] == "42\n"


def test_request_ids_and_cross_origin(server: Server) -> None:
    asked = {"origin": "https://dashboard.test", "access-control-request-headers": "authorization"}
    answer = httpx.options(f"{server.url}/v1/sandboxes", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert httpx.get(f"{server.url}/version", headers={"x-request-id": "x" * 64}).headers["x-request-id"] == "x" * 64


def test_ports_with_labels(http: httpx.Client, path: str) -> None:
    made = http.post(f"{path}/ports", json={"port": 8000})
    assert (made.status_code, made.json()["label"], made.json()["source"]) == (201, "service", "user")
    assert [each["port"] for each in http.get(f"{path}/ports").json()] == [8000]
    assert http.delete(f"{path}/ports/8000").status_code == 204
    assert http.post(f"{path}/ports", json={"port": 22}).status_code == 400


def test_statements_over_http(http: httpx.Client) -> None:
    one = f"/databases/{http.post('/databases', json={}).json()['id']}"
    eventually(lambda: http.get(one).json()["status"] == "running", 60, "the database runs")
    given = http.get(f"{one}/connection").json()
    token = {"authorization": f"Bearer {given['broker_token']}"}
    with httpx.Client(base_url=f"{given['broker_url']}/v1", headers=token, timeout=60) as broker:
        assert httpx.get(f"{given['broker_url']}/v1/health").json() == {"status": "ok"}
        assert broker.get("/info").json()["version"].startswith("16.")
        body = {"database": "pandastack", "sql": "SELECT $1::int AS n", "params": [7]}
        answer = broker.post("/query", json=body).json()
        assert answer["columns"] == [{"name": "n", "type": "int4"}]
        assert (answer["rows"], answer["count"]) == ([[7]], 1) and answer["duration_ms"] > 0
        done = broker.post("/exec", json={"database": "pandastack", "sql": "CREATE TABLE t (x int)"}).json()
        assert set(done) == {"rows_affected", "duration_ms"}
        both = [{"sql": "INSERT INTO t VALUES ($1)", "params": [1]}, {"sql": "SELECT x FROM t"}]
        sent = broker.post("/transaction", json={"database": "pandastack", "statements": both}).json()
        assert [each["count"] for each in sent["results"]] == [0, 1]
        assert broker.post("/query", json={"sql": "SELECT 1"}).status_code == 400
        assert broker.post("/databases", json={"name": "other"}).status_code == 201
        assert [each["name"] for each in broker.get("/databases").json()["databases"]] == ["other", "pandastack"]
        assert broker.delete("/databases/other").status_code == 204
        assert broker.get("/query", headers={"authorization": "Bearer pds_pg_wrong"}).status_code == 401
    http.delete(one)
