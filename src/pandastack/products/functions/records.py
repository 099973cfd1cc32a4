"""The records of functions and their versions, in memory and in the store, and the files of their code."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from pandastack.errors import ConflictError, NotFoundError, QuotaError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.model.webhooks import Occurrence
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import AliasRecord, FunctionRecord, FunctionState, VersionRecord
from pandastack.store.secrets import FUNCTIONS


@dataclass(frozen=True, slots=True)
class Function:
    """A function as its owner sees it. ``serving`` is the version that serves, None before the first deploy."""

    record: FunctionRecord
    env: Mapping[str, str]
    serving: VersionRecord | None


def code_directory(configured: str, database_url: str) -> Path | None:
    """Where the code of functions is: as configured, else beside a database that is a file."""
    if configured:
        return Path(configured).expanduser().absolute()
    scheme, _, path = database_url.partition(":///")
    return Path(path).with_name("functions") if scheme.startswith("sqlite") and path else None


class Records:
    """Those of all workspaces. A look costs no query; every change is in the store before it is seen."""

    def __init__(self, plane: ControlPlane, directory: Path | None) -> None:
        self._plane = plane
        self._directory = directory
        self._records: dict[str, FunctionRecord] = {}
        self._env: dict[str, dict[str, str]] = {}
        self._aliases: defaultdict[str, dict[str, AliasRecord]] = defaultdict(dict)
        self._versions: defaultdict[str, dict[int, VersionRecord]] = defaultdict(dict)

    async def load(self) -> list[FunctionRecord]:
        """Read and return what earlier servers left; code without a record goes."""
        async with self._plane.store.read() as connection:
            self._records = {each.id: each for each in await table.load_all(connection)}
            for each in await table.load_versions(connection):
                self._versions[each.function_id][each.version] = each
            for alias in await table.load_aliases(connection):
                self.keep_alias(alias)
        for record in self._records.values():
            text = await self._plane.secrets.owned_value(record.workspace, FUNCTIONS, record.id)
            self._env[record.id] = json.loads(text) if text else {}
        await anyio.to_thread.run_sync(self._forget_code)
        return list(self._records.values())

    def snapshots(self) -> set[str]:
        """The snapshots of all versions."""
        return {each.snapshot_id for versions in self._versions.values() for each in versions.values()}

    def get(self, function_id: str) -> FunctionRecord | None:
        """The record, of any workspace and in any state, or None."""
        return self._records.get(function_id)

    def find(self, caller: Caller, function_id: str) -> FunctionRecord:
        """A record of the caller's workspace. Raises :class:`NotFoundError`."""
        record = self._records.get(function_id)
        if record is None or record.workspace != caller.workspace or record.state is FunctionState.DELETING:
            raise unknown_function(function_id)
        return record

    def of(self, caller: Caller) -> list[FunctionRecord]:
        """Those of the caller's workspace, newest first."""
        mine = [each for each in self._records.values() if each.workspace == caller.workspace]
        return [each for each in reversed(mine) if each.state is not FunctionState.DELETING]

    def seen(self, record: FunctionRecord) -> Function:
        """A function as its owner sees it."""
        return Function(record, self._env.get(record.id, {}), self.version(record, record.version))

    def version(self, record: FunctionRecord, number: int) -> VersionRecord | None:
        """A version that is kept, or None."""
        return self._versions.get(record.id, {}).get(number)

    def versions(self, record: FunctionRecord) -> list[VersionRecord]:
        """Those that are kept, newest first."""
        return [each for _, each in sorted(self._versions.get(record.id, {}).items(), reverse=True)]

    def aliases(self, record: FunctionRecord) -> list[AliasRecord]:
        """Its aliases, by name."""
        return [each for _, each in sorted(self._aliases.get(record.id, {}).items())]

    def keep_alias(self, alias: AliasRecord) -> None:
        """Take an alias that is stored."""
        self._aliases[alias.function_id][alias.name] = alias

    def forget_alias(self, alias: AliasRecord) -> None:
        """Drop an alias that is not stored any more."""
        self._aliases[alias.function_id].pop(alias.name, None)

    async def add(self, record: FunctionRecord, env: Mapping[str, str]) -> None:
        """Add one. Raises :class:`ConflictError` for a name that is taken, and :class:`QuotaError`."""
        most = self._plane.settings.max_functions
        if sum(each.workspace == record.workspace for each in self._records.values()) >= most:
            hint = "delete one, or ask the operator to raise PANDASTACK_MAX_FUNCTIONS"
            raise QuotaError(f"a workspace has at most {most} functions", hint=hint)
        self._check_name(record, record.name)
        self._records[record.id] = record  # at once: the next one counts it
        try:
            async with self._plane.store.write() as connection:
                await table.add(connection, record)
            await self.keep_env(record, env)
        except BaseException:
            del self._records[record.id]
            raise

    async def change(self, record: FunctionRecord, **values: Any) -> FunctionRecord:
        """Set fields; returns the record as it is then. Raises :class:`ConflictError` for a name that is taken."""
        if "name" in values:
            self._check_name(record, values["name"])
        async with self._plane.store.write() as connection:
            await table.change(connection, record.id, **values)
        self._records[record.id] = changed = replace(self._records.get(record.id, record), **values)
        return changed

    async def keep_env(self, record: FunctionRecord, env: Mapping[str, str]) -> None:
        """Store the environment in place of the former one."""
        if env:
            await self._plane.secrets.put_owned(record.workspace, FUNCTIONS, record.id, json.dumps(dict(env)))
        else:
            await self._plane.secrets.remove_owned(record.workspace, FUNCTIONS, record.id)
        self._env[record.id] = dict(env)

    async def add_version(self, record: FunctionRecord, made: VersionRecord, code: bytes, now: float) -> FunctionRecord:
        """Add a version, and have it serve."""
        await anyio.to_thread.run_sync(self._keep_code, made, code)
        values: dict[str, Any] = {"version": made.version, "last_version": made.version, "updated_at": now}
        async with self._plane.store.write() as connection:
            await table.add_version(connection, made)
            await table.change(connection, record.id, **values)
            woken = await self._plane.outbox.put(connection, deploy_ended(record, version=made.version))
        self._plane.outbox.announce(woken)
        self._versions[record.id][made.version] = made
        self._records[record.id] = changed = replace(self._records[record.id], **values)
        return changed

    async def remove_version(self, made: VersionRecord) -> None:
        """Remove a version and its code."""
        async with self._plane.store.write() as connection:
            await table.remove_version(connection, made.function_id, made.version)
        self._versions[made.function_id].pop(made.version, None)
        path = self._code(made.function_id, made.version)
        await anyio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))

    async def code(self, made: VersionRecord) -> bytes:
        """The code of a version, compressed. Raises :class:`NotFoundError` when its file is lost."""
        try:
            return await anyio.to_thread.run_sync(self._code(made.function_id, made.version).read_bytes)
        except OSError as error:
            raise NotFoundError(f"the code of version {made.version} is not stored") from error

    async def remove(self, record: FunctionRecord) -> None:
        """Remove a function with its environment, versions, runs and code."""
        await self._plane.secrets.remove_owned(record.workspace, FUNCTIONS, record.id)
        async with self._plane.store.write() as connection:
            await table.remove(connection, record.id)
        self._records.pop(record.id, None)
        self._env.pop(record.id, None)
        self._versions.pop(record.id, None)
        self._aliases.pop(record.id, None)
        await anyio.to_thread.run_sync(self._forget_code)

    def scratch(self) -> Path:
        """The directory for deploys in progress. Raises :class:`UnavailableError` without one."""
        if self._directory is None:
            hint = "the operator sets PANDASTACK_FUNCTIONS_DIR"
            raise UnavailableError("this server has no place for functions", hint=hint)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory

    def _code(self, function_id: str, version: int) -> Path:
        return self.scratch() / function_id / str(version)

    def _keep_code(self, made: VersionRecord, code: bytes) -> None:
        path = self._code(made.function_id, made.version)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(code)

    def _forget_code(self) -> None:
        """Delete the files that no record has."""
        if self._directory is None or not self._directory.is_dir():
            return
        for folder in self._directory.iterdir():
            if folder.name not in self._records and not folder.name.startswith("deploy-"):
                shutil.rmtree(folder, ignore_errors=True)

    def _check_name(self, record: FunctionRecord, name: str) -> None:
        for each in self._records.values():
            if each.workspace == record.workspace and each.name == name and each.id != record.id:
                raise _taken(name)


def deploy_ended(record: FunctionRecord, *, version: int | None = None, error: str | None = None) -> Occurrence:
    """What webhooks are told of a deploy that has made a ``version``, or failed with an ``error``."""
    status = "success" if error is None else "error"
    data = {"id": record.id, "name": record.name, "status": status, "version": version, "error": error and error[:2000]}
    return Occurrence(record.workspace, "deploy.ended", record.id, data)


def _taken(name: str) -> ConflictError:
    hint = "deploy to that one, or choose another name"
    return ConflictError(f"name: there is a function {name!r} already", field="name", hint=hint)


def unknown_function(function_id: str) -> NotFoundError:
    """The error for an unknown id, or one of another workspace."""
    return NotFoundError(f"function not found: {function_id[:64]}", hint="GET /v1/functions lists the functions")
