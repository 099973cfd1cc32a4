"""Benchmark reports: samples become a row of percentiles, rows become a table or JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pandastack.host import facts


@dataclass(frozen=True)
class Row:
    """One measure. ``ratio`` is its median divided by the floor's median of the same run, if it has a floor."""

    name: str
    unit: str
    n: int
    p50: float
    p90: float
    p99: float
    min: float
    max: float
    floor_p50: float | None = None
    ratio: float | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of all samples do not exceed (nearest rank)."""
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return ordered[rank - 1]


def summarize(name: str, unit: str, samples: Sequence[float], floor: Sequence[float] | None = None) -> Row:
    """The row of ``samples``; ``floor`` are the samples of the same run to compare them with."""
    ordered = sorted(samples)
    p50 = percentile(ordered, 0.5)
    floor_p50 = percentile(sorted(floor), 0.5) if floor else None
    return Row(
        name=name,
        unit=unit,
        n=len(ordered),
        p50=round(p50, 3),
        p90=round(percentile(ordered, 0.9), 3),
        p99=round(percentile(ordered, 0.99), 3),
        min=round(ordered[0], 3),
        max=round(ordered[-1], 3),
        floor_p50=None if floor_p50 is None else round(floor_p50, 3),
        ratio=None if floor_p50 is None else round(p50 / floor_p50, 3),
    )


def machine_facts(vmm: str, accelerator: str) -> dict[str, Any]:
    """Facts about the host that a reader needs to compare two runs."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": facts.cores(),
        "memory_mib": facts.memory_bytes() // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "vmm": vmm,
        "accelerator": accelerator,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def to_json(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    return json.dumps({"machine": machine, "results": [asdict(row) for row in rows]}, indent=2)
