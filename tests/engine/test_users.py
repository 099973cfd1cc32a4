"""Engines that share a host: their machines' users, and what they leave in the runtime directory."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine.layout import SLOTS, Layout, user_range
from pandastack.engine.machines.names import machine_name
from pandastack.engine.machines.users import own_users
from pandastack.engine.recovery.sweep import sweep_runtime_directory
from pandastack.host import facts
from pandastack.host.leases import exclusive_file, shared_directory


def test_two_engines_never_share_host_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 16384 ranges, so two data directories can come upon the same."""
    monkeypatch.setattr("pandastack.engine.layout.runtime_directory", lambda: tmp_path)
    monkeypatch.setattr(facts, "is_root", lambda: True)
    layout = Layout(tmp_path / "data", tmp_path / "cache")
    with own_users(layout) as first, own_users(layout) as second, own_users(layout) as third:
        assert first == replace(layout, chosen_range=layout.user_range)
        assert len({each.uid(slot) for each in (first, second, third) for slot in (0, SLOTS - 1)}) == 6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_machines_that_outlived_their_engine_keep_their_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.engine.layout.runtime_directory", lambda: tmp_path)
    layout, other = Layout(tmp_path / "data", tmp_path), Layout(tmp_path / "other", tmp_path)
    argv = ["/bin/sh", "-c", "echo; read line", "-name", machine_name(other.tag, "beef")]
    uid = layout.uid(7)
    with subprocess.Popen(argv, user=uid, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as left:
        assert left.stdout is not None and left.stdout.readline() == b"\n"
        with own_users(layout) as chosen:
            assert user_range(uid) == layout.user_range != chosen.user_range
        with own_users(replace(other, chosen_range=layout.user_range)) as chosen:
            assert chosen.uid(7) == uid  # those machines are its own
        left.communicate(b"\n")
    with own_users(layout) as chosen:
        assert chosen.uid(7) == uid


def test_an_engine_sweeps_what_killed_ones_left_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandastack.engine.recovery.sweep.runtime_directory", lambda: tmp_path)
    for name in ("0123abcd", "0123abcd-build", "deadbeef", "another"):
        (tmp_path / name).mkdir()
    (tmp_path / "deadbeef" / "machine").mkdir()
    (tmp_path / "users-1.lock").touch()
    with exclusive_file(tmp_path / "users-2.lock") as taken, shared_directory(tmp_path / "0123abcd-trial"):
        assert taken
        sweep_runtime_directory()
        assert {each.name for each in tmp_path.iterdir()} == {"0123abcd-trial", "another", "deadbeef", "users-2.lock"}
    assert {each.name for each in tmp_path.iterdir()} == {"another", "deadbeef"}
