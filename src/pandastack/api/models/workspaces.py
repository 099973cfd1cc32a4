"""The caller's workspace and its settings."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, timestamp
from pandastack.model.previews import Visibility, parse_visibility
from pandastack.store.workspaces import WorkspaceRecord


class PatchWorkspace(Body):
    previews: str | None = Field(
        None, description="`private`: previews of all sandboxes want a token, whatever a sandbox says; or `open`"
    )

    def visibility(self) -> Visibility | None:
        """Raises :class:`BadRequestError`."""
        return None if self.previews is None else parse_visibility(self.previews, "previews")


class Workspace(Answer):
    id: str
    created_at: str
    previews: str

    @classmethod
    def of(cls, record: WorkspaceRecord) -> Self:
        return cls(id=record.id, created_at=timestamp(record.created_at), previews=record.previews)
