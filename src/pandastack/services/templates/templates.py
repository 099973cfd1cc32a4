"""The templates a workspace may use: those of everybody and its own."""

from __future__ import annotations

from contextlib import suppress

from pandastack.cluster import Engines
from pandastack.contract.templates import Template
from pandastack.errors import ForbiddenError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.templates.owners import EVERYBODY, owner_of


class Templates:
    """Every look-up names the caller; another workspace's template is not found. The first engine that has one provides
    it."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    async def list(self, caller: Caller) -> tuple[Template, ...]:
        """First the templates of everybody, then the caller's own."""
        found: dict[tuple[str, str], Template] = {}
        for engine in self._engines.all().values():
            found = {(each.owner, each.name): each for each in await engine.templates()} | found
        mine = owner_of(caller.workspace)
        return tuple(each for whose, each in sorted(found.items()) if whose[0] in (EVERYBODY, mine))

    async def get(self, caller: Caller, name: str) -> Template:
        """One template by its name or an alias; raises :class:`NotFoundError`."""
        if name.strip("."):
            for engine in self._engines.all().values():
                with suppress(NotFoundError):
                    return await engine.template(name, owner_of(caller.workspace))
        raise _unknown(name)

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete a template by its name, which is free from then on. What was made from it stays.

        Raises :class:`NotFoundError`, and :class:`ForbiddenError` for one of everybody's, which the operator deletes.
        """
        found = await self.get(caller, name)
        if found.name != name:
            raise _unknown(name)
        if found.owner != owner_of(caller.workspace):
            hint = "it is every workspace's; the operator deletes it"
            raise ForbiddenError(f"{name} is a template of the server", field="name", hint=hint)
        for engine in self._engines.all().values():
            with suppress(NotFoundError):
                await engine.delete_template(name, found.owner)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"template not found: {name[:128]}", hint="GET /v1/templates lists the templates")
