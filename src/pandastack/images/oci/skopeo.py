"""Calls of skopeo, and what its messages mean.

It runs in an empty network namespace (``host/processes/isolated.py``), so nothing here restricts what it may reach.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence

from pandastack.errors import BuildError, PandastackError, StorageFullError
from pandastack.model.image_reference import ImageReference
from pandastack.model.registries import RegistryCredential

PROXY = ("127.0.0.1", 3128)
"""Where the way out is, inside."""

AUTH_FILE, REGISTRIES_FILE = "auth.json", "registries.conf"

LAYOUT, TAG = "layout", "image"
"""The folder in ``/tmp`` that an image is copied to, and its name there."""

_MEMORY = "/tmp/memory"
_MESSAGE = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_DENIED = re.compile(
    r"unauthorized|authentication required|access to the resource is denied|invalid username/password", re.I
)
_MISSING = re.compile(r"manifest unknown|name unknown|name invalid|not found|status code 404", re.I)


def environment(proxy: str = f"http://{PROXY[0]}:{PROXY[1]}") -> dict[str, str]:
    """The whole environment of skopeo: no settings and no credentials but those given to it."""
    named = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy)
    return {
        **named,
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "XDG_RUNTIME_DIR": "/tmp",
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
    }


def auth_file(credentials: Sequence[RegistryCredential], registry: str) -> str:
    """The text of containers-auth.json(5) with what there is for ``registry``, and nothing else."""
    found = {
        each.host: {"auth": base64.b64encode(f"{each.username}:{each.password}".encode()).decode()}
        for each in credentials
        if each.host == registry
    }
    return json.dumps({"auths": found})


def inspect(program: str, name: str, *, plain: bool, config: bool = False) -> tuple[str, ...]:
    """The argv that prints the manifest ``name`` as it is, or with ``config`` the configuration that it leads to."""
    words = ("inspect", *(("--config",) if config else ()), "--raw", f"--tls-verify={_flag(not plain)}")
    return (*_program(program), *words, f"--authfile={_MEMORY}/{AUTH_FILE}", f"docker://{name}")


def copy(program: str, name: str, *, plain: bool, recompress: bool) -> tuple[str, ...]:
    """The argv that copies the image ``name`` to :data:`LAYOUT`. ``recompress``: layers that are not gzip become it."""
    return (
        *(*_program(program), "copy", f"--src-tls-verify={_flag(not plain)}", f"--src-authfile={_MEMORY}/{AUTH_FILE}"),
        *(("--dest-compress-format=gzip",) if recompress else ()),
        *("--remove-signatures", f"docker://{name}", f"oci:/tmp/{LAYOUT}:{TAG}"),
    )


def _program(program: str) -> tuple[str, ...]:
    settings = f"--registries-conf={_MEMORY}/{REGISTRIES_FILE}"
    return program, "--insecure-policy", settings, "--registries.d=/tmp/memory", "--tmpdir=/tmp"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def explained(reference: ImageReference, said: str, *, signed_in: bool) -> PandastackError:
    """The error of a call that failed and wrote ``said``."""
    found = _MESSAGE.findall(said)
    text = found[-1].replace('\\"', '"') if found else (said.strip().splitlines() or ["it said nothing"])[-1]
    text = re.sub(r"\?[^\s\"]*", "?…", text)[:500]
    if "no space left on device" in text:
        return StorageFullError(
            "insufficient host storage: no space left to fetch the image",
            hint="free space on the file system of the cache directory",
            public="insufficient host storage: no space left to fetch the image",
        )
    if _DENIED.search(text):
        sign_in = f"`pandastack registry login {reference.registry}` stores them"
        what = "refuses the workspace's credentials" if signed_in else "wants credentials, and the workspace has none"
        return BuildError(f"FROM {reference.exact}: {reference.registry} {what} (401, or no such image)", hint=sign_in)
    if _MISSING.search(text):
        return BuildError(
            f"FROM {reference.exact}: {reference.registry} has no such image", hint="check name, tag and digest"
        )
    return BuildError(f"FROM {reference.exact}: the image cannot be fetched: {text}")
