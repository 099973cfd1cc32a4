"""How an engine is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """``checks`` has a word for each part; ``sandboxes`` counts those that run.

    ``accelerator`` is how guests' instructions are run, ``isolation`` what stands between them and the host, in words.
    """

    status: str
    checks: Mapping[str, str]
    accelerator: str
    isolation: str
    vmm: str
    sandboxes: int
    confinement: Mapping[str, bool]
    """Every measure by name, and whether machines here are under it: :class:`pandastack.model.confinement.Measure`."""
