"""A life full of accidents, and nothing is lost or left. ``make soak`` runs a long one.

``SOAK_OPERATIONS`` says how long, ``SOAK_SEED`` repeats the choices of a run (not its timing).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
from dataclasses import replace

import pytest

from tests.soak.soak import SETTINGS, Soak
from tests.support.installation import Install, Installation, shelves

LONG = int(os.environ.get("SOAK_OPERATIONS") or 300)
OPERATIONS = [
    pytest.param(25, marks=pytest.mark.timeout(1800, func_only=True), id="short"),
    pytest.param(LONG, marks=pytest.mark.slow, id="long"),
]
SEED = int(os.environ.get("SOAK_SEED") or secrets.randbits(32))
SLACK = 1024**2
"""Bytes of the file system's own that may come and go: inodes, maps, its log."""


def used_bytes(place: Installation) -> int:
    """What the pool holds besides the templates when nothing runs."""
    with replace(place, settings={**place.settings, "PANDASTACK_READY_MACHINES": "0"}).serving():
        pool = place.layout.engine / "pool"
        subprocess.run(["sync", "-f", pool], check=True)
        found = os.statvfs(pool)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def rows(place: Installation) -> dict[str, int]:
    with sqlite3.connect(place.data / "pandastack.db") as database:
        return {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sandboxes", "snapshots", "events")
        }


@pytest.mark.parametrize("operations", OPERATIONS)
def test_nothing_is_lost_and_nothing_is_left(install: Install, pytestconfig: pytest.Config, operations: int) -> None:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"soak: {text}", flush=True)

    place = install("base", **SETTINGS)
    before = used_bytes(place)
    say(f"seed {SEED} (SOAK_SEED), {operations} operations")
    with Soak(place, SEED, say) as soak:
        soak.run(operations)
    say(soak.summary())
    assert (place.left_behind(), shelves(place)) == ([], [])
    assert rows(place) == {"sandboxes": 0, "snapshots": 0, "events": 0}
    after = used_bytes(place)
    say(f"the pool holds {before / 2**20:.1f} MiB before and {after / 2**20:.1f} MiB after")
    assert after - before <= SLACK
