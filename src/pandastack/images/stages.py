"""The stages of a recipe: what each is built on, which ones a target needs, and the values of build arguments.

A stage refers to earlier ones only, so there are no circles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pandastack.errors import BadRequestError
from pandastack.images.dockerfile import Recipe, Stage, find_earlier
from pandastack.images.instructions import Arg, Copy
from pandastack.images.words import expand

ARGUMENTS_MAX = 1024 * 1024
"""Characters that the build arguments of a stage may have together."""


def base_name(recipe: Recipe, arguments: Mapping[str, str] | None = None, stage: Stage | None = None) -> str:
    """What the FROM of ``stage``, else of the last one, names once its variables are replaced: ``debian:bookworm``,
    another template or an earlier stage."""
    stage = stage or recipe.stages[-1]
    with at(stage.line):
        name = expand(stage.from_, before_from(recipe, arguments or {}), recipe.escape)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", name):
            raise BadRequestError(f"FROM {name[:100]!r} is not the name of an image", field="dockerfile")
    return name


def needed_stages(
    recipe: Recipe, target: str = "", arguments: Mapping[str, str] | None = None
) -> Mapping[int, Stage | None]:
    """The indices of the stages that ``target`` needs, itself included, in the order to build them. Each leads to the
    earlier stage that it is built on, or to None where that is an image.

    Raises :class:`BadRequestError` for an unknown target.
    """
    wanted, found = {recipe.stage(target).index}, dict[int, Stage | None]()
    for stage in reversed(recipe.stages):  # a stage needs only earlier ones
        if stage.index in wanted:
            base = find_earlier(recipe, stage, base_name(recipe, arguments, stage))
            copied = {step.stage for step in stage.steps if isinstance(step, Copy) and step.stage is not None}
            wanted |= copied | ({base.index} if base else set())
            found[stage.index] = base
    return dict(sorted(found.items()))


def image_below(recipe: Recipe, target: str = "") -> str:
    """The image on which ``target`` is built, be it by way of earlier stages."""
    stage: Stage | None = recipe.stage(target)
    while stage:
        name = base_name(recipe, stage=stage)
        stage = find_earlier(recipe, stage, name)
    return name


def before_from(recipe: Recipe, given: Mapping[str, str]) -> dict[str, str]:
    """The values of the ARGs before the first FROM."""
    values: dict[str, str] = {}
    for step in recipe.arguments:
        with at(step.line):
            declare(step, values, given, recipe.escape, values)
    return values


def declare(
    step: Arg,
    values: dict[str, str],
    given: Mapping[str, str],
    escape: str,
    variables: Mapping[str, str],
    inherited: Mapping[str, str] | None = None,
) -> None:
    """Give the arguments of ``step`` their values: the caller's, else the default, else that of an ARG before
    FROM."""
    size = sum(map(len, values.values()))
    for name, default in step.pairs:
        if name in given:
            values[name] = given[name]
        elif default is not None:
            values[name] = expand(default, variables, escape)
            size += len(values[name])
            if size > ARGUMENTS_MAX:
                raise BadRequestError(f"build arguments have more than {ARGUMENTS_MAX >> 20} MiB together")
        elif inherited and name in inherited:
            values[name] = inherited[name]


@contextmanager
def at(line: int) -> Iterator[None]:
    """Errors inside the block name the Dockerfile's line."""
    try:
        yield
    except BadRequestError as error:
        raise BadRequestError(
            f"Dockerfile line {line}: {error.message}",
            hint=error.hint,
            field=error.field or "dockerfile",
        ) from error
