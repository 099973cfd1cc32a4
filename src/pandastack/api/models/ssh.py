"""SSH keys, and where SSH clients connect."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, timestamp, timestamp_or_none
from pandastack.services.ssh.ssh import Door
from pandastack.store.ssh_keys import SshKeyRecord


class AddSshKey(Body):
    public_key: str = Field(max_length=10_000, description="One line, as in `~/.ssh/id_ed25519.pub`")
    name: str | None = Field(None, max_length=200, description="By default the key's own comment")


class SshKey(Answer):
    """A public key that opens the workspace's sandboxes."""

    id: str
    name: str
    fingerprint: str
    public_key: str
    created_at: str
    last_used_at: str | None

    @classmethod
    def of(cls, record: SshKeyRecord) -> Self:
        return cls(
            id=record.id,
            name=record.name,
            fingerprint=record.fingerprint,
            public_key=record.public_key,
            created_at=timestamp(record.created_at),
            last_used_at=timestamp_or_none(record.last_used_at),
        )


class SshDoor(Answer):
    """Where SSH clients connect; the user name is the sandbox's id. The host is the one of this server."""

    port: int
    host_key: str

    @classmethod
    def of(cls, door: Door) -> Self:
        return cls(port=door.port, host_key=door.host_key)
