"""JSON that strangers wrote: manifests and configurations of images, taken apart field by field.

Sources: OCI image specification 1.0 (descriptor, index, manifest, config), Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandastack.errors import BuildError

DOCUMENT_MAX = 4 * 1024 * 1024
"""Bytes of a manifest, an index or a configuration: as much as registries accept."""

SIZE_MAX = 1 << 40

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of another: ``size`` in bytes, not believed before it has been compared."""

    media_type: str
    digest: str
    size: int

    @property
    def hexadecimal(self) -> str:
        return self.digest.removeprefix("sha256:")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_document(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``. Raises :class:`BuildError`, which calls it ``what``."""
    if len(data) > DOCUMENT_MAX:
        raise BuildError(f"{what} is larger than {DOCUMENT_MAX >> 20} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise BuildError(f"{what} is not a JSON object")
    return found


def take(table: Mapping[str, Any], name: str, kind: type, what: str) -> Any:
    """The value of a field, which may be missing or null: then an empty one of its kind."""
    value = table.get(name)
    if value is None:
        return kind()
    if type(value) is not kind:
        raise malformed(what, name)
    return value


def texts(value: Any, what: str, name: str) -> tuple[str, ...]:
    """A list of strings without NUL, or null."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise malformed(what, name)
    return tuple(value)


def read_descriptor(value: Any, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise malformed(what, "descriptor")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or len(media_type) > 255:
        raise malformed(what, "mediaType")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BuildError(f"{what}: a digest is not sha256: and 64 hex digits")
    if type(size) is not int or not 0 <= size <= SIZE_MAX:
        raise malformed(what, "size")
    return Descriptor(media_type, digest, size)


def malformed(what: str, name: str) -> BuildError:
    return BuildError(f"{what}: malformed {name}")
