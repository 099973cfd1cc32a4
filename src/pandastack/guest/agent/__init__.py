"""Where the guest agent's program is: shipped in the package, or built from a source checkout when it changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.guest.agent import build
from pandastack.host import c_compiler

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parents[3] / "guest-agent"

__all__ = ["binary"]


def binary(arch: str = "x86_64") -> Path:
    """The static agent program for ``arch`` (``x86_64`` or ``aarch64``).

    In a source checkout it is compiled when a source file is newer, which takes seconds the first time and blocks.
    Raises :class:`BuildError` when it cannot be built or was not shipped.
    """
    if arch not in build.ARCHITECTURES:
        raise BuildError(f"there is no guest agent for {arch}", hint=f"one of {', '.join(build.ARCHITECTURES)}")
    path = _HERE / "bin" / f"agent-{arch}"
    if _CHECKOUT.is_dir() and build.is_stale(_CHECKOUT, path):
        _compile(arch, path)
    if not path.exists():
        raise BuildError(f"the guest agent for {arch} is missing from this installation")
    return path


def _compile(arch: str, path: Path) -> None:
    try:
        build.compile_agent(_CHECKOUT, arch, path)
    except FileNotFoundError as error:
        raise BuildError("the guest agent is not built", hint=c_compiler.REMEDY) from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"the guest agent does not compile:\n{error.stderr[-4000:]}") from error
