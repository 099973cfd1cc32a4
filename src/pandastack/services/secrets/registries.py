"""What workspaces sign in to registries of images with: stored like secrets, listed without their passwords."""

from __future__ import annotations

import builtins
import json
from dataclasses import dataclass

from pandastack.errors import BadRequestError, NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.model.image_reference import parse_registry
from pandastack.model.registries import MOST_REGISTRIES, RegistryCredential
from pandastack.services.secrets.secrets import Secrets
from pandastack.store.secrets import REGISTRIES, SecretRecord

LONGEST_USERNAME = 256
LONGEST_PASSWORD = 8 * 1024
"""Bytes: cloud registries take a whole JSON key for a password."""

MOST_BYTES = 12 * 1024
"""Bytes of all names and passwords of a workspace: they go along with each build."""


@dataclass(frozen=True, slots=True)
class RegistryRecord:
    """Times are in epoch seconds."""

    host: str
    username: str
    created_at: float
    updated_at: float


class Registries:
    """Every look-up names a workspace; credentials of others are not found."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def put(self, caller: Caller, host: str, username: str, password: str) -> RegistryRecord:
        """Store what the workspace signs in to ``host`` with, in place of what it had. Nothing is sent there.

        Raises :class:`BadRequestError`, which does not repeat the password, and :class:`QuotaError` for too many.
        """
        credential = RegistryCredential(parse_registry(host, field="host"), _username(username), _password(password))
        others = [each for each in await self.credentials(caller.workspace) if each.host != credential.host]
        if len(others) >= MOST_REGISTRIES:
            raise QuotaError(f"a workspace has credentials for at most {MOST_REGISTRIES} registries")
        size = sum(len(each.username.encode()) + len(each.password.encode()) for each in (*others, credential))
        if size > MOST_BYTES:
            raise QuotaError(f"a workspace's credentials have at most {MOST_BYTES >> 10} KiB together")
        value = json.dumps({"username": credential.username, "password": credential.password})
        return self._record(await self._secrets.put_owned(caller.workspace, REGISTRIES, credential.host, value))

    async def list(self, caller: Caller) -> builtins.list[RegistryRecord]:
        """The registries that the workspace has credentials for, by name."""
        return [self._record(each) for each in await self._secrets.owned(caller.workspace, REGISTRIES)]

    async def delete(self, caller: Caller, host: str) -> None:
        """Forget the credentials for ``host``. Raises :class:`NotFoundError`."""
        name = parse_registry(host, field="host")
        if not await self._secrets.remove_owned(caller.workspace, REGISTRIES, name):
            raise NotFoundError(f"no credentials for {name}", hint="GET /v1/registries lists those that there are")

    async def credentials(self, workspace: str) -> tuple[RegistryCredential, ...]:
        """All of a workspace, for a build of its own."""
        records = await self._secrets.owned(workspace, REGISTRIES)
        return tuple(RegistryCredential(each.name, **self._opened(each)) for each in records)

    def _record(self, record: SecretRecord) -> RegistryRecord:
        return RegistryRecord(record.name, self._opened(record)["username"], record.created_at, record.updated_at)

    def _opened(self, record: SecretRecord) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._secrets.value(record))
        return found


def _username(text: str) -> str:
    if not 0 < len(text) <= LONGEST_USERNAME or not text.isprintable() or ":" in text:
        hint = "one line without a colon"
        raise BadRequestError(
            f"username: must have from 1 to {LONGEST_USERNAME} characters", field="username", hint=hint
        )
    return text


def _password(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequestError("password: must be text", field="password") from None
    if not 0 < size <= LONGEST_PASSWORD:
        raise BadRequestError(f"password: must have from 1 to {LONGEST_PASSWORD} bytes", field="password")
    if not all(each.isprintable() or each in "\t\r\n" for each in text):
        raise BadRequestError("password: must not contain control characters", field="password")
    return text
