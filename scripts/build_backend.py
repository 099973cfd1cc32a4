"""Hatchling, with the C compiler for every architecture where it is needed: for a wheel, not for an editable install.

The compiler is the largest thing that a developer would download, and editable installs compile on first use.
"""

from __future__ import annotations

from typing import Any

from hatchling.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)
from hatchling.build import get_requires_for_build_wheel as _requires

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What a wheel's build needs besides Hatchling."""
    return [*_requires(config_settings), "ziglang>=0.13"]
