"""Services of a template: programs that are started before its capture, so that every sandbox finds them running.

Each is a process of the guest (docs/design/0012-processes.md) with a well-known id, which has its state and its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Restart(StrEnum):
    """What happens when the program of a service ends."""

    ALWAYS = "always"
    NO = "no"


@dataclass(frozen=True)
class Readiness:
    """When a service is ready: something listens at ``port``, ``file`` exists, or ``command`` ends with status 0.

    Exactly one of the three is given.
    """

    port: int | None = None
    file: str | None = None
    command: str | None = None
    timeout_seconds: int = 60

    def __str__(self) -> str:
        if self.port is not None:
            return f"nothing listens at port {self.port}"
        return f"there is no {self.file}" if self.file is not None else f"{self.command!r} does not succeed"


@dataclass(frozen=True)
class BakedService:
    """A program that runs in every sandbox of a template. ``command`` is a line for the guest's shell; ``cwd`` None is
    the home of ``user``. Without ``ready`` it counts as ready once it is started."""

    name: str
    command: str
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    restart: Restart = Restart.ALWAYS
    ready: Readiness | None = None

    @property
    def process(self) -> str:
        """The id of its process."""
        return f"service-{self.name}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :func:`dataclasses.asdict`."""
        ready = values["ready"]
        return cls(
            **{
                **values,
                "restart": Restart(values["restart"]),
                "ready": None if ready is None else Readiness(**ready),
            }
        )
