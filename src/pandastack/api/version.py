"""The version of the server, and its host."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _installed() -> str:
    try:
        return metadata.version("pandastack")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "0.1.0"


SEMVER = _installed()


def describe() -> dict[str, Any]:
    """The body of the version routes; ``go`` exists for clients that print it."""
    return {
        "service": "pandastack",
        "semver": SEMVER,
        "commit": os.environ.get("PANDASTACK_COMMIT", ""),
        "build_time": os.environ.get("PANDASTACK_BUILD_TIME", ""),
        "go": "",
        "python": platform.python_version(),
        "os": platform.system().lower(),
        "arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
    }
