"""When the host has no room for one more machine."""

from __future__ import annotations

import pytest

from pandastack.engine.sandboxes.admission import (
    MACHINE_BYTES,
    MEMORY_RESERVE,
    STALLED_MAXIMUM,
    Measured,
    Room,
    find_refusal,
    find_shortage,
    limit_of,
)
from pandastack.engine.settings import Settings
from pandastack.errors import StorageFullError

GIB = 1024**3
ONE = Room(memory_mb=2048, disk_mb=10240)
IDLE = Measured(memory_bytes=8 * GIB, total_memory_bytes=16 * GIB, stalled=0.0, storage_bytes=50 * GIB)


def admitted(limit: Room) -> int:
    """How many machines find room one after the other."""
    count, promised = 0, Room()
    while find_refusal(ONE, promised, limit) is None:
        count, promised = count + 1, promised + ONE
    return count


def test_memory_is_promised_a_few_times_over() -> None:
    assert admitted(limit_of(Settings(overcommit=1.5), 40 * GIB, 9000 * GIB)) == 30
    assert admitted(limit_of(Settings(), 16 * GIB, 9000 * GIB)) == 32
    assert admitted(limit_of(Settings(overcommit=0.25), 16 * GIB, 9000 * GIB)) == 2


def test_disks_are_promised_many_times_over() -> None:
    assert admitted(limit_of(Settings(disk_overcommit=2), 9000 * GIB, 100 * GIB)) == 20
    assert admitted(limit_of(Settings(), 9000 * GIB, 100 * GIB)) == 200


def test_the_refusal_has_the_figures() -> None:
    limit = limit_of(Settings(), 1 * GIB, 9000 * GIB)
    refusal = find_refusal(ONE, ONE + ONE, limit)
    assert refusal is not None and refusal.status_code == 507
    assert str(refusal) == "insufficient host memory for sandbox"
    assert refusal.detail == {"asked_mb": 2048, "promised_mb": 4096, "limit_mb": 4096}
    assert "4096 of 4096 MiB" in (refusal.hint or "") and "PANDASTACK_OVERCOMMIT" in (refusal.hint or "")


def test_a_promise_of_storage_is_no_full_disk() -> None:
    """On a full disk checkpoints are evicted, and here that would not help."""
    refusal = find_refusal(ONE, ONE, Room(memory_mb=9000, disk_mb=10240))
    assert refusal is not None and refusal.status_code == 507 and not isinstance(refusal, StorageFullError)
    assert str(refusal) == "insufficient host storage for sandbox"
    assert "PANDASTACK_DISK_OVERCOMMIT" in (refusal.hint or "")


@pytest.mark.parametrize(
    ("measured", "starting", "short"),
    [
        (IDLE, 1, ""),
        (Measured(MEMORY_RESERVE + MACHINE_BYTES, 16 * GIB, 0.0, GIB), 1, ""),
        (Measured(MEMORY_RESERVE + MACHINE_BYTES, 16 * GIB, None, GIB), 1, ""),
        (Measured(MEMORY_RESERVE + MACHINE_BYTES - 1, 16 * GIB, 0.0, GIB), 1, "memory"),
        (Measured(MEMORY_RESERVE + 16 * MACHINE_BYTES, 16 * GIB, 0.0, GIB), 17, "memory"),
        (Measured(4 * GIB, 16 * GIB, STALLED_MAXIMUM + 0.1, GIB), 1, "memory"),
        (Measured(4 * GIB, 16 * GIB, STALLED_MAXIMUM, GIB), 1, ""),
        (Measured(4 * GIB + 1, 16 * GIB, 100.0, GIB), 1, ""),
        (Measured(8 * GIB, 16 * GIB, 0.0, GIB - 1), 1, "storage"),
    ],
)
def test_what_is_measured_refuses_earlier(measured: Measured, starting: int, short: str) -> None:
    shortage = find_shortage(measured, starting)
    if not short:
        assert shortage is None
    else:
        assert shortage is not None and shortage.status_code == 507 and shortage.hint
        assert str(shortage) == f"insufficient host {short} for sandbox"


def test_full_storage_is_told_apart() -> None:
    assert isinstance(find_shortage(Measured(8 * GIB, 16 * GIB, None, 0), 1), StorageFullError)
