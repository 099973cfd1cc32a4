"""Keys of SSH clients, and the door that they come to."""

from __future__ import annotations

import builtins
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pandastack.errors import BadRequestError, ConflictError, NotFoundError, QuotaError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.services.records.registry import Registry
from pandastack.services.ssh.public_key import parsed_public_key
from pandastack.store import Store, ssh_keys
from pandastack.store.ssh_keys import SshKeyRecord

_MOST_KEYS = 100
_MOST_NAME = 100
_USED_SECONDS = 60.0
"""How exact the time of the last use is: each login asks several times."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gateway listens for SSH, and the public key that it shows (``ssh-ed25519 AAAA…``)."""

    port: int
    host_key: str


class Ssh:
    """Adds, lists, removes and checks keys; remembers what the gateway says about its door."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._door: Door | None = None

    @property
    def door(self) -> Door:
        """The door. Raises :class:`UnavailableError` while there is none."""
        if self._door is None:
            raise UnavailableError(
                "no gateway serves SSH", hint="it may still be starting; pandastack up --ssh-port none turns it off"
            )
        return self._door

    def announced(self, door: Door) -> None:
        """Remember what the gateway reports."""
        self._door = door

    async def add(self, caller: Caller, text: str, name: str | None) -> SshKeyRecord:
        """Add a public key to the workspace; its name is by default the key's own comment.

        Raises :class:`BadRequestError`, :class:`ConflictError` when it is there already, :class:`QuotaError`.
        """
        key = parsed_public_key(text)
        chosen = name if name is not None else key.comment
        if len(chosen) > _MOST_NAME or not (chosen.isprintable() or not chosen):
            raise BadRequestError(f"name: must be at most {_MOST_NAME} printable characters", field="name")
        record = SshKeyRecord(
            str(uuid.uuid4()), caller.workspace, caller.member, chosen, key.fingerprint, key.line, time.time()
        )
        async with self._store.write() as connection:
            present = await ssh_keys.of_workspace(connection, caller.workspace)
            if any(each.fingerprint == key.fingerprint for each in present):
                raise ConflictError(f"public_key: {key.fingerprint} was added before", field="public_key")
            if len(present) >= _MOST_KEYS:
                raise QuotaError(f"the workspace has {_MOST_KEYS} SSH keys already", hint="delete one of them")
            await ssh_keys.add(connection, record)
        return record

    async def list(self, caller: Caller) -> builtins.list[SshKeyRecord]:
        """The workspace's keys, oldest first."""
        async with self._store.read() as connection:
            return await ssh_keys.of_workspace(connection, caller.workspace)

    async def delete(self, caller: Caller, key_id: str) -> None:
        """Remove a key: it opens no connection any more, and the gateway ends those that it opened within seconds.

        Raises :class:`NotFoundError`.
        """
        async with self._store.write() as connection:
            if not await ssh_keys.remove(connection, caller.workspace, key_id):
                raise NotFoundError("SSH key not found", hint="pandastack ssh-key list shows the keys that exist")

    async def revoked(self, logins: Sequence[tuple[str, str]]) -> builtins.list[tuple[str, str]]:
        """Those of ``logins``, each a sandbox and a fingerprint, that :meth:`allows` would refuse. No key counts as
        used."""
        records = {sandbox_id: self._registry.find(sandbox_id) for sandbox_id, _ in logins}
        workspaces = {record.workspace for record in records.values() if record is not None}
        async with self._store.read() as connection:
            keys = {
                (workspace, key.fingerprint)
                for workspace in workspaces
                for key in await ssh_keys.of_workspace(connection, workspace)
            }
        return [
            (sandbox_id, fingerprint)
            for sandbox_id, fingerprint in logins
            if (record := records[sandbox_id]) is None or (record.workspace, fingerprint) not in keys
        ]

    async def allows(self, sandbox_id: str, fingerprint: str) -> bool:
        """Whether a key of the sandbox's own workspace has this fingerprint. Says nothing about why not."""
        record = self._registry.find(sandbox_id)
        if record is None or record.product is not None:
            return False
        async with self._store.read() as connection:
            key = await ssh_keys.by_fingerprint(connection, record.workspace, fingerprint)
        if key is None:
            return False
        now = time.time()
        if key.last_used_at is None or now - key.last_used_at > _USED_SECONDS:
            async with self._store.write() as connection:
                await ssh_keys.used(connection, key.id, now)
        return True
