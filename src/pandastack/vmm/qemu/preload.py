"""A library loaded into QEMU that opens the file behind private memory read-only (``readonly_memory.c``).

QEMU 7.2 opens it for writing, and all machines of a template map the same file: with that descriptor, a VMM that was
taken over could change what the others run. The package's build hook loads this module: standard library only.
"""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from pandastack.host import c_compiler, facts
from pandastack.host.c_compiler import Libc

_HERE = Path(__file__).resolve().parent
_SOURCE = _HERE / "readonly_memory.c"

ARCHITECTURES = ("x86_64", "aarch64")
VARIABLE = "PANDASTACK_READONLY"
"""The environment variable that names the file to the library."""

ARGUMENTS = (
    *("-shared", "-fPIC", "-fvisibility=hidden", "-s", "-Os"),
    *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
)
"""The compiler's arguments. The library links to the C library that QEMU has loaded, of any version."""

REMEDY = f"{c_compiler.REMEDY}; keep the package in a path without spaces and colons"


def target(arch: str) -> Path:
    """The path of the library for ``arch``, built or not; its name has the hash of its sources."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + " ".join(ARGUMENTS).encode()).hexdigest()
    return _HERE / "bin" / f"readonly-memory-{arch}-{digest[:12]}.so"


def build(arch: str, *, portable: bool = False) -> Path:
    """The library for ``arch``, compiled if need be. Raises as :func:`c_compiler.compile_c`."""
    path = target(arch)
    if not path.exists():
        c_compiler.compile_c(arch, Libc.GNU, [*ARGUMENTS, str(_SOURCE)], path, portable=portable)
    return path


@cache
def library() -> Path | None:
    """The library for this host; ``None`` where it was not shipped and cannot be compiled, or cannot be loaded. In a
    source checkout it takes seconds the first time."""
    if not is_possible():
        return None
    try:
        return build(facts.architecture())
    except (OSError, subprocess.CalledProcessError):
        return None


def is_possible() -> bool:
    """Whether the library exists or can be compiled, at a path that the dynamic linker accepts (ld.so(8))."""
    path = target(facts.architecture())
    return not set(" :") & set(str(path)) and (path.exists() or c_compiler.is_available(facts.architecture(), Libc.GNU))
