"""The directories where trees are made."""

from pathlib import Path

import pytest

from pandastack.images import scratch
from pandastack.images.scratch import scratch_tree


async def test_a_tree_that_fits_is_made_in_memory_and_a_large_one_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    async with scratch_tree(1) as tree:
        assert tree.parent.parent == tmp_path and tree.parent.stat().st_mode & 0o777 == 0o755
        tree.mkdir()
    assert not list(tmp_path.iterdir())
    async with scratch_tree(1 << 60) as tree:
        assert tree.parent.parent != tmp_path


async def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    left = tmp_path / "pandastack-tree-left"
    (left / "tree").mkdir(parents=True)
    (tmp_path / "pandastack-tree-link").symlink_to(tmp_path)
    async with scratch_tree(1) as first, scratch_tree(1) as second:
        assert first.parent.is_dir() and second.parent.is_dir() and not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pandastack-tree-link"]
