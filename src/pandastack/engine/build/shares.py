"""What the owners of templates may have of an engine: how many templates and builds, and which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pandastack.contract.builds import Build
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.errors import ForbiddenError, QuotaError
from pandastack.images.template import TemplateRecipe

WAITING_MAX = 32
"""How many builds may wait or run at once, all owners' together."""

REMEMBERED_MAX = 200
"""How many build records are retained, all owners' together."""


@dataclass(frozen=True)
class Shares:
    """The most that each owner may have: templates, and builds that wait or run. What is everybody's is the operator's,
    who has no such limits."""

    templates: int = 100
    builds: int = 8

    def check_builds(self, builds: Sequence[Build], owner: str) -> None:
        """Raises :class:`QuotaError` when no further build may begin for ``owner``."""
        active = [each for each in builds if not each.status.ended]
        hint = "wait for a build to end, or cancel one"
        if owner and sum(each.owner == owner for each in active) >= self.builds:
            raise QuotaError(f"{self.builds} builds of this workspace wait or run already", field="builds", hint=hint)
        if len(active) >= WAITING_MAX:
            raise QuotaError(f"{WAITING_MAX} builds are waiting already", field="builds", hint=hint)

    def check_templates(self, templates: Sequence[Origin], builds: Sequence[Build], recipe: TemplateRecipe) -> None:
        """Raises :class:`QuotaError` when the owner of ``recipe`` has no room for another template. Those that are
        being built count."""
        if not (owner := recipe.owner):
            return
        names = {each.name for each in templates if each.template.owner == owner}
        names |= {each.template for each in builds if each.owner == owner and not each.status.ended}
        if len(names | {recipe.name}) > self.templates:
            message = f"this workspace has {len(names)} templates, of at most {self.templates}"
            raise QuotaError(message, field="name", hint="delete a template, or build one anew under its name")


DEFAULT_SHARES = Shares()


def refuse_shadow(recipe: TemplateRecipe, shipped: Collection[str], templates: Templates) -> None:
    """Raises :class:`ForbiddenError` when an owner's template would have a name that means one of everybody's."""
    for field, name in (("name", recipe.name), *(("aliases", alias) for alias in recipe.settings.aliases)):
        if name in shipped or templates.answering(name):
            hint = "choose another name: those of the server's templates mean the same in every workspace"
            raise ForbiddenError(f"{field}: {name} is a template of the server", field=field, hint=hint)


def forgettable(builds: Sequence[Build]) -> list[Build]:
    """The builds to forget so that :data:`REMEMBERED_MAX` are left, if enough have ended: always the oldest of the
    owner who has most. So one owner's builds never push out the last ones of another."""
    ended, left = [each for each in builds if each.status.ended], Counter(each.owner for each in builds)
    going: list[Build] = []
    while ended and left.total() > REMEMBERED_MAX:
        oldest = max(ended, key=lambda each: (left[each.owner], -each.started_at))
        ended.remove(oldest)
        left[oldest.owner] -= 1
        going.append(oldest)
    return going
