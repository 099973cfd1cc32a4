"""The C compiler in the ``ziglang`` package. The package's build hook uses it too: standard library only."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def is_installed() -> bool:
    """Whether this interpreter has the compiler."""
    return importlib.util.find_spec("ziglang") is not None


def compile_c(arguments: Sequence[str], target: Path) -> None:
    """Run ``zig cc`` with ``arguments``. Readers of ``target`` see either the old file or the whole new one.

    Raises :class:`subprocess.CalledProcessError` with the compiler's output in ``stderr``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    argv = [sys.executable, "-m", "ziglang", "cc", *arguments, "-o", str(temporary)]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
