"""What agents are offered, and the request that each call means."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack.errors import BadRequestError
from pandastack.mcp.tools import SANDBOX, WORKSPACE, Tool, offered
from pandastack.sdk.wire.call import Call

ALL = {each.name: each for each in WORKSPACE}
BOUND = {each.name: each for each in SANDBOX}
EVERYTHING = {each.needs for each in (*WORKSPACE, *SANDBOX)}


def call(tool: Tool, **given: Any) -> Call:
    return tool.arguments.read(given, tool.hidden).call()


def test_the_tools_are_those_of_the_contract() -> None:
    assert {name: list(tool.schema()["properties"]) for name, tool in ALL.items()} == {
        "create_sandbox": [
            "template",
            "ttl_seconds",
            "metadata",
            "cpu",
            "memory_mb",
            "disk_gb",
            "network",
            "volumes",
        ],
        "list_sandboxes": [],
        "delete_sandbox": ["sandbox_id"],
        "run_command": ["sandbox_id", "command", "timeout_seconds"],
        "read_file": ["sandbox_id", "path"],
        "write_file": ["sandbox_id", "path", "content"],
        "list_dir": ["sandbox_id", "path"],
        "get_network": ["sandbox_id"],
        "set_network": ["sandbox_id", "policy"],
        "allow_destination": ["sandbox_id", "host", "port"],
        "egress_log": ["sandbox_id", "since"],
        "start_build": ["files", "command", "template", "artifacts", "verify"],
        "get_build": ["build_id"],
        "create_volume": ["name", "size_mb", "clone_of"],
        "list_volumes": [],
        "delete_volume": ["name"],
        "create_database": ["label"],
        "get_database": ["database_id"],
        "branch_database": ["database_id", "label"],
        "restore_database": ["database_id", "target_time", "label"],
        "query_database": ["database_id", "sql", "params", "database", "write", "max_rows"],
        "list_databases": [],
        "delete_database": ["database_id"],
        "create_function": ["name", "code", "runtime", "secrets"],
        "deploy_function": ["function_id", "code"],
        "invoke_function": ["function_id", "input", "alias"],
        "set_function_alias": ["function_id", "alias", "version"],
        "list_functions": [],
        "list_function_runs": ["function_id"],
        "delete_function": ["function_id"],
        "list_runner_pools": [],
        "run_job": ["pool", "steps", "ref", "env", "deadline_seconds", "checkpoint"],
        "list_jobs": ["pool", "limit"],
        "get_job": ["job_id"],
        "get_job_log": ["job_id"],
        "cancel_job": ["job_id"],
        "retry_job": ["job_id", "from_step"],
        "create_schedule": ["name", "function_id", "cron", "timezone"],
        "list_schedules": [],
        "pause_schedule": ["schedule_id", "paused"],
        "trigger_schedule": ["schedule_id"],
        "list_schedule_runs": ["schedule_id"],
        "delete_schedule": ["schedule_id"],
        "list_apps": [],
        "deploy_app": ["app_id", "git_ref"],
        "list_templates": [],
        "list_secrets": [],
    }
    assert {name: list(tool.schema()["properties"]) for name, tool in BOUND.items()} == {
        "shell": ["command", "timeout_ms"],
        "read_file": ["path"],
        "write_file": ["path", "content"],
        "list_dir": ["path"],
    }


def test_what_must_be_given_and_what_is_assumed() -> None:
    run = ALL["run_command"].schema()
    assert run["required"] == ["sandbox_id", "command"]
    limit = run["properties"]["timeout_seconds"]
    assert (limit["default"], limit["maximum"]) == (60, 300)
    assert BOUND["shell"].schema()["properties"]["timeout_ms"]["default"] == 30000
    assert BOUND["shell"].schema()["required"] == ["command"]
    assert ALL["list_dir"].schema()["properties"]["path"]["default"] == "/workspace"
    assert "required" not in ALL["create_sandbox"].schema()


@pytest.mark.parametrize("tool", [*WORKSPACE, *SANDBOX], ids=lambda tool: tool.name)
def test_every_argument_is_described(tool: Tool) -> None:
    schema = tool.schema()
    assert schema["type"] == "object" and schema["additionalProperties"] is False
    assert all(each["description"] and "title" not in each for each in schema["properties"].values())
    assert tool.description
    assert "$ref" not in str(schema)


def test_volumes_of_a_sandbox_are_described_where_they_are_given() -> None:
    volumes = ALL["create_sandbox"].schema()["properties"]["volumes"]
    mount = volumes["anyOf"][0]["items"]
    assert (list(mount["properties"]), mount["required"]) == (["name", "path", "read_only"], ["name"])
    assert all(each["description"] and "title" not in each for each in mount["properties"].values())


@pytest.mark.parametrize(
    ("name", "given", "method", "path", "body"),
    [
        ("list_sandboxes", {}, "GET", "/sandboxes", None),
        ("delete_sandbox", {"sandbox_id": "a/b"}, "DELETE", "/sandboxes/a%2Fb", None),
        ("create_sandbox", {"template": "base"}, "POST", "/sandboxes", {"template": "base"}),
        (
            "create_sandbox",
            {"ttl_seconds": 5},
            "POST",
            "/sandboxes",
            {"template": "code-interpreter", "ttl_seconds": 5},
        ),
        (
            "create_sandbox",
            {"template": "b", "network": "deny"},
            "POST",
            "/sandboxes",
            {"template": "b", "network": "deny"},
        ),
        ("get_network", {"sandbox_id": "s"}, "GET", "/sandboxes/s/network", None),
        ("set_network", {"sandbox_id": "s", "policy": "deny"}, "PUT", "/sandboxes/s/network", {"egress": "deny"}),
        (
            "allow_destination",
            {"sandbox_id": "s", "host": "a.example", "port": 443},
            "POST",
            "/sandboxes/s/network/allow",
            {"host": "a.example", "port": 443},
        ),
        ("egress_log", {"sandbox_id": "s"}, "GET", "/sandboxes/s/egress/log", None),
        ("get_build", {"build_id": "b/c"}, "GET", "/builds/b%2Fc", None),
        ("list_runner_pools", {}, "GET", "/runner-pools", None),
        (
            "run_job",
            {"pool": "p", "steps": ["make"]},
            "POST",
            "/jobs",
            {"pool": "p", "steps": ["make"], "checkpoint": False},
        ),
        ("list_jobs", {"pool": "p"}, "GET", "/jobs", None),
        ("get_job", {"job_id": "a/b"}, "GET", "/jobs/a%2Fb", None),
        ("get_job_log", {"job_id": "j"}, "GET", "/jobs/j/logs", None),
        ("cancel_job", {"job_id": "j"}, "POST", "/jobs/j/cancel", None),
        ("retry_job", {"job_id": "j", "from_step": 2}, "POST", "/jobs/j/retry", {"from_step": 2}),
        ("create_database", {"label": "x"}, "POST", "/databases", {"label": "x"}),
        ("get_database", {"database_id": "a/b"}, "GET", "/databases/a%2Fb", None),
        ("branch_database", {"database_id": "d"}, "POST", "/databases/d/clone", {}),
        ("branch_database", {"database_id": "d", "label": "x"}, "POST", "/databases/d/clone", {"label": "x"}),
        (
            "restore_database",
            {"database_id": "d", "target_time": "2026-01-31T09:30:00Z"},
            "POST",
            "/databases/d/clone",
            {"target_time": "2026-01-31T09:30:00Z"},
        ),
        (
            "query_database",
            {"database_id": "d", "sql": "SELECT 1"},
            "POST",
            "/databases/d/proxy/v1/query",
            {"sql": "SELECT 1", "params": [], "database": "pandastack", "read_only": True, "max_rows": 200},
        ),
        (
            "query_database",
            {"database_id": "d", "sql": "DELETE FROM x WHERE y = $1", "params": [1], "write": True, "max_rows": 5},
            "POST",
            "/databases/d/proxy/v1/query",
            {
                "sql": "DELETE FROM x WHERE y = $1",
                "params": [1],
                "database": "pandastack",
                "read_only": False,
                "max_rows": 5,
            },
        ),
        ("delete_database", {"database_id": "d"}, "DELETE", "/databases/d", None),
        ("deploy_app", {"app_id": "a", "git_ref": "v1"}, "POST", "/apps/a/deploys", {"git_ref": "v1"}),
        ("list_apps", {}, "GET", "/apps", None),
        ("list_databases", {}, "GET", "/databases", None),
        ("list_functions", {}, "GET", "/functions", None),
        (
            "set_function_alias",
            {"function_id": "f", "alias": "live", "version": 2},
            "PUT",
            "/functions/f/aliases/live",
            {"version": 2},
        ),
        ("list_function_runs", {"function_id": "f"}, "GET", "/functions/f/runs", None),
        ("delete_function", {"function_id": "f"}, "DELETE", "/functions/f", None),
        (
            "create_function",
            {"name": "f", "code": "x"},
            "POST",
            "/functions",
            {"name": "f", "runtime": "python", "code": "eA=="},
        ),
        ("invoke_function", {"function_id": "f", "input": [1]}, "POST", "/functions/f/invoke", {"input": [1]}),
        ("list_schedules", {}, "GET", "/schedules", None),
        (
            "create_schedule",
            {"name": "s", "function_id": "f", "cron": "0 9 * * *"},
            "POST",
            "/schedules",
            {"name": "s", "function_id": "f", "cron": "0 9 * * *"},
        ),
        ("pause_schedule", {"schedule_id": "s"}, "PATCH", "/schedules/s", {"paused": True}),
        ("pause_schedule", {"schedule_id": "s", "paused": False}, "PATCH", "/schedules/s", {"paused": False}),
        ("trigger_schedule", {"schedule_id": "s"}, "POST", "/schedules/s/trigger", None),
        ("list_schedule_runs", {"schedule_id": "s"}, "GET", "/schedules/s/runs", None),
        ("delete_schedule", {"schedule_id": "s"}, "DELETE", "/schedules/s", None),
        ("list_templates", {}, "GET", "/templates", None),
        ("list_secrets", {}, "GET", "/secrets", None),
        ("list_volumes", {}, "GET", "/volumes", None),
        ("create_volume", {"name": "v"}, "POST", "/volumes", {"name": "v"}),
        (
            "create_volume",
            {"name": "v", "size_mb": 512, "clone_of": "w"},
            "POST",
            "/volumes",
            {"name": "v", "size_mb": 512, "from": {"volume": "w"}},
        ),
        ("delete_volume", {"name": "a/b"}, "DELETE", "/volumes/a%2Fb", None),
        (
            "create_sandbox",
            {"template": "b", "volumes": [{"name": "v"}, {"name": "w", "path": "/srv", "read_only": True}]},
            "POST",
            "/sandboxes",
            {
                "template": "b",
                "volumes": [{"name": "v", "read_only": False}, {"name": "w", "path": "/srv", "read_only": True}],
            },
        ),
    ],
)
def test_a_tool_is_a_request(name: str, given: dict[str, Any], method: str, path: str, body: object) -> None:
    made = call(ALL[name], **given)
    assert (made.method, made.path, made.json) == (method, path, body)


def test_files_and_commands_are_requests() -> None:
    read = call(ALL["read_file"], sandbox_id="s", path="/a")
    assert (read.method, read.path, read.params, read.streamed) == ("GET", "/sandboxes/s/fs", {"path": "/a"}, True)
    write = call(BOUND["write_file"], sandbox_id="s", path="/a", content="ü")
    assert (write.method, write.content) == ("PUT", "ü".encode())
    assert call(ALL["list_dir"], sandbox_id="s").params == {"path": "/workspace"}
    deploy = call(ALL["deploy_function"], function_id="f", code="x = 1")
    assert (deploy.method, deploy.path) == ("POST", "/functions/f/deploy") and b"x = 1" in (deploy.content or b"")


@pytest.mark.parametrize(
    ("tool", "given", "seconds"),
    [
        (ALL["run_command"], {"command": "true"}, 60),
        (ALL["run_command"], {"cmd": "true", "timeout_ms": 1500}, 1.5),
        (ALL["run_command"], {"command": "true", "timeout_seconds": 2}, 2),
        (BOUND["shell"], {"cmd": "true"}, 30),
        (BOUND["shell"], {"command": "true", "timeout_seconds": 2}, 2),
        (BOUND["shell"], {"command": "true", "timeout_ms": 250}, 0.25),
    ],
)
def test_both_spellings_of_a_commands_arguments(tool: Tool, given: dict[str, Any], seconds: float) -> None:
    made = call(tool, sandbox_id="s", **given)
    assert made.json == {"cmd": "true", "timeout_seconds": seconds}
    assert (made.silence or 0) > seconds


@pytest.mark.parametrize(
    ("tool", "given", "field"),
    [
        (ALL["run_command"], {"command": "true"}, "sandbox_id"),
        (ALL["run_command"], {"sandbox_id": "s", "command": ""}, "command"),
        (ALL["run_command"], {"sandbox_id": "s", "command": "x", "timeout_seconds": 301}, "timeout_seconds"),
        (ALL["run_command"], {"sandbox_id": "s", "command": "x", "timeout_seconds": "1"}, "timeout_seconds"),
        (ALL["run_command"], {"sandbox_id": "s", "command": ["ls"]}, "command"),
        (BOUND["shell"], {"command": "x", "timeout_seconds": 301}, "timeout_ms"),
        (ALL["create_sandbox"], {"ttl_seconds": -1}, "ttl_seconds"),
        (ALL["create_sandbox"], {"metadata": {"a": 1}}, "metadata.a"),
        (ALL["create_sandbox"], {"image": "x"}, "image"),
        (ALL["write_file"], {"sandbox_id": "s", "path": "/x"}, "content"),
        (ALL["start_build"], {"command": "make", "files": {}}, "files"),
        (ALL["start_build"], {"command": "make", "files": {"a": 1}}, "files.a"),
        (ALL["start_build"], {"command": "", "files": {"a": "1"}}, "command"),
    ],
)
def test_wrong_arguments_are_named(tool: Tool, given: dict[str, Any], field: str) -> None:
    bound = {"sandbox_id": "s"} if tool.bound else {}
    with pytest.raises(BadRequestError) as refused:
        call(tool, **given, **bound)
    assert refused.value.field == field and refused.value.message.startswith(field)
    assert refused.value.hint and refused.value.hint.startswith("the arguments are: ")
    assert ("sandbox_id" in refused.value.hint) == ("sandbox_id" in tool.schema()["properties"])


def test_only_what_the_server_serves_is_offered() -> None:
    assert offered(WORKSPACE, EVERYTHING) == list(WORKSPACE)
    served = {"GET /v1/sandboxes", "GET /v1/sandboxes/{sandbox_id}/fs", "POST /v1/databases/{x}/wake"}
    assert [tool.name for tool in offered(WORKSPACE, served)] == ["list_sandboxes", "read_file"]
