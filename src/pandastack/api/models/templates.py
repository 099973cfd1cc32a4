"""Templates."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

from pydantic import Field

from pandastack.api.models.base import Answer
from pandastack.contract import templates


class Template(Answer):
    name: str
    label: str = Field(description="The same as `name`")
    description: str
    cpu: int
    memory_mb: int
    disk_mb: int
    max_cpu: int = Field(description="The most CPUs that a create may ask for")
    min_memory_mb: int
    max_memory_mb: int = Field(description="The most memory that a create may ask for")
    size_bytes: int = Field(description="Size of the image and the captured memory")
    is_global: bool = Field(description="Every workspace can use it")
    workspace: str | None = Field(description="The workspace that it belongs to, unless it is global")
    base: str | None
    tools: list[str]
    aliases: list[str]
    version: str | None = Field(description="The key of the snapshot that sandboxes are restored from")
    meta: dict[str, Any] = Field(
        description="How the snapshot was made, and when; `state` says whether this host would bake it the same today"
    )

    @classmethod
    def of(cls, source: templates.Template) -> Self:
        """A template; ``meta`` holds the engine's information about how it was built."""
        return cls(
            name=source.name,
            label=source.name,
            description=source.description,
            cpu=source.cpu,
            memory_mb=source.memory_mb,
            disk_mb=source.disk_mb,
            max_cpu=source.max_cpu,
            min_memory_mb=source.min_memory_mb,
            max_memory_mb=source.max_memory_mb,
            size_bytes=source.size_bytes,
            is_global=not source.owner,
            workspace=source.owner or None,
            base=source.base,
            tools=list(source.tools),
            aliases=list(source.aliases),
            version=source.version,
            meta={
                **asdict(source.manifest),
                "built_at": source.built_at,
                "state": source.state,
                "state_reason": source.state_reason or None,
            },
        )
