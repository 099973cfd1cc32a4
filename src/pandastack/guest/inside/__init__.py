"""Programs that run inside guests. Nothing here is imported by the host; it is read as text and put into templates."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent

GENERATION = "pandastack_generation.py"
"""What keeps warm Python programs apart in copies."""


def programs() -> dict[str, bytes]:
    """Every program by its path below the guest's directory for them."""
    kernels = {f"kernels/{path.name}": path.read_bytes() for path in sorted((_HERE / "kernels").glob("*.*"))}
    return {GENERATION: (_HERE / GENERATION).read_bytes(), **kernels}
