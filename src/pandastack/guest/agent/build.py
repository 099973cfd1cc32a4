"""Compiling the guest agent from ``guest-agent/src`` with the C compiler that the ``ziglang`` package brings.

Only the standard library is used: the package's build hook loads this file before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ARCHITECTURES = ("x86_64", "aarch64")
WARNINGS = ("-Wall", "-Wextra", "-Werror")


def sources(root: Path) -> list[Path]:
    """Every file that the agent is made of, headers too, in the checkout whose ``guest-agent`` is ``root``."""
    return sorted([*root.glob("src/**/*.c"), *root.glob("src/**/*.h")])


def command(root: Path, arch: str, target: Path) -> list[str]:
    """The compiler's argv for one static program."""
    return [
        *(sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl", "-static", "-s", "-Os"),
        *("-std=c11", "-D_GNU_SOURCE", *WARNINGS, "-I", str(root / "src"), "-o", str(target)),
        *(str(path) for path in sources(root) if path.suffix == ".c"),
    ]


def is_stale(root: Path, target: Path) -> bool:
    """Whether ``target`` is missing or older than a source file."""
    if not target.exists():
        return True
    made = target.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > made for path in sources(root))


def can_compile() -> bool:
    """Whether this interpreter has the compiler."""
    return importlib.util.find_spec("ziglang") is not None


def compile_agent(root: Path, arch: str, target: Path) -> None:
    """Build ``target``; a reader meanwhile sees the old file or the whole new one.

    Raises :class:`subprocess.CalledProcessError` with the compiler's output in ``stderr``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        subprocess.run(command(root, arch, temporary), check=True, capture_output=True, text=True)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
