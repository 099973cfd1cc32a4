"""Secrets. Their values are in requests only."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, timestamp
from pandastack.services.secrets.spec import NewSecret
from pandastack.store.secrets import SecretRecord


class CreateSecret(Body):
    name: str = Field(description="Also the variable's name in sandboxes", examples=["API_KEY"])
    value: str = Field(description="Never returned")
    hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that may get the value: names, or `*.example.org`. Without any, the value itself is set in "
        "the environment",
    )

    def wanted(self) -> NewSecret:
        return NewSecret(self.name, self.value, tuple(self.hosts))


class ChangeSecret(Body):
    value: str | None = Field(None, description="Never returned")
    hosts: list[str] | None = Field(None, description="Hosts that may get the value")


class Secret(Answer):
    name: str
    hosts: list[str] = Field(description="Hosts that may get the value; empty: it is set in the environment")
    placeholder: str | None = Field(description="What a sandbox gets in its place; null without hosts")
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, record: SecretRecord) -> Self:
        return cls(
            name=record.name,
            hosts=list(record.hosts),
            placeholder=record.placeholder if record.hosts else None,
            created_at=timestamp(record.created_at),
            updated_at=timestamp(record.updated_at),
        )


class Secrets(Answer):
    secrets: list[Secret]


class KeyRotated(Answer):
    secrets: int = Field(description="Number of secrets that were encrypted anew")
