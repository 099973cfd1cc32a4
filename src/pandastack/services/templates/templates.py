"""The templates a workspace may use."""

from __future__ import annotations

from pandastack.cluster import EngineClient
from pandastack.contract.templates import Template
from pandastack.errors import NotFoundError


class Templates:
    """All templates are the engine's own for now: every workspace sees the same."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    async def list(self) -> tuple[Template, ...]:
        """Every template, as the engine describes it."""
        return await self._engine.templates()

    async def get(self, name: str) -> Template:
        """One template by its name or an alias; raises :class:`NotFoundError`."""
        missing = NotFoundError(f"template not found: {name[:128]}", hint="GET /v1/templates lists the templates")
        if not name.strip("."):
            raise missing
        try:
            return await self._engine.template(name)
        except NotFoundError as error:
            raise missing from error
