"""A template, from which sandboxes are created."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from pandastack.model.baked_services import BakedService


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
    owner: str = ""
    """Whose it is, as the control plane says; empty: everybody's. Names are unique for each owner."""

    max_cpu: int = 0
    min_memory_mb: int = 0
    max_memory_mb: int = 0
    """What a sandbox may ask for; 0 in a template of before."""
    disk_mb_per_second: int = 0
    disk_operations_per_second: int = 0
    """What the disks of its sandboxes may read and write; 0: as the server's settings say."""
    rehearse: tuple[str, ...] = ()
    """Commands that each machine made ahead runs before a sandbox claims it."""

    services: tuple[BakedService, ...] = ()
    """The programs that its memory holds: started at the bake, and whenever a sandbox boots."""

    network: dict[str, Any] | None = None
    """The network policy of sandboxes that ask for none, as callers write it; None: the default."""

    previews: str | None = None
    wake: str | None = None
    """What holds for the previews of sandboxes that say nothing themselves: see :mod:`pandastack.model.previews`."""

    config: dict[str, Any] | None = None
    """The configuration of its image, which templates that are built on it start from; None in one of before."""

    foreign: bool = False
    """Whether its root is an image of others, in which nothing of ours may be taken for granted."""

    warm_up: tuple[str, ...] | None = None
    """Commands that run at a bake once the services are ready; None in a template of before."""

    baked_as: str = ""
    """The key of the bake, where ``version`` is another: for one that was baked on another host."""

    recipe: str = ""
    """The digest of the shipped recipe that it was built from; empty for one built from anything else."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Template:
        values: dict[str, Any] = json.loads(text)
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values or each.default is MISSING}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        lists["services"] = tuple(map(BakedService.from_json, known.get("services", ())))
        return cls(**{**known, **lists})
