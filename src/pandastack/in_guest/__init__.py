"""Programs that run inside guests, as text: nothing here is imported by the host."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent

GENERATION = "pandastack_generation.py"
"""What keeps warm Python programs apart in copies."""


def programs() -> dict[str, bytes]:
    """The programs that every template gets, by their path below the guest's directory for them."""
    code = {f"kernels/{path.name}": path.read_bytes() for path in sorted((_HERE / "code").glob("*.*"))}
    return {GENERATION: (_HERE / GENERATION).read_bytes(), **code}


def watch_program() -> str:
    """The program that reports changes below a directory; it needs Python's standard library only."""
    return (_HERE / "watch.py").read_text()
