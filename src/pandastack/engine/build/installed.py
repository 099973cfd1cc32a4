"""Installed templates as what others are built on: their images, found in the cache, and the configuration of those."""

from __future__ import annotations

from collections.abc import Callable

from pandastack.engine.origins.origin import Origin
from pandastack.errors import BadRequestError
from pandastack.images.actions import ImageConfig
from pandastack.images.cache import Cache
from pandastack.images.image import Image, load_image
from pandastack.model.template import Template

FindInstalled = Callable[[str, str], Origin | None]
"""The installed template with a name and an owner, if there is one."""


def config_of(template: Template) -> ImageConfig:
    """What a template that is built on ``template`` starts from. Raises :class:`BadRequestError`."""
    if template.config is None:
        raise _unusable(template, "it was built by an older release")
    return ImageConfig.from_json(template.config)


def image_of(template: Template, cache: Cache) -> Image:
    """The image that ``template`` was captured with, as it was before. Raises :class:`BadRequestError` when the cache
    has it no longer."""
    directory = cache.find("images", template.image)
    if directory is None:
        raise _unusable(template, "its image is no longer in the cache")
    return load_image(directory)


def _unusable(template: Template, why: str) -> BadRequestError:
    return BadRequestError(f"FROM {template.name}: {why}", hint=f"build {template.name} again", field="dockerfile")
