"""Packs a recipe's folder into the archive that a build accepts."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Mapping
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
    boundary = f"pandastack-{token_hex(16)}"
    parts = [
        ('name="build_args"', json.dumps(dict(build_args)).encode()),
        ('name="secrets"', json.dumps(given).encode()),
        ('name="recipe"; filename="recipe.tar"', recipe),
    ]
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n"
        for head, body in parts
    ]
    return b"".join((*pieces, f"--{boundary}--\r\n".encode())), f"multipart/form-data; boundary={boundary}"


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isfile() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
