"""Names of images in registries, as Docker and Podman read them.

Sources: github.com/distribution/reference (grammar and normal form), OCI distribution specification (names, tags).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pandastack.errors import BadRequestError

REFERENCE_MAX = 512
"""Characters of a reference."""

DOCKER_HUB = "docker.io"

LAYOUT_PREFIX = "oci:"
"""What the name of a layout on the operator's disk begins with."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL}){{0,30}})(?::([0-9]{{1,5}}))?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_HINT = "registry.example/folder/name:tag, or name@sha256:… for exactly one image"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image of a registry. ``registry`` is a host with or without a port; ``tag`` and ``digest`` may be empty, but
    not both. With a digest the tag says nothing."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def exact(self) -> str:
        """The whole name in its one spelling: with the digest, else with the tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    def at(self, digest: str) -> str:
        """The name of the manifest with this digest, in the same repository."""
        return f"{self.name}@{digest}"


def parse_registry(text: str, *, field: str) -> str:
    """A registry's host and port in one spelling; ``index.docker.io`` and the like are Docker Hub.

    Raises :class:`BadRequestError` for ``field``.
    """
    host = text.lower()
    found = _HOST.fullmatch(host) if len(host) <= 262 else None
    if found is None or (found[2] and not 0 < int(found[2]) < 65536):
        raise BadRequestError(f"{field}: {text[:100]!r} is not host[:port]", field=field, hint="registry.example:5000")
    return DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com") else host


def parse_reference(text: str, *, field: str = "image_ref", label: str = "") -> ImageReference:
    """The image that ``text`` names. Raises :class:`BadRequestError` for ``field``, which says what is wrong;
    ``label`` stands before it in place of the field's name."""
    label = label or f"{field}:"
    if len(text) > REFERENCE_MAX:
        raise BadRequestError(f"{label} longer than {REFERENCE_MAX} characters", field=field)
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _wrong(field, label, f"{digest[:100]!r} is not a digest: sha256: and 64 hex digits", text)
    first, slash, path = rest.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, path = DOCKER_HUB, rest
    registry = parse_registry(first, field=field)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(field, label, f"{tag[:100]!r} is not a tag", text)
    if registry == DOCKER_HUB and path and "/" not in path:
        path = f"library/{path}"
    if len(path) > 255 or not all(_COMPONENT.fullmatch(each) for each in path.split("/")):
        raise _wrong(field, label, "the repository has lower-case letters, digits and single . _ - between them", text)
    return ImageReference(registry, path, "" if digest else tag or "latest", digest)


def _wrong(field: str, label: str, reason: str, text: str) -> BadRequestError:
    return BadRequestError(f"{label} {text[:100]!r} is not the name of an image: {reason}", field=field, hint=_HINT)
