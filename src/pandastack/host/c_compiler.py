"""Compiling our C programs: with Debian's compilers for this host, with the ``ziglang`` package for any other.

Zig builds a C library for its target first, which takes 44 seconds of CPU time; ``musl-gcc`` finds one that was built.
The package's build hook loads this module: standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

REMEDY = "apt-get install gcc musl-tools linux-libc-dev, or pip install ziglang"


class Libc(StrEnum):
    """The C library that a program links to."""

    MUSL = "musl"
    """Inside the program, which then needs nothing of the system that it runs on."""
    GNU = "gnu"
    """That of the process that loads the library."""


_ZIG_TARGETS = {Libc.MUSL: "{arch}-linux-musl", Libc.GNU: "{arch}-linux-gnu.2.17"}
_COMPILERS = {Libc.MUSL: "musl-gcc", Libc.GNU: "gcc"}


def is_available(arch: str, libc: Libc) -> bool:
    """Whether this host can compile for ``arch`` (``x86_64`` or ``aarch64``)."""
    return find_compiler(arch, libc) is not None


def compile_c(arch: str, libc: Libc, arguments: Sequence[str], target: Path, *, portable: bool = False) -> None:
    """Compile and link ``target``. Readers of it see either the old file or the whole new one.

    ``portable`` asks for a result that other hosts can load, too. Raises :class:`FileNotFoundError` without a
    compiler, and :class:`subprocess.CalledProcessError` with its output in ``stderr``.
    """
    compiler = find_compiler(arch, libc, portable=portable)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler for {arch}: {REMEDY}")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        subprocess.run([*compiler, *arguments, "-o", str(temporary)], check=True, capture_output=True, text=True)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def find_compiler(arch: str, libc: Libc, *, portable: bool = False) -> list[str] | None:
    """The command that compiles for ``arch``; ``None``: there is none."""
    if not portable and (native := _find_native(arch, libc)):
        return native
    if importlib.util.find_spec("ziglang") is None:
        return None
    return [sys.executable, "-m", "ziglang", "cc", "-target", _ZIG_TARGETS[libc].format(arch=arch)]


def _find_native(arch: str, libc: Libc) -> list[str] | None:
    """Debian's compiler, if it is for ``arch`` and has the kernel's headers, which musl lacks."""
    headers = Path("/usr/include"), Path(f"/usr/include/{arch}-linux-gnu")
    complete = (headers[0] / "linux/openat2.h").exists() and (headers[1] / "asm/types.h").exists()
    if platform.machine() != arch or shutil.which("gcc") is None or not complete:
        return None
    found = shutil.which(_COMPILERS[libc])
    if found is None or libc is Libc.GNU:
        return [found] if found else None
    return [found, *(word for path in headers for word in ("-idirafter", str(path)))]
