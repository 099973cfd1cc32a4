"""The secrets of workspaces: stored encrypted, listed without their values."""

from __future__ import annotations

import builtins
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from pandastack.contract.network import SecretBinding, SetSecrets
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.model.secrets import new_placeholder
from pandastack.services.secrets.keys import Sealed, SecretKeys
from pandastack.services.secrets.spec import (
    LONGEST_ENVIRONMENT,
    MOST_SECRETS,
    NewSecret,
    checked_hosts,
    checked_name,
    checked_value,
)
from pandastack.store import Store
from pandastack.store import secrets as table
from pandastack.store.secrets import SecretRecord

METADATA_PREFIX = "secret."
"""Metadata below this name is stored here, and never returned."""

_FIELD = "network.secrets"


class Secrets:
    """Every look-up names a workspace; secrets of others are not found."""

    def __init__(self, store: Store, keys: SecretKeys) -> None:
        self._store = store
        self._keys = keys
        self._turn = anyio.Lock()
        """Nothing is encrypted with a former key while keys are changed."""

    async def create(self, caller: Caller, wanted: NewSecret) -> SecretRecord:
        """Store a secret. Raises :class:`ConflictError` for a name that exists, :class:`QuotaError` for too many."""
        name, hosts = checked_name(wanted.name), await anyio.to_thread.run_sync(checked_hosts, wanted.hosts)
        value = checked_value(wanted.value, bound=bool(hosts))
        async with self._turn:
            record = await self._sealed(caller.workspace, name, value, hosts=hosts)
            async with self._store.write() as connection:
                if await table.get(connection, caller.workspace, name) is not None:
                    hint = f"PUT /v1/secrets/{name} gives it another value"
                    raise ConflictError(f"name: the secret {name} exists already", field="name", hint=hint)
                if await table.count(connection, caller.workspace) >= MOST_SECRETS:
                    raise QuotaError(f"a workspace has at most {MOST_SECRETS} secrets")
                await table.add(connection, record)
        return record

    async def change(self, caller: Caller, name: str, value: str | None, hosts: Sequence[str] | None) -> SecretRecord:
        """Give a secret another value, or bind it to other hosts; None leaves it.

        Its placeholder stays, so that sandboxes which have it get the new value. Raises :class:`BadRequestError` when
        a value that was in sandboxes would be bound, or the reverse.
        """
        chosen = None if hosts is None else await anyio.to_thread.run_sync(checked_hosts, hosts)
        async with self._turn:
            former = await self.get(caller, name)
            chosen = former.hosts if chosen is None else chosen
            if bool(chosen) != bool(former.hosts):
                hint = "sandboxes know it by its other form; delete it, and create it anew"
                raise BadRequestError("hosts: a secret stays bound, or not bound", field="hosts", hint=hint)
            text = self.value(former) if value is None else checked_value(value, bound=bool(chosen))
            sealed = await self._seal(former, text)
            record = replace(former, hosts=chosen, key_id=sealed.key_id, sealed=sealed.data, updated_at=time.time())
            values: dict[str, Any] = {"hosts": list(record.hosts), "updated_at": record.updated_at}
            values |= {"key_id": record.key_id, "sealed": record.sealed}
            async with self._store.write() as connection:
                await table.change(connection, former, **values)
        return record

    async def list(self, caller: Caller) -> builtins.list[SecretRecord]:
        """The workspace's secrets, by name."""
        async with self._store.read() as connection:
            return await table.of_owner(connection, caller.workspace)

    async def get(self, caller: Caller, name: str) -> SecretRecord:
        """One secret. Raises :class:`NotFoundError`."""
        async with self._store.read() as connection:
            record = await table.get(connection, caller.workspace, name)
        if record is None:
            raise NotFoundError(f"secret not found: {name[:64]}", hint="GET /v1/secrets lists the secrets")
        return record

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete a secret. Raises :class:`NotFoundError`."""
        async with self._store.write() as connection:
            if not await table.remove(connection, caller.workspace, name):
                raise NotFoundError(f"secret not found: {name[:64]}", hint="GET /v1/secrets lists the secrets")

    def value(self, record: SecretRecord) -> str:
        """The value of a secret, for what uses it on this side. Raises :class:`ServerError`."""
        return self._keys.open(Sealed(record.key_id, record.sealed), _context(record))

    async def for_build(self, caller: Caller, name: str) -> str:
        """The value of a secret, as a file for a machine that builds. Raises :class:`BadRequestError` for one that is
        bound to hosts: its value never enters a machine."""
        record = await self.get(caller, name)
        if record.hosts:
            hint = "give the build a secret that is not bound, or the value itself"
            raise BadRequestError(f"secrets: {name} is bound to hosts", field="secrets", hint=hint)
        return self.value(record)

    async def granted(self, workspace: str, names: Sequence[str], *, missing: bool = False) -> SetSecrets:
        """What a sandbox with these secrets gets. Raises :class:`BadRequestError` for a name that is not there, unless
        ``missing`` ones are left out, and when they are too long together."""
        if not names:
            return SetSecrets()
        async with self._store.read() as connection:
            known = {each.name: each for each in await table.of_owner(connection, workspace)}
        unknown = [name for name in names if name not in known]
        if unknown and not missing:
            hint = "POST /v1/secrets creates one"
            raise BadRequestError(f"{_FIELD}: unknown secret {unknown[0][:64]!r}", field=_FIELD, hint=hint)
        bindings, env = [], {}
        for record in (known[name] for name in dict.fromkeys(names) if name in known):
            value = self.value(record)
            env[record.name] = record.placeholder if record.hosts else value
            if record.hosts:
                bindings.append(SecretBinding(record.name, record.placeholder, value, record.hosts))
        if sum(len(name) + len(text.encode()) + 2 for name, text in env.items()) > LONGEST_ENVIRONMENT:
            raise BadRequestError(f"{_FIELD}: over {LONGEST_ENVIRONMENT} bytes in total", field=_FIELD)
        return SetSecrets(tuple(bindings), env)

    async def keep_metadata(self, workspace: str, sandbox_id: str, values: Mapping[str, str]) -> None:
        """Store ``secret.*`` metadata of a sandbox, by its names without the prefix. It disappears with the sandbox."""
        if not values:
            return
        async with self._turn:
            records = [await self._sealed(workspace, name, text, owner=sandbox_id) for name, text in values.items()]
            async with self._store.write() as connection:
                await table.add(connection, *records)

    async def metadata(self, workspace: str, sandbox_id: str) -> dict[str, str]:
        """The ``secret.*`` metadata of a sandbox, by names without the prefix."""
        async with self._store.read() as connection:
            return {each.name: self.value(each) for each in await table.of_owner(connection, workspace, sandbox_id)}

    async def put_owned(self, workspace: str, owner: str, name: str, value: str) -> SecretRecord:
        """Store a value of ``owner``, in place of the one that it had under this name."""
        async with self._turn:
            record = await self._sealed(workspace, name, value, owner=owner)
            async with self._store.write() as connection:
                former = await table.get(connection, workspace, name, owner)
                if former is None:
                    await table.add(connection, record)
                    return record
                changed = {"updated_at": record.updated_at, "key_id": record.key_id, "sealed": record.sealed}
                await table.change(connection, former, **changed)
        return replace(record, created_at=former.created_at)

    async def owned(self, workspace: str, owner: str) -> builtins.list[SecretRecord]:
        """The values of ``owner``, by name."""
        async with self._store.read() as connection:
            return await table.of_owner(connection, workspace, owner)

    async def owned_value(self, workspace: str, owner: str, name: str) -> str | None:
        """A value of ``owner``; None when there is none. Raises :class:`ServerError`."""
        async with self._store.read() as connection:
            record = await table.get(connection, workspace, name, owner)
        return None if record is None else self.value(record)

    async def remove_owned(self, workspace: str, owner: str, name: str) -> bool:
        """Delete a value of ``owner``; False when there is none."""
        async with self._store.write() as connection:
            return await table.remove(connection, workspace, name, owner)

    async def all_owned(self, owner: str) -> builtins.list[tuple[str, str]]:
        """Workspace and name of every value of ``owner``."""
        async with self._store.read() as connection:
            return await table.names_of(connection, owner)

    async def keep_owned(self, owner: str, names: Collection[str]) -> None:
        """Delete the values of ``owner``, in all workspaces, but those with these names: what a crash has left."""
        async with self._store.write() as connection:
            for workspace, name in await table.names_of(connection, owner):
                if name not in names:
                    await table.remove(connection, workspace, name, owner)

    async def rotate_key(self) -> int:
        """Encrypt everything anew with a new key, and forget the former ones. Returns how many secrets there are.

        When it is interrupted, each secret has a key that is in the file still.
        """
        async with self._turn:
            await anyio.to_thread.run_sync(self._keys.add)
            async with self._store.write() as connection:
                records = await table.load_all(connection)
                for record in records:
                    sealed = await self._seal(record, self.value(record))
                    await table.change(connection, record, key_id=sealed.key_id, sealed=sealed.data)
            await anyio.to_thread.run_sync(self._keys.drop_former)
        return len(records)

    async def _seal(self, record: SecretRecord, value: str) -> Sealed:
        return await anyio.to_thread.run_sync(self._keys.seal, value, _context(record))  # may write the key file

    async def _sealed(
        self, workspace: str, name: str, value: str, *, owner: str = table.WORKSPACE, hosts: tuple[str, ...] = ()
    ) -> SecretRecord:
        now = time.time()
        record = SecretRecord(workspace, name, new_placeholder(), "", b"", now, now, owner, hosts)
        sealed = await self._seal(record, value)
        return replace(record, key_id=sealed.key_id, sealed=sealed.data)


def split_metadata(metadata: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Metadata that is shown, and the values of ``secret.*`` by the rest of their names.

    Raises :class:`BadRequestError` for a name that is too long.
    """
    shown = {key: text for key, text in metadata.items() if not key.startswith(METADATA_PREFIX)}
    hidden = {key.removeprefix(METADATA_PREFIX): metadata[key] for key in metadata if key not in shown}
    if any(len(key) > 256 for key in hidden):
        raise BadRequestError("metadata: names of secrets have at most 256 characters", field="metadata")
    return shown, hidden


def _context(record: SecretRecord) -> str:
    return f"{record.workspace}/{record.owner}/{record.name}"
