"""The tools of a workspace, and the tools of a single sandbox, whose ``sandbox_id`` is fixed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pandastack.mcp import arguments as take
from pandastack.mcp import job_arguments as take_job
from pandastack.mcp import schedule_arguments as schedules


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. ``needs`` is its route, ``METHOD /path``. ``reads``: changes nothing; ``destroys``: cannot be undone."""

    name: str
    description: str
    arguments: type[take.Arguments]
    needs: str
    reads: bool = False
    destroys: bool = False
    bound: bool = False
    """Whether it acts on its server's sandbox, so that callers name none."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Arguments that callers do not pass."""
        return ("sandbox_id",) if self.bound else ()

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments, without the titles, which only repeat the names."""
        full = self.arguments.model_json_schema()
        properties = {
            name: _whole(each, full.get("$defs", {}))
            for name, each in full.get("properties", {}).items()
            if name not in self.hidden
        }
        required = [name for name in full.get("required", ()) if name not in self.hidden]
        shown = {"type": "object", "properties": properties, "additionalProperties": False}
        return shown | ({"required": required} if required else {})


def _whole(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a schema without titles, and with what it refers to in its place."""
    if "$ref" in schema:
        return _whole(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    whole: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            whole[key] = {name: _whole(each, definitions) for name, each in value.items()}
        elif key == "anyOf":
            whole[key] = [_whole(each, definitions) for each in value]
        elif key == "items":
            whole[key] = _whole(value, definitions)
        elif key != "title":
            whole[key] = value
    return whole


_S = "/v1/sandboxes/{}"
_FILES = (
    Tool(
        "read_file",
        "Read a text file of a sandbox. A long one is cut, and the result says where.",
        take.ReadFile,
        f"GET {_S}/fs",
        reads=True,
    ),
    Tool(
        "write_file",
        "Make or replace a text file in a sandbox, whole or not at all.",
        take.WriteFile,
        f"PUT {_S}/fs",
    ),
    Tool("list_dir", "List a directory of a sandbox.", take.ListDir, f"GET {_S}/fs/dir", reads=True),
)

WORKSPACE: Sequence[Tool] = (
    Tool(
        "create_sandbox",
        "Create a sandbox: a virtual machine of its own to run anything in. It is ready for commands at once.",
        take.CreateSandbox,
        "POST /v1/sandboxes",
    ),
    Tool("list_sandboxes", "List the sandboxes of the workspace.", take.ListSandboxes, "GET /v1/sandboxes", reads=True),
    Tool(
        "delete_sandbox",
        "Delete a sandbox with everything in it.",
        take.DeleteSandbox,
        f"DELETE {_S}",
        destroys=True,
    ),
    Tool(
        "run_command",
        "Run a shell command in a sandbox and return its output and exit code. Long output is cut, and the result says "
        "where. A hibernated sandbox is woken.",
        take.RunCommand,
        f"POST {_S}/exec",
    ),
    *_FILES,
    Tool(
        "get_network",
        "Show what a sandbox may reach, and how many bytes it has received and sent.",
        take.GetNetwork,
        f"GET {_S}/network",
        reads=True,
    ),
    Tool(
        "set_network",
        "Replace what a sandbox may reach. Connections that the new policy forbids are cut.",
        take.SetNetwork,
        f"PUT {_S}/network",
    ),
    Tool(
        "allow_destination",
        "Allow a sandbox one destination more, for example one that its egress log shows as denied.",
        take.AllowDestination,
        f"POST {_S}/network/allow",
    ),
    Tool(
        "egress_log",
        "Show what a sandbox wanted to reach: each name or address, whether it was allowed, and the rule that decided.",
        take.EgressLog,
        f"GET {_S}/egress/log",
        reads=True,
    ),
    Tool(
        "start_build",
        "Build in a fresh machine without a network, where clock, environment and host name are always the same. "
        "Returns at once; get_build tells how it ends.",
        take.StartBuild,
        "POST /v1/builds",
    ),
    Tool(
        "get_build",
        "Show a build: its status (`running`, `done`, `differs` or `failed`), its artifacts with their SHA-256, what "
        "differs between its two builds, and the end of a failed build's log.",
        take.GetBuild,
        "GET /v1/builds/{}",
        reads=True,
    ),
    Tool(
        "create_volume",
        "Make a volume: a disk that outlives sandboxes, empty or a copy of another one. create_sandbox attaches it.",
        take.CreateVolume,
        "POST /v1/volumes",
    ),
    Tool(
        "list_volumes",
        "List the volumes of the workspace, with the sandboxes that have each.",
        take.ListVolumes,
        "GET /v1/volumes",
        reads=True,
    ),
    Tool(
        "delete_volume",
        "Delete a volume with everything in it. No sandbox may have it.",
        take.DeleteVolume,
        "DELETE /v1/volumes/{}",
        destroys=True,
    ),
    Tool(
        "create_database",
        "Create a PostgreSQL database. It can be used once get_database shows connection_url.",
        take.CreateDatabase,
        "POST /v1/databases",
    ),
    Tool(
        "get_database",
        "Show a database: its status, and the connection_url with its password once it can be used.",
        take.GetDatabase,
        "GET /v1/databases/{}",
        reads=True,
    ),
    Tool(
        "branch_database",
        "Copy a database as it is now, for example to try a migration. The copy has another password.",
        take.BranchDatabase,
        "POST /v1/databases/{}/clone",
    ),
    Tool(
        "restore_database",
        "Make a new database as one was at an earlier time, for example before a mistake. The source stays as it is.",
        take.RestoreDatabase,
        "POST /v1/databases/{}/clone",
    ),
    Tool(
        "query_database",
        "Carry out one statement of SQL in a database, and return its rows. It can only read, unless `write` is set.",
        take.QueryDatabase,
        "POST /v1/databases/{}/proxy/v1/query",
        destroys=True,
    ),
    Tool("list_databases", "List the databases of the workspace.", take.ListDatabases, "GET /v1/databases", reads=True),
    Tool(
        "delete_database",
        "Delete a database with everything in it.",
        take.DeleteDatabase,
        "DELETE /v1/databases/{}",
        destroys=True,
    ),
    Tool(
        "create_function",
        "Create a function from its source. It is imported once; each call gets a machine of its own. An error has the "
        "traceback.",
        take.DeployFunction,
        "POST /v1/functions",
    ),
    Tool(
        "deploy_function",
        "Replace the code of a function. After an error, which has the traceback, the former code serves on.",
        take.DeployVersion,
        "POST /v1/functions/{}/deploy",
    ),
    Tool(
        "invoke_function",
        "Run a function with an event, and show the run: status, result, output, traceback.",
        take.InvokeFunction,
        "POST /v1/functions/{}/invoke",
    ),
    Tool(
        "set_function_alias",
        "Have an alias of a function name one of its versions. Runs with the alias use that version.",
        take.SetFunctionAlias,
        "PUT /v1/functions/{}/aliases/{}",
    ),
    Tool("list_functions", "List the functions of the workspace.", take.ListFunctions, "GET /v1/functions", reads=True),
    Tool(
        "list_function_runs",
        "List the last runs of a function with their output.",
        take.FunctionRuns,
        "GET /v1/functions/{}/runs",
        reads=True,
    ),
    Tool(
        "delete_function",
        "Delete a function with its versions and runs.",
        take.DeleteFunction,
        "DELETE /v1/functions/{}",
        destroys=True,
    ),
    Tool(
        "list_runner_pools",
        "List the runner pools: prepared machines, copies of which run jobs.",
        take_job.ListRunnerPools,
        "GET /v1/runner-pools",
        reads=True,
    ),
    Tool(
        "run_job",
        "Run commands in a fresh copy of a pool's prepared machine, which is deleted afterwards. Returns at once; "
        "get_job tells how it ends.",
        take_job.RunJob,
        "POST /v1/jobs",
    ),
    Tool("list_jobs", "List the newest jobs.", take_job.ListJobs, "GET /v1/jobs", reads=True),
    Tool(
        "get_job",
        "Show a job: its state (`queued`, `preparing`, `running`; then `succeeded`, `failed`, `cancelled`, `timed_out` "
        "or `error`), exit code and the step that failed.",
        take_job.GetJob,
        "GET /v1/jobs/{}",
        reads=True,
    ),
    Tool("get_job_log", "Show what a job has printed so far.", take_job.JobLog, "GET /v1/jobs/{}/logs", reads=True),
    Tool("cancel_job", "End a job that has not ended.", take_job.CancelJob, "POST /v1/jobs/{}/cancel", destroys=True),
    Tool(
        "retry_job",
        "Do what a job that has ended did once more, all of it or from the step that failed. Returns the new job.",
        take_job.RetryJob,
        "POST /v1/jobs/{}/retry",
    ),
    Tool(
        "create_schedule",
        "Have a function run at the times of a cron expression.",
        schedules.CreateSchedule,
        "POST /v1/schedules",
    ),
    Tool(
        "list_schedules",
        "List the schedules of the workspace with their next times.",
        schedules.ListSchedules,
        "GET /v1/schedules",
        reads=True,
    ),
    Tool("pause_schedule", "Pause a schedule, or resume it.", schedules.PauseSchedule, "PATCH /v1/schedules/{}"),
    Tool(
        "trigger_schedule",
        "Begin a run of a schedule's function now; list_function_runs shows how it ends.",
        schedules.TriggerSchedule,
        "POST /v1/schedules/{}/trigger",
    ),
    Tool(
        "list_schedule_runs",
        "List what became of the last times of a schedule.",
        schedules.ScheduleRuns,
        "GET /v1/schedules/{}/runs",
        reads=True,
    ),
    Tool(
        "delete_schedule",
        "Delete a schedule. A run that has begun ends by itself.",
        schedules.DeleteSchedule,
        "DELETE /v1/schedules/{}",
        destroys=True,
    ),
    Tool("list_apps", "List the apps of the workspace.", take.ListApps, "GET /v1/apps", reads=True),
    Tool("deploy_app", "Deploy an app anew.", take.DeployApp, "POST /v1/apps/{}/deploys"),
    Tool(
        "list_templates",
        "List the templates that sandboxes can be created from.",
        take.ListTemplates,
        "GET /v1/templates",
        reads=True,
    ),
    Tool(
        "list_secrets",
        "List the names of the workspace's secrets, and the hosts that each may be sent to. Values are not shown.",
        take.ListSecrets,
        "GET /v1/secrets",
        reads=True,
    ),
)

SANDBOX: Sequence[Tool] = (
    Tool(
        "shell",
        "Run a shell command in the sandbox and return its output and exit code. Long output is cut, and the result "
        "says where.",
        take.Shell,
        f"POST {_S}/exec",
        bound=True,
    ),
    *(replace(each, bound=True) for each in _FILES),
)


def offered(tools: Sequence[Tool], routes: Collection[str]) -> list[Tool]:
    """The tools whose route is among ``routes`` (``METHOD /path``, whatever the names in braces)."""
    served = {re.sub(r"{[^}]*}", "{}", route) for route in routes}
    return [tool for tool in tools if tool.needs in served]
