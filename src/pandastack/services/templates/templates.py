"""The templates a workspace may use."""

from __future__ import annotations

from contextlib import suppress

from pandastack.cluster import Engines
from pandastack.contract.templates import Template
from pandastack.errors import NotFoundError


class Templates:
    """Templates belong to the engines: every workspace sees the same. The first engine with a name provides it."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    async def list(self) -> tuple[Template, ...]:
        """Every template, as an engine describes it."""
        found: dict[str, Template] = {}
        for engine in self._engines.all().values():
            found = {each.name: each for each in await engine.templates()} | found
        return tuple(found.values())

    async def get(self, name: str) -> Template:
        """One template by its name or an alias; raises :class:`NotFoundError`."""
        if name.strip("."):
            for engine in self._engines.all().values():
                with suppress(NotFoundError):
                    return await engine.template(name)
        raise NotFoundError(f"template not found: {name[:128]}", hint="GET /v1/templates lists the templates")
