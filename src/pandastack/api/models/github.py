"""The connection to GitHub. Tokens are in requests only."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, omitted_if_none
from pandastack.services.github.connections import Connection


class ConnectGitHub(Body):
    token: str = Field(description="A token of GitHub's; never returned")


class GitHubConnection(Answer):
    login: str = Field(description="Whose token it is; empty for tokens of an installation")
    webhook_url: str = Field(description="Where GitHub is to send events")
    webhook_secret: str | None = omitted_if_none("What GitHub is to sign them with; only where a token is stored")
    requests_left: int | None = omitted_if_none("What GitHub allows the token this hour, by its last answer")

    @classmethod
    def of(cls, connection: Connection, base_url: str, left: int | None, *, secret: bool) -> Self:
        return cls(
            login=connection.login,
            webhook_url=f"{base_url}/v1/github/hooks/{connection.id}",
            webhook_secret=connection.hook_secret if secret else None,
            requests_left=left,
        )


class GitHubEventTaken(Answer):
    ok: Literal[True] = True
