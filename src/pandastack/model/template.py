"""A template, from which sandboxes are created."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Template:
    """A baked template. Sizes: ``memory_mb`` and ``disk_mb`` in MiB, ``size_bytes`` the image plus the baked memory."""

    name: str
    description: str
    cpu: int
    memory_mb: int
    disk_mb: int
    tools: tuple[str, ...]
    aliases: tuple[str, ...]
    category: str
    base: str
    env: dict[str, str]
    version: str
    """The key of the snapshot that sandboxes are restored from."""
    image: str
    size_bytes: int
    built_at: str
    rehearse: tuple[str, ...] = ()
    """Commands that each machine made ahead runs before a sandbox claims it."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Template:
        values: dict[str, Any] = json.loads(text)
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values or each.default is MISSING}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})
