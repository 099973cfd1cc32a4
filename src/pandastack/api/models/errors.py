"""The common form of all errors."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from pandastack.api.models.base import Answer, omitted_if_none
from pandastack.errors import AuthError, CommandTimeoutError, PandastackError, to_public_body


class Error(Answer):
    error: str = Field(description="What went wrong, in a sentence")
    code: str = Field(description="Stable, for programs")
    hint: str | None = omitted_if_none("What to do about it")
    field: str | None = omitted_if_none("The part of the request that is wrong")
    detail: Any = omitted_if_none()
    stdout: str | None = omitted_if_none("The output of a command until its timeout")
    stderr: str | None = omitted_if_none()
    restarted: bool | None = omitted_if_none("After a cell's timeout: whether its session lost its state")

    @classmethod
    def of(cls, error: PandastackError) -> Self:
        """``error`` in the form that clients of the public API expect."""
        body = to_public_body(error)
        if isinstance(error, AuthError):
            body.update(error="unauthorized", detail=error.message)
        elif isinstance(error, CommandTimeoutError):
            body.update(body.pop("detail", {}))
        return cls(**body)
