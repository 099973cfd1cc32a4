"""Programs that run inside guests. Nothing here is imported by the host; it is read as text and put into templates."""

from __future__ import annotations

from pathlib import Path


def source(name: str) -> bytes:
    """The text of the program ``name``."""
    return (Path(__file__).resolve().parent / name).read_bytes()
