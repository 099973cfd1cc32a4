"""The health of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """``checks`` maps each part to a word about its state; ``sandboxes`` counts the running ones.

    ``accelerator`` is how guests' instructions are run; ``isolation`` describes what separates guests from the host.
    """

    status: str
    checks: Mapping[str, str]
    accelerator: str
    isolation: str
    vmm: str
    sandboxes: int
    confinement: Mapping[str, bool]
    """For each :class:`pandastack.model.confinement.Measure`, whether it confines the machines here."""
