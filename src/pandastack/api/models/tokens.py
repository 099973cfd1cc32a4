"""The caller and the workspace's tokens."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp
from pandastack.model.caller import Caller
from pandastack.store.tokens import TokenRecord


class Me(Answer):
    """The caller that a token identifies. A server has one workspace, which is both user and organisation."""

    id: str
    user_id: str
    name: str
    email: str
    workspace: str
    current_org: None
    orgs: list[Any]
    auth_method: str
    token_prefix: str

    @classmethod
    def of(cls, caller: Caller) -> Self:
        return cls(
            id=caller.workspace,
            user_id=caller.workspace,
            name=caller.workspace,
            email="",
            workspace=caller.workspace,
            current_org=None,
            orgs=[],
            auth_method="token",
            token_prefix=caller.token,
        )


class CreateToken(Body):
    label: str | None = Field(None, max_length=200)
    name: str | None = Field(None, max_length=200, description="Same as `label`")
    expires_in_days: Annotated[WholeNumber, Field(ge=1, le=36500)] | None = None


class Token(Answer):
    """A token. Some clients read its name, others its label."""

    token: str | None = omitted_if_none("The token itself; only in the answer to its creation")
    prefix: str
    name: str
    label: str
    created_at: str
    expires_at: str | None

    @classmethod
    def of(cls, record: TokenRecord, text: str | None = None) -> Self:
        """``text`` is the token itself, shown only at its creation."""
        return cls(
            token=text,
            prefix=record.prefix,
            name=record.label,
            label=record.label,
            created_at=timestamp(record.created_at),
            expires_at=None if record.expires_at is None else timestamp(record.expires_at),
        )
