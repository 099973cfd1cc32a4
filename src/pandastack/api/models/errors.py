"""The common form of all errors."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from pandastack.api.models.base import Answer, omitted_if_none
from pandastack.errors import AuthError, CommandTimeoutError, PandastackError, StorageFullError, to_public_body

STORAGE = ("reason", "provisioned_bytes", "fs_size_bytes", "fs_free_bytes", "oversub_factor", "free_reserve_bytes")
"""The facts about a full storage."""


class Error(Answer):
    error: str = Field(description="What went wrong, in a sentence")
    code: str = Field(description="Stable, for programs")
    hint: str | None = omitted_if_none("What to do about it")
    field: str | None = omitted_if_none("The part of the request that is wrong")
    detail: Any = omitted_if_none()
    stdout: str | None = omitted_if_none("The output of a command until its timeout")
    stderr: str | None = omitted_if_none()
    restarted: bool | None = omitted_if_none("After a cell's timeout: whether its session lost its state")
    reason: str | None = omitted_if_none("Without room for a volume: `provisioned` or `free_space`")
    provisioned_bytes: int | None = omitted_if_none("Bytes of storage that volumes and sandboxes may come to take")
    fs_size_bytes: int | None = omitted_if_none("The size of the storage")
    fs_free_bytes: int | None = omitted_if_none("What is free of it")
    oversub_factor: float | None = omitted_if_none("How many times it may be promised")
    free_reserve_bytes: int | None = omitted_if_none("What always stays free")

    @classmethod
    def of(cls, error: PandastackError) -> Self:
        """``error`` in the form that clients of the public API expect."""
        body = to_public_body(error)
        if isinstance(error, AuthError):
            body.update(error="unauthorized", detail=error.message)
        elif isinstance(error, CommandTimeoutError):
            body.update(body.pop("detail", {}))
        elif isinstance(error, StorageFullError):  # clients of the official API find the numbers beside the error
            body.update({key: value for key, value in body.get("detail", {}).items() if key in STORAGE})
        return cls(**body)
