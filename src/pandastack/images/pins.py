"""Debian packages that are used as files, pinned by version and SHA-256 in ``debian.lock``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.images.apt import SUITE

LOCK_FILE = Path(__file__).with_name("debian.lock")

KERNEL, FSCK = "kernel", "e2fsck"
"""What is pinned: the names of the lock file's tables."""

ARCHITECTURES = ("amd64", "arm64")

_HINT = "`pandastack template pin` writes a new one"


@dataclass(frozen=True)
class Pin:
    """The exact package wanted for one Debian architecture."""

    package: str
    version: str
    sha256: str


Pins = Mapping[str, Mapping[str, Pin]]
"""By what is pinned, then by Debian architecture."""


def read_pins(lock: Path = LOCK_FILE) -> Pins:
    """The pins of the lock file. Raises :class:`BuildError` when it cannot be read."""
    try:
        tables = tomllib.loads(lock.read_text())
        return {what: {arch: Pin(**each) for arch, each in tables[what].items()} for what in (KERNEL, FSCK)}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"the lock file {lock} cannot be used: {error}", hint=_HINT) from error


def pin_of(what: str, arch: str, lock: Path = LOCK_FILE) -> Pin:
    """The pin for one architecture. Raises :class:`BuildError`."""
    pin = read_pins(lock)[what].get(arch)
    if pin is None:
        raise BuildError(f"the lock file pins no {what} for {arch}", hint=_HINT)
    return pin


def render_lock(pins: Pins) -> str:
    """The text of the lock file."""
    lines = [
        "# Debian packages that are used as files; `pandastack template pin` moves these pins.",
        f'suite = "{SUITE}"',
    ]
    for what in (KERNEL, FSCK):
        for arch, pin in sorted(pins[what].items()):
            lines += ["", f"[{what}.{arch}]", *(f'{key} = "{value}"' for key, value in asdict(pin).items())]
    return "\n".join(lines) + "\n"
