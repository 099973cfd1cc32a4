"""Aliases: names of a workspace's own for versions of a function, which point to another one when it says so."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping

import anyio

from pandastack.errors import BadRequestError, NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.products.functions.records import Records
from pandastack.services import ControlPlane
from pandastack.store import functions as table
from pandastack.store.functions import AliasRecord, FunctionRecord, VersionRecord

MOST_ALIASES = 16
"""Of a function: each may keep a version."""

_NAME = re.compile(r"(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


class Aliases:
    """Those of all functions. A change waits for a deploy of its function, which prunes versions."""

    def __init__(self, plane: ControlPlane, records: Records, locks: defaultdict[str, anyio.Lock]) -> None:
        self._plane = plane
        self._records = records
        self._locks = locks

    def list(self, caller: Caller, function_id: str) -> list[AliasRecord]:
        """A function's aliases, by name. Raises :class:`NotFoundError`."""
        return self._records.aliases(self._records.find(caller, function_id))

    def get(self, caller: Caller, function_id: str, name: str) -> AliasRecord:
        """One alias. Raises :class:`NotFoundError`."""
        return find_alias(self._records, self._records.find(caller, function_id), name)

    async def put(self, caller: Caller, function_id: str, name: str, version: int) -> AliasRecord:
        """Have an alias name a version, which is kept as long as it does.

        Raises :class:`BadRequestError`, :class:`QuotaError`, and :class:`NotFoundError` for a version that is not kept.
        """
        checked_alias(name)
        async with self._locks[self._records.find(caller, function_id).id]:
            record, now = self._records.find(caller, function_id), time.time()
            kept_version(self._records, record, version)
            known = {each.name: each for each in self._records.aliases(record)}
            if name not in known and len(known) >= MOST_ALIASES:
                raise QuotaError(f"a function has at most {MOST_ALIASES} aliases", hint="delete one")
            made = AliasRecord(record.id, name, version, known[name].created_at if name in known else now, now)
            async with self._plane.store.write() as connection:
                await table.put_alias(connection, made)
            self._records.keep_alias(made)
        return made

    async def delete(self, caller: Caller, function_id: str, name: str) -> None:
        """Delete an alias; its version stays until a deploy prunes it. Raises :class:`NotFoundError`."""
        found = self.get(caller, function_id, name)
        async with self._plane.store.write() as connection:
            await table.remove_alias(connection, found.function_id, found.name)
        self._records.forget_alias(found)


def checked_alias(name: str) -> str:
    """The name of an alias. Raises :class:`BadRequestError`."""
    if not _NAME.fullmatch(name):
        hint = "up to 64 letters, digits, _ and -, not only digits"
        raise BadRequestError(f"name: {name[:64]!r} cannot be the name of an alias", field="name", hint=hint)
    return name


def kept_version(records: Records, record: FunctionRecord, number: int) -> VersionRecord:
    """A version that is kept. Raises :class:`NotFoundError`."""
    found = records.version(record, number)
    if found is None:
        kept = [each.version for each in records.versions(record)]
        hint = f"kept are {', '.join(map(str, kept)) or 'none'}"
        raise NotFoundError("version: it is not kept", field="version", hint=hint)
    return found


def find_alias(records: Records, record: FunctionRecord, name: str) -> AliasRecord:
    """An alias of a function. Raises :class:`NotFoundError`."""
    found: Mapping[str, AliasRecord] = {each.name: each for each in records.aliases(record)}
    if name not in found:
        hint = f"its aliases are {', '.join(found) or 'none'}"
        raise NotFoundError(f"alias: {name[:64]!r} is not there", field="alias", hint=hint)
    return found[name]


def chosen_version(
    records: Records, record: FunctionRecord, version: int | None, alias: str | None
) -> VersionRecord | None:
    """The version that a call wants: the one that is named, else the one that serves, None without any.

    Raises :class:`BadRequestError` for both names, and :class:`NotFoundError`.
    """
    if alias is not None and version is not None:
        raise BadRequestError("alias: either an alias or a version", field="alias")
    if alias is not None:
        version = find_alias(records, record, alias).version
    return records.version(record, record.version) if version is None else kept_version(records, record, version)
