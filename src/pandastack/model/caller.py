"""The caller of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a member may do in a workspace."""

    OWNER = "owner"
    """May do everything. There are no other roles yet."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A member of a workspace, who sees only its objects. ``token`` is the prefix of the API token in use;
    ``is_server``: no member, but a part of the server, which may use the sandboxes of products."""

    workspace: str
    member: str
    role: Role = Role.OWNER
    token: str = ""
    is_server: bool = False

    @classmethod
    def server(cls, workspace: str) -> Caller:
        """The server itself, acting in a workspace on its own initiative."""
        return cls(workspace, "server", is_server=True)
