"""Packs a recipe's folder into the archive that a build accepts."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from pandastack.errors import BadRequestError, TooLargeError

RECIPE_BYTES_MAX = 256 * 1024 * 1024


def pack_recipe(folder: str | os.PathLike[str]) -> bytes:
    """A tar archive with ``folder`` as its only entry: names, modes and contents, without owners and times.

    Raises BadRequestError when the folder has no Dockerfile, TooLargeError when it is over 256 MiB.
    """
    root = Path(folder).resolve()
    if not (root / "Dockerfile").is_file():
        raise BadRequestError(f"{root} has no Dockerfile", field="folder")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root.parent)), recursive=False, filter=_anonymous)
            if archive.tell() > RECIPE_BYTES_MAX:
                raise TooLargeError(f"{root} is larger than {RECIPE_BYTES_MAX >> 20} MiB", field="folder")
    return archive.getvalue()


def pack_build(
    recipe: bytes,
    *,
    build_args: Mapping[str, str],
    secrets: Mapping[str, str | bytes],
    stored_secrets: Mapping[str, str],
) -> tuple[bytes, str]:
    """A form with a recipe's archive and what is given with it, and the type of that form. Raises BadRequestError for
    a secret that is given twice."""
    if twice := sorted(set(secrets) & set(stored_secrets)):
        raise BadRequestError(f"secrets: {twice[0]} is also in stored_secrets", field="secrets")
    given: dict[str, Mapping[str, str]] = {
        name: {"base64": base64.b64encode(value.encode() if isinstance(value, str) else value).decode()}
        for name, value in secrets.items()
    }
    given |= {name: {"secret": stored} for name, stored in stored_secrets.items()}
    parts = [
        Part("build_args", json.dumps(dict(build_args)).encode()),
        Part("secrets", json.dumps(given).encode()),
        Part("recipe", recipe, "recipe.tar"),
    ]
    return pack_form(parts)


@dataclass(frozen=True)
class Part:
    """One field of a form; with ``filename``, a file."""

    name: str
    content: bytes
    filename: str = ""


def pack_form(parts: Iterable[Part]) -> tuple[bytes, str]:
    """The body of a form (RFC 7578) and its content type."""
    boundary = f"pandastack-{token_hex(16)}"
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data; {_described(each)}\r\n\r\n".encode() + each.content + b"\r\n"
        for each in parts
    ]
    return b"".join((*pieces, f"--{boundary}--\r\n".encode())), f"multipart/form-data; boundary={boundary}"


def _described(part: Part) -> str:
    file = f'; filename="{_quoted(part.filename)}"' if part.filename else ""
    return f'name="{_quoted(part.name)}"{file}'


def _quoted(text: str) -> str:
    """As browsers do it: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data"""
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def dockerfile_text(given: str) -> str:
    """The text of a Dockerfile that is given by its path or as text."""
    path = Path(given)
    try:
        return path.read_text() if path.is_file() else given
    except OSError:  # as a path it is too long
        return given


def pack_context(folder: str | os.PathLike[str]) -> list[Part]:
    """The files of a build context, each named by its path below ``folder``.

    Raises BadRequestError when there is no such folder, TooLargeError when they are over 256 MiB.
    """
    root, parts, total = Path(folder), list[Part](), 0
    if not root.is_dir():
        raise BadRequestError(f"{root} is not a folder", field="context_dir")
    for path in sorted(root.rglob("*")):
        if path.is_file():
            parts.append(Part(path.relative_to(root).as_posix(), path.read_bytes(), path.name))
            total += len(parts[-1].content)
            if total > RECIPE_BYTES_MAX:
                raise TooLargeError(f"{root} is larger than {RECIPE_BYTES_MAX >> 20} MiB", field="context_dir")
    return parts


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isfile() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
