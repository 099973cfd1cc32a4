"""Compiling the guest agent from ``guest-agent/src``.

Only the standard library is used: the package's build hook loads this file before anything is installed.
"""

from __future__ import annotations

from pathlib import Path

from pandastack.host import c_compiler
from pandastack.host.c_compiler import Libc

ARCHITECTURES = ("x86_64", "aarch64")
WARNINGS = ("-Wall", "-Wextra", "-Werror")


def sources(root: Path) -> list[Path]:
    """Every source file of the agent, headers included, in the checkout whose ``guest-agent`` is ``root``."""
    return sorted([*root.glob("src/**/*.c"), *root.glob("src/**/*.h")])


def arguments(root: Path) -> list[str]:
    """The compiler's arguments for one static program."""
    return [
        *("-static", "-s", "-Os", "-std=c11", "-D_GNU_SOURCE", *WARNINGS, "-I", str(root / "src")),
        *(str(path) for path in sources(root) if path.suffix == ".c"),
    ]


def is_stale(root: Path, target: Path) -> bool:
    """Whether ``target`` is missing or older than a source file."""
    if not target.exists():
        return True
    made = target.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > made for path in sources(root))


def compile_agent(root: Path, arch: str, target: Path, *, portable: bool = False) -> None:
    """Build ``target``. Raises as :func:`c_compiler.compile_c`."""
    c_compiler.compile_c(arch, Libc.MUSL, arguments(root), target, portable=portable)
