"""Read a Dockerfile into a :class:`Recipe`: its stages, and the instructions that a template build carries out.

Syntax and meaning are the Dockerfile reference's; what is not supported is an error that names the line,
never silence. The PyPI parser ``dockerfile-parse`` was tried and does not fit: it loses a continued last
line, ends a continued line at an empty one, takes any word for an instruction and knows no here-documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pandastack.errors import BadRequestError
from pandastack.images.instructions import Arg, Copy, Step
from pandastack.images.lines import Line, escape_character, logical_lines
from pandastack.images.readers import read_arg, read_from, read_step
from pandastack.model.image_reference import LAYOUT_PREFIX, parse_reference

MOST_STAGES = 64
MOST_INSTRUCTIONS = 500
DOCKERFILE_MAX = 1024 * 1024
"""Characters of a Dockerfile."""

_MOST_ERRORS = 20
"""How many mistakes of one Dockerfile an error lists."""

_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class Stage:
    """One stage: ``from_`` is a raw word, the name of an image or of an earlier stage; ``name`` is in lower case, and
    empty for a stage without one. ``line`` is that of its FROM. ``number`` counts the FROMs; None for a stage that is
    the image of a ``COPY --from`` and nothing else."""

    index: int
    line: int
    from_: str
    name: str
    steps: tuple[Step, ...] = ()
    number: int | None = None

    @property
    def text(self) -> str:
        """What errors call it."""
        return self.from_ if self.number is None else self.name or str(self.number)


@dataclass(frozen=True)
class Recipe:
    """A parsed Dockerfile. ``arguments`` are the ARGs before the first FROM, which every FROM may use."""

    stages: tuple[Stage, ...]
    arguments: tuple[Arg, ...] = ()
    escape: str = "\\"

    def stage(self, target: str = "") -> Stage:
        """The stage that ``target`` names, by its name or index; the last one without a target.

        Raises :class:`BadRequestError` for the field ``target``.
        """
        found = _find(self.stages, target) if target else self.stages[-1]
        if found is None:
            raise BadRequestError(
                f"target: the Dockerfile has no stage {target[:100]!r}", hint=_stages_hint(self.stages), field="target"
            )
        return found


def parse(text: str) -> Recipe:
    """The recipe in ``text``. Raises :class:`BadRequestError` that names all mistakes with their lines and, where
    there is a way, what to write instead."""
    if len(text) > DOCKERFILE_MAX:
        raise BadRequestError(f"the Dockerfile is longer than {DOCKERFILE_MAX >> 20} MiB", field="dockerfile")
    escape = escape_character(text)
    reading = _Reading(escape)
    try:
        for count, line in enumerate(logical_lines(text, escape)):
            if count == MOST_INSTRUCTIONS:
                raise line.error(f"more than {MOST_INSTRUCTIONS} instructions")
            reading.take(line)
    except BadRequestError as error:  # no line can be told after it
        reading.errors.append(error)
    if reading.errors:
        raise _together(reading.errors)
    if not reading.stages:
        raise BadRequestError("the Dockerfile has no FROM", hint="start with FROM debian:bookworm", field="dockerfile")
    return reading.recipe


class _Reading:
    """What has been read so far. A line with a mistake is noted, and the next one read all the same."""

    def __init__(self, escape: str) -> None:
        self.escape = escape
        self.arguments: list[Arg] = []
        self.stages: list[Stage] = []
        self.steps: list[list[Step]] = []
        self.errors: list[BadRequestError] = []
        self._lost = False
        """Whether a FROM could not be read, so that what follows it has no stage."""

    def take(self, line: Line) -> None:
        try:
            self._take(line)
        except BadRequestError as error:
            self.errors.append(error)

    def _take(self, line: Line) -> None:
        if line.keyword == "FROM":
            self._lost = True
            self.stages.append(self._stage(line))
            self.steps.append([])
            self._lost = False
        elif self.stages or self._lost:
            step = self._resolved(line, read_step(line, self.escape))
            if not self._lost:
                self.steps[-1].append(step)
        elif line.keyword == "ARG":
            self.arguments.append(read_arg(line, self.escape))
        else:
            raise line.error(f"{line.keyword} before FROM")

    def _stage(self, line: Line) -> Stage:
        image, name = read_from(line, self.escape)
        self._check_count(line)
        if name and not _STAGE_NAME.fullmatch(name.lower()):
            raise line.error(f"{name[:100]!r} is not the name of a stage", "a letter, then letters, digits, - _ .")
        if name and (same := _find(self.stages, name)):
            raise line.error(f"a stage {same.name} begins at line {same.line} already", "choose another name")
        number = sum(each.number is not None for each in self.stages)
        return Stage(len(self.stages), line.number, image, name.lower(), number=number)

    def _check_count(self, line: Line) -> None:
        if len(self.stages) == MOST_STAGES:
            raise line.error(f"more than {MOST_STAGES} stages, images that are copied from included")

    def _resolved(self, line: Line, step: Step) -> Step:
        """The step with the index of the stage that its ``--from`` names."""
        if not isinstance(step, Copy) or not step.from_:
            return step
        if re.search("[/:@]", step.from_) and not self._lost:
            return replace(step, stage=self._image(line, step.from_))
        earlier = self.stages if self._lost else self.stages[:-1]
        stage = _find(earlier, step.from_)
        if stage is None:
            what = "is the stage itself" if _find(self.stages, step.from_) else "is not an earlier stage"
            hint = f"{_stages_hint(earlier)}; an image is named with its tag"
            raise line.error(f"COPY --from={step.from_[:100]} {what}", hint)
        return replace(step, stage=stage.index)

    def _image(self, line: Line, name: str) -> int:
        """The index of the stage that is the image ``name``. A new one comes before the present stage."""
        known = (each for each in self.stages[:-1] if each.number is None and each.from_ == name)
        if (found := next(known, None)) is not None:
            return found.index
        if not name.startswith(LAYOUT_PREFIX):
            try:
                parse_reference(name, field="dockerfile", label="COPY --from:")
            except BadRequestError as error:
                raise line.error(error.message, error.hint) from error
        self._check_count(line)
        present, steps = self.stages.pop(), self.steps.pop()
        self.stages += [Stage(present.index, line.number, name, ""), replace(present, index=present.index + 1)]
        self.steps += [[], steps]
        return present.index

    @property
    def recipe(self) -> Recipe:
        stages = (replace(stage, steps=tuple(steps)) for stage, steps in zip(self.stages, self.steps, strict=True))
        return Recipe(tuple(stages), tuple(self.arguments), self.escape)


def _find(stages: Sequence[Stage], name: str) -> Stage | None:
    """The stage with this name, in upper or lower case, or with this index."""
    if re.fullmatch(r"[0-9]{1,4}", name):
        return next((each for each in stages if each.number == int(name)), None)
    return next((each for each in stages if each.name and each.name == name.lower()), None)


def find_earlier(recipe: Recipe, before: Stage, name: str) -> Stage | None:
    """The stage before this one that FROM names. FROM knows no indices."""
    return next((each for each in recipe.stages[: before.index] if each.name and each.name == name.lower()), None)


def _stages_hint(stages: Sequence[Stage]) -> str:
    named = [each for each in stages if each.number is not None]
    listed = ", ".join(each.text for each in named[:_MOST_ERRORS])
    return f"stages: {listed}" if listed else "FROM IMAGE AS NAME begins a stage that can be copied from"


def _together(errors: Sequence[BadRequestError]) -> BadRequestError:
    """One error for all that is wrong in a file."""
    if len(errors) == 1:
        return errors[0]
    listed = [f"{each.message} ({each.hint})" if each.hint else each.message for each in errors[:_MOST_ERRORS]]
    if len(errors) > _MOST_ERRORS:
        listed.append(f"and {len(errors) - _MOST_ERRORS} more")
    return BadRequestError("\n".join(listed), field="dockerfile")
