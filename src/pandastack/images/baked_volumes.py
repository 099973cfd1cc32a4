"""The ``volumes`` of ``template.toml``, read strictly: an unknown or ill-typed field is an error that names it."""

from __future__ import annotations

from typing import Any

from pandastack.contract.volumes import MOST, PATH_BYTES, SIZE_MAXIMUM_MB, are_apart, is_mount_path
from pandastack.errors import BadRequestError
from pandastack.model.baked_volumes import BakedVolume

LEAST_MB = 16
"""MiB of the smallest volume."""

_FIELDS = ("path", "size_mb")


def parse_volumes(name: str, value: Any) -> tuple[BakedVolume, ...]:
    """The volumes in the order of their places. Raises :class:`BadRequestError` with the path of the wrong field."""
    if not isinstance(value, list) or len(value) > MOST:
        raise _wrong(name, f"a list of at most {MOST} tables, written [[{name}]]")
    volumes = tuple(_volume(f"{name}[{index}]", each) for index, each in enumerate(value))
    for index in range(len(volumes)):
        if not are_apart([each.path for each in volumes[: index + 1]]):
            raise _wrong(f"{name}[{index}].path", "neither that of another volume, nor above or below it")
    return volumes


def _volume(at: str, value: Any) -> BakedVolume:
    if not isinstance(value, dict):
        raise _wrong(at, "a table")
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise BadRequestError(f"{at}: unknown field {unknown[0]}", field=f"{at}.{unknown[0]}")
    path, size_mb = value.get("path"), value.get("size_mb", 256)
    if not isinstance(path, str) or not is_mount_path(path):
        raise _wrong(f"{at}.path", f"an absolute path of at most {PATH_BYTES} bytes, without '.', '..' and '//'")
    if type(size_mb) is not int or not LEAST_MB <= size_mb <= SIZE_MAXIMUM_MB:
        raise _wrong(f"{at}.size_mb", f"a whole number from {LEAST_MB} to {SIZE_MAXIMUM_MB}")
    return BakedVolume(path, size_mb)


def _wrong(at: str, must: str) -> BadRequestError:
    return BadRequestError(f"{at} must be {must}", field=at)
