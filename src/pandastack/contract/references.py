"""References to objects of the engine. On the wire their ``kind`` tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pandastack.contract.fields import NonEmpty, Owner, Uuid


@dataclass(frozen=True, slots=True)
class TemplateRef:
    """A template, by its name or an alias: one of ``owner``'s, else one of everybody's."""

    KIND: ClassVar[str] = "template"

    name: NonEmpty
    owner: Owner = ""


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A snapshot or checkpoint."""

    KIND: ClassVar[str] = "snapshot"

    id: Uuid


@dataclass(frozen=True, slots=True)
class SandboxRef:
    """A sandbox."""

    KIND: ClassVar[str] = "sandbox"

    id: Uuid


StartFrom = TemplateRef | SnapshotRef
"""The source of a new sandbox."""

Point = TemplateRef | SnapshotRef | SandboxRef
"""A state of a guest: a template's, a captured one, or a sandbox's present one."""
