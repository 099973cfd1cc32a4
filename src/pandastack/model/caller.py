"""Who asks for something."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a member may do in a workspace."""

    OWNER = "owner"
    """Everything. There are no others yet."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A member of a workspace, who sees only what belongs to it. ``token`` is the beginning of the API token in use."""

    workspace: str
    member: str
    role: Role = Role.OWNER
    token: str = ""

    @classmethod
    def server(cls, workspace: str) -> Caller:
        """The server itself, which acts in a workspace without having been asked."""
        return cls(workspace, "server")
