"""Directories that machines are restored from: what is written there, and the stores that hold them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pandastack.disks.overlay import make_overlay
from pandastack.engine import origins
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import NotFoundError, ServerError
from pandastack.snapshots.manifest import Snapshot
from tests.support.loops import slowed
from tests.support.manifests import MANIFEST, TEMPLATE


def test_a_spec_is_read_back(tmp_path: Path) -> None:
    spec = SandboxSpec("id", "name", {"A": "1"})
    origins.write_spec(tmp_path, spec)
    assert origins.read_spec(tmp_path) == spec
    with pytest.raises(NotFoundError):
        origins.read_spec(tmp_path / "none")


def test_a_spec_of_an_older_server_is_read(tmp_path: Path) -> None:
    older = {"sandbox": "id", "hostname": "name", "env": {}, "still": False}
    (tmp_path / "order.json").write_text(json.dumps(older))
    assert origins.read_spec(tmp_path) == SandboxSpec("id", "name")


def test_no_guest_is_loaded_on_a_disk_that_names_other_files(tmp_path: Path) -> None:
    """A VMM that was taken over writes the header of its own overlay."""
    captured = Snapshot(tmp_path / "captured", MANIFEST)
    captured.directory.mkdir()
    make_overlay(captured.root, 2**20)
    origin = Origin(TEMPLATE, captured)
    (tmp_path / "fine").mkdir()
    origins.copy_state(origin, tmp_path / "fine")
    name = b"/etc/shadow"
    with captured.root.open("r+b") as file:
        for offset, value in ((8, (512).to_bytes(8)), (16, len(name).to_bytes(4)), (512, name)):
            os.pwrite(file.fileno(), value, offset)
    (tmp_path / "machine").mkdir()
    with pytest.raises(ServerError, match="not an overlay"):
        origins.copy_state(origin, tmp_path / "machine")


@pytest.mark.anyio
async def test_a_scratch_directory_is_in_no_list_and_goes_with_its_block(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path / "saved")
    async with store.scratch() as directory:
        (directory / "memory").touch()
        assert store.names() == []
    assert not directory.exists()


@pytest.mark.anyio
async def test_what_a_killed_engine_has_left_unfinished_goes_at_the_next_start(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path / "saved")
    async with store.adding("kept"):
        pass
    async with store.scratch() as left:
        left.rename(left.with_name(f"{left.name}-left"))
    assert len(list((tmp_path / "saved").iterdir())) == 2
    assert CaptureStore(tmp_path / "saved").names() == ["kept"]
    assert [each.name for each in (tmp_path / "saved").iterdir()] == ["kept"]


@pytest.mark.anyio
async def test_the_event_loop_runs_while_much_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CaptureStore(tmp_path / "saved")
    async with slowed(shutil.rmtree) as slow:
        monkeypatch.setattr(shutil, "rmtree", slow)
        async with store.adding("one"), store.scratch():
            pass
        await store.remove("one")
    assert list((tmp_path / "saved").iterdir()) == []
