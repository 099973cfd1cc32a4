"""The arguments of the tools. A model sees the fields' names, types and descriptions; each class makes a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pandastack.errors import BadRequestError
from pandastack.sdk._builds import pack_texts, start_build
from pandastack.sdk._databases import clone_database, create_database, one_database, query_database
from pandastack.sdk._functions import (
    create_function,
    deploy_function,
    function_alias,
    invoke_function,
    list_functions,
    one_function,
)
from pandastack.sdk._volumes import create_volume, one_volume
from pandastack.sdk.wire.call import (
    Call,
    allow_destination,
    create_sandbox,
    exec_command,
    file_call,
    segment,
    set_network,
)

LONGEST_COMMAND_SECONDS = 300
_WORKSPACE = "/workspace"
_POLICY = (
    "What it may reach: `allow` (the public internet), `deny`, `none`, or an object "
    '{"egress": {"allow": ["*.example.org", "203.0.113.0/24:443"]}}, which denies all else. Beside "egress", '
    '"services": ["sandbox:ID:8000"] lists ports of other sandboxes that it reaches as '
    "http://8000-ID.sandbox.pandastack.internal"
)

Policy = str | dict[str, Any]


class Arguments(BaseModel):
    """Arguments; ``call`` is the request that they stand for."""

    model_config = ConfigDict(extra="forbid", strict=True)
    other_names: ClassVar[dict[str, tuple[str, float]]] = {}
    """Other clients' names of an argument, each with the name here and the factor between the units."""

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = dict(given)
        for other, (name, factor) in cls.other_names.items():
            if other in given and name not in given:
                value = given.pop(other)
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                given[name] = value * factor if is_number and factor != 1 else value
        return given

    @classmethod
    def read(cls, given: Mapping[str, Any], hidden: Collection[str] = ()) -> Self:
        """The arguments of a call. Raises a :class:`BadRequestError` that names the invalid argument, and lists all
        arguments except those ``hidden`` from the caller.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])[:64]
            known = ", ".join(name for name in cls.model_fields if name not in hidden)
            raise BadRequestError(
                f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}" if field else "arguments must be an object",
                field=field or None,
                hint=f"the arguments are: {known}" if known else "this tool takes no arguments",
            ) from error

    def call(self) -> Call:
        raise NotImplementedError


class ListSecrets(Arguments):
    def call(self) -> Call:
        return Call("GET", "/secrets")


class ListSandboxes(Arguments):
    def call(self) -> Call:
        return Call("GET", "/sandboxes")


class ListTemplates(Arguments):
    def call(self) -> Call:
        return Call("GET", "/templates")


class ListDatabases(Arguments):
    def call(self) -> Call:
        return Call("GET", "/databases")


class ListFunctions(Arguments):
    def call(self) -> Call:
        return list_functions()


class ListApps(Arguments):
    def call(self) -> Call:
        return Call("GET", "/apps")


class ListVolumes(Arguments):
    def call(self) -> Call:
        return Call("GET", "/volumes")


class CreateVolume(Arguments):
    name: str = Field(description="Letters, digits, dots, dashes and underscores", min_length=1)
    size_mb: int | None = Field(None, ge=1, description="Size in MiB; by default 256, or that of its source")
    clone_of: str | None = Field(None, description="Name of the volume to copy")

    def call(self) -> Call:
        return create_volume(self.name, self.size_mb, None if self.clone_of is None else {"volume": self.clone_of})


class DeleteVolume(Arguments):
    name: str = Field(description="The volume's name", min_length=1)

    def call(self) -> Call:
        return one_volume("DELETE", self.name)


class VolumeMount(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(description="Name of the volume")
    path: str | None = Field(None, description="Where it is mounted; by default /mnt/NAME")
    read_only: bool = Field(False, description="A copy of the volume as it is now, which is only read")


class CreateSandbox(Arguments):
    template: str = Field("code-interpreter", description="Name of the template; list_templates lists them")
    ttl_seconds: int | None = Field(
        None, ge=0, description="Seconds of disuse after which it is deleted; by default, the server's limit"
    )
    metadata: dict[str, str] | None = Field(None, description="Key-value labels to find it by")
    cpu: int | None = Field(None, ge=1, description="CPUs; by default, the template's")
    memory_mb: int | None = Field(None, ge=1, description="Memory in MiB; by default, the template's")
    disk_gb: int | None = Field(None, ge=1, description="Root disk in GiB; by default, the template's")
    network: Policy | None = Field(None, description=f"{_POLICY}; by default, the template's")
    volumes: list[VolumeMount] | None = Field(None, description="Volumes to mount; only one sandbox may write to each")

    def call(self) -> Call:
        own = {"disk_gb": self.disk_gb, "network": self.network}
        volumes = [each.model_dump(exclude_none=True) for each in self.volumes or ()] or None
        return create_sandbox(
            self.template, self.cpu, self.memory_mb, self.ttl_seconds, False, self.metadata, None, volumes, own
        )


class OfSandbox(Arguments):
    sandbox_id: str = Field(description="The sandbox's id", min_length=1)


class DeleteSandbox(OfSandbox):
    def call(self) -> Call:
        return Call("DELETE", f"/sandboxes/{segment(self.sandbox_id)}")


class RunCommand(OfSandbox):
    other_names = {"cmd": ("command", 1), "timeout_ms": ("timeout_seconds", 0.001)}
    command: str = Field(description="Shell command for `sh -c`, run as root", min_length=1)
    timeout_seconds: float = Field(
        60, gt=0, le=LONGEST_COMMAND_SECONDS, description="Time limit; the command is killed when it expires"
    )

    def call(self) -> Call:
        return exec_command(self.sandbox_id, self.command, self.timeout_seconds, False, self.timeout_seconds)


class GetNetwork(OfSandbox):
    def call(self) -> Call:
        return Call("GET", f"/sandboxes/{segment(self.sandbox_id)}/network")


class SetNetwork(OfSandbox):
    policy: Policy = Field(description=_POLICY)

    def call(self) -> Call:
        return set_network(self.sandbox_id, self.policy)


class AllowDestination(OfSandbox):
    host: str = Field(
        description="A host name, `*.DOMAIN`, an IPv4 address, a network such as 203.0.113.0/24, or a service: "
        "sandbox:ID:PORT"
    )
    port: int | None = Field(None, ge=1, le=65535, description="By default, every port")

    def call(self) -> Call:
        return allow_destination(self.sandbox_id, self.host, self.port)


class EgressLog(OfSandbox):
    since: int = Field(0, ge=0, description="Only records after the one with this `seq`")

    def call(self) -> Call:
        return Call("GET", f"/sandboxes/{segment(self.sandbox_id)}/egress/log", params={"since": str(self.since)})


class ReadFile(OfSandbox):
    path: str = Field(description="Absolute path")

    def call(self) -> Call:
        return replace(file_call("GET", self.sandbox_id, self.path), streamed=True)


class WriteFile(OfSandbox):
    path: str = Field(description="Absolute path; missing directories are created")
    content: str = Field(description="The complete new content, as text")

    def call(self) -> Call:
        return file_call("PUT", self.sandbox_id, self.path, content=self.content.encode())


class ListDir(OfSandbox):
    path: str = Field(_WORKSPACE, description="Absolute path")

    def call(self) -> Call:
        return file_call("GET", self.sandbox_id, self.path, "/dir")


class CreateDatabase(Arguments):
    label: str | None = Field(None, description="A name of your choice")

    def call(self) -> Call:
        return create_database(label=self.label)


class StartBuild(Arguments):
    files: dict[str, str] = Field(description="The input: texts by their relative paths", min_length=1)
    command: str = Field(
        description="Shell command that builds, run in the input; what it puts into $OUT is the result", min_length=1
    )
    template: str = Field("base", description="Name of the template; `agent` has a C compiler and Node")
    artifacts: list[str] = Field([], description="Paths below the input that are copied to $OUT afterwards")
    verify: bool = Field(False, description="Build twice, in machines that differ, and compare byte for byte")

    def call(self) -> Call:
        return start_build(self.model_dump(exclude={"files"}), pack_texts(self.files))


class GetBuild(Arguments):
    build_id: str = Field(description="The build's id", min_length=1)

    def call(self) -> Call:
        return Call("GET", f"/builds/{segment(self.build_id)}")


class GetDatabase(Arguments):
    database_id: str = Field(description="The database's id", min_length=1)

    def call(self) -> Call:
        return one_database("GET", self.database_id)


class BranchDatabase(Arguments):
    database_id: str = Field(description="The id of the database to copy", min_length=1)
    label: str | None = Field(None, description="Label of the copy", max_length=128)

    def call(self) -> Call:
        return clone_database(self.database_id, label=self.label)


class RestoreDatabase(Arguments):
    database_id: str = Field(description="The id of the database", min_length=1)
    target_time: str = Field(description="Such as 2026-01-31T09:30:00Z, within restore_window of get_database")
    label: str | None = Field(None, description="Label of the restored database", max_length=128)

    def call(self) -> Call:
        return clone_database(self.database_id, label=self.label, target_time=self.target_time)


class DeleteDatabase(Arguments):
    database_id: str = Field(description="The database's id", min_length=1)

    def call(self) -> Call:
        return one_database("DELETE", self.database_id)


class QueryDatabase(Arguments):
    database_id: str = Field(description="The database's id", min_length=1)
    sql: str = Field(description="One statement", min_length=1)
    params: list[Any] = Field([], description="A value for each of $1, $2, …")
    database: str = Field("pandastack", description="A database of the server")
    write: bool = Field(False, description="Let it change something; without it the server refuses that")
    max_rows: int = Field(200, ge=1, le=10_000, description="The most rows")

    def call(self) -> Call:
        wanted = self.model_dump(include={"sql", "params", "database", "max_rows"})
        return query_database(self.database_id, "query", None, 0.0, read_only=not self.write, **wanted)


class DeployFunction(Arguments):
    name: str = Field(description="The function's name", min_length=1)
    code: str = Field(
        description="The source: a file with `def handler(event, context)`, or for nodejs `exports.handler`",
        min_length=1,
    )
    runtime: str = Field("python", description="`python` or `nodejs`")
    secrets: list[str] = Field([], description="Names of secrets of the workspace that its runs get")

    def call(self) -> Call:
        return create_function(self.name, self.runtime, self.code, None, secrets=self.secrets or None)


class DeployVersion(Arguments):
    function_id: str = Field(description="The function's id", min_length=1)
    code: str = Field(description="The whole source, as for create_function", min_length=1)

    def call(self) -> Call:
        return deploy_function(self.function_id, self.code.encode(), None)


class InvokeFunction(Arguments):
    function_id: str = Field(description="The function's id", min_length=1)
    input: Any = Field(None, description="The event: any JSON")
    alias: str | None = Field(None, description="Run the version that this alias names, not the one that serves")

    def call(self) -> Call:
        return invoke_function(self.function_id, self.input, alias=self.alias)


class OneFunction(Arguments):
    function_id: str = Field(description="The function's id", min_length=1)


class SetFunctionAlias(OneFunction):
    alias: str = Field(description="The alias, such as `live`", min_length=1)
    version: int = Field(description="The version that it names: one that is kept")

    def call(self) -> Call:
        return function_alias("PUT", self.function_id, self.alias, self.version)


class FunctionRuns(OneFunction):
    def call(self) -> Call:
        return one_function("GET", self.function_id, "/runs")


class DeleteFunction(OneFunction):
    def call(self) -> Call:
        return one_function("DELETE", self.function_id)


class DeployApp(Arguments):
    app_id: str = Field(description="The app's id", min_length=1)
    git_ref: str | None = Field(None, description="Branch, tag or commit; by default, the app's own")

    def call(self) -> Call:
        body = {} if self.git_ref is None else {"git_ref": self.git_ref}
        return Call("POST", f"/apps/{segment(self.app_id)}/deploys", json=body)


class Shell(OfSandbox):
    other_names = {"cmd": ("command", 1), "timeout_seconds": ("timeout_ms", 1000)}
    command: str = Field(description="Shell command for `sh -c`, run as root", min_length=1)
    timeout_ms: float = Field(
        30000, gt=0, le=LONGEST_COMMAND_SECONDS * 1000, description="Time limit; the command is killed when it expires"
    )

    def call(self) -> Call:
        return exec_command(self.sandbox_id, self.command, self.timeout_ms / 1000, False, self.timeout_ms / 1000)
