"""Where the client finds its server and token, and where the server stores its data.

The configuration file is ``~/.config/pandastack/config.json``, always below the home directory: the official
clients read exactly that path, so ``XDG_CONFIG_HOME`` is left out of it on purpose.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pandastack.errors import BadRequestError, PandastackError

DEFAULT_API_URL = "http://127.0.0.1:8080"
"""Where ``pandastack up`` listens unless told otherwise."""

CACHE_BUDGET = "20G"
"""What the cache may take after a build: a few generations of templates."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A server and the token for it; ``api_key`` is None when none was found anywhere."""

    api_url: str
    api_key: str | None = field(repr=False)


def config_file() -> Path:
    """The file with the caller's server and token."""
    return Path.home() / ".config" / "pandastack" / "config.json"


def read_config() -> dict[str, Any]:
    """The configuration file's content, empty when there is no file.

    Raises PandastackError when the file exists but cannot be used: a token that is silently ignored would look
    like a rejected one.
    """
    path = config_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as cause:
        raise PandastackError(
            f"cannot read the configuration file {path}: {cause}", hint="fix the file or remove it"
        ) from cause
    if not isinstance(content, dict):
        raise PandastackError(f"the configuration file {path} does not hold a JSON object")
    return content


def save_config(api_url: str, token: str) -> Path:
    """Write server and token (mode 0600, atomically), preserve every other key, and return the file's path.

    Raises PandastackError when the existing file is damaged or the directory cannot be written.
    """
    path = config_file()
    content = read_config() | {"api_url": api_url, "token": token}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, json.dumps(content, indent=2) + "\n")
    except OSError as cause:
        raise PandastackError(f"cannot write the configuration file {path}: {cause}") from cause
    return path


def _replace(path: Path, text: str) -> None:
    # mkstemp creates the file with mode 0600: the token is never readable by others, even for a moment.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def resolve_client(
    api_url: str | None = None, api_key: str | None = None, environ: Mapping[str, str] = os.environ
) -> ClientSettings:
    """Server and token from, in this order: the arguments, ``PANDASTACK_API`` and ``PANDASTACK_API_KEY``, the
    file.

    Raises PandastackError when the file is needed and damaged.
    """
    url = api_url or environ.get("PANDASTACK_API")
    key = api_key or environ.get("PANDASTACK_API_KEY")
    stored: Mapping[str, Any] = {} if url and key else read_config()
    url = url or _text(stored, "api_url", "apiUrl") or DEFAULT_API_URL
    key = key or _text(stored, "token", "api_key", "apiKey")
    return ClientSettings(api_url=normal_url(url), api_key=key)


def normal_url(url: str) -> str:
    """``url`` without a trailing slash or ``/v1``: all spellings name the same server."""
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _text(content: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(content[key]) for key in keys if content.get(key)), None)


def data_dir(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's data directory: ``explicit`` (``--data-dir``), else ``PANDASTACK_DATA_DIR``, else per
    user.
    """
    return _directory(explicit, environ.get("PANDASTACK_DATA_DIR"), Path("/var/lib"), Path(".local/share"))


def cache_dir(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The cache of downloads and templates: ``explicit``, else ``PANDASTACK_CACHE_DIR``, else per user."""
    return _directory(explicit, environ.get("PANDASTACK_CACHE_DIR"), Path("/var/cache"), Path(".cache"))


def _directory(explicit: Path | None, variable: str | None, system: Path, below_home: Path) -> Path:
    if explicit is not None or variable:
        return Path(explicit or variable or "").expanduser().absolute()
    parent = system if os.geteuid() == 0 else Path.home() / below_home
    return parent / "pandastack"


def cache_budget(environ: Mapping[str, str] = os.environ) -> int:
    """The bytes that the cache may take after a build (``PANDASTACK_CACHE_BUDGET``)."""
    return parse_size("PANDASTACK_CACHE_BUDGET", environ.get("PANDASTACK_CACHE_BUDGET") or CACHE_BUDGET)


def parse_size(name: str, text: str) -> int:
    """The bytes of ``500M`` or ``1.5G`` (powers of 1024). Raises :class:`BadRequestError` for the field."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMGT]?)", text)
    if found is None:
        raise BadRequestError(f"{name}: {text[:40]!r} is not a size", field=name, hint="for example 500M or 20G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))
