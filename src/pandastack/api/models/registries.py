"""Credentials for registries of images. Passwords are in requests only."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, timestamp
from pandastack.services.secrets.registries import RegistryRecord


class PutRegistry(Body):
    username: str
    password: str = Field(description="Never returned")


class Registry(Answer):
    host: str = Field(description="Host, with its port if it has one", examples=["registry.example:5000"])
    username: str
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, record: RegistryRecord) -> Self:
        return cls(
            host=record.host,
            username=record.username,
            created_at=timestamp(record.created_at),
            updated_at=timestamp(record.updated_at),
        )


class Registries(Answer):
    registries: list[Registry]
