"""A cache on a file system that is really full while a template is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pandastack import Client, config
from pandastack.errors import TemplateBuildError
from pandastack.host import facts
from tests.support.installation import Install, Installation

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1024**2


@pytest.fixture(scope="module")
def place(built: Installation, install: Install, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose cache has a file system of its own, with what a build on ``base`` takes from a cache."""
    if facts.program("mkfs.xfs") is None:
        pytest.skip("this host has no mkfs.xfs")
    root, real = tmp_path_factory.mktemp("cache"), config.cache_dir()
    image, cache = root / "image", root / "mounted"
    cache.mkdir()
    with image.open("wb") as file:
        file.truncate(4096 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, cache], check=True)
    try:
        cache.chmod(0o700)
        for each in real.iterdir():
            if each.is_file() or each.name in ("kernels", "kernel-choices", "initramfs", "fsck"):
                (shutil.copytree if each.is_dir() else shutil.copy2)(each, cache / each.name)
        made = install(PANDASTACK_READY_MACHINES="0", PANDASTACK_CACHE_DIR=str(cache))
        base = image_of_base(built)
        (cache / "images").mkdir()
        subprocess.run(["cp", "-a", "--sparse=always", real / "images" / base, cache / "images" / base], check=True)
        yield made
        made.cli("down")
    finally:
        subprocess.run(["umount", cache], check=True)


def image_of_base(built: Installation) -> str:
    return str(json.loads((built.layout.templates / "base.json").read_bytes())["image"])


@contextmanager
def full(directory: Path, leave: int) -> Iterator[None]:
    """Only ``leave`` bytes are free inside the block."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            status = os.statvfs(directory)
            os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - leave - 16 * MIB))
            file.seek(0, os.SEEK_END)
            with suppress(OSError):
                while (status := os.statvfs(directory)).f_bavail * status.f_frsize > leave and file.write(bytes(MIB)):
                    os.fsync(file.fileno())
        yield
    finally:
        filler.unlink()


def recipe(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(["FROM base", "ARG NONCE", *lines]))
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 2048\n")
    return folder


def test_a_build_on_a_full_disk_says_so_and_leaves_nothing(place: Installation, tmp_path: Path) -> None:
    cache, nonce = Path(place.settings["PANDASTACK_CACHE_DIR"]), {"NONCE": str(time.time_ns())}
    folder = recipe(
        tmp_path / "large-test", "RUN echo begun; sleep 2; head -c 300000000 /dev/zero | tr '\\0' x > /large; sync"
    )
    with place.serving() as server, Client(server.url, server.token, timeout=60) as client:
        with full(cache, 500 * MIB), pytest.raises(TemplateBuildError) as early:
            client.templates.build(folder, build_args=nonce)
        assert f"on the file system {cache}, which has" in str(early.value)
        assert "MB are missing" in str(early.value) and "pandastack template prune --to" in str(early.value)
        started = client.templates.start_build(folder, build_args=nonce)
        for event in client.templates.events(started.id):
            if event.data.get("text") == "begun":
                with full(cache, 40 * MIB):
                    for _ in client.templates.events(started.id):
                        pass
        failed = client.templates.get_build(started.id)
        assert failed.status == "failed" and f"the file system {cache}" in str(failed.error), failed.error
        assert server.building() == []
        assert [each.name for each in (cache / "work").iterdir()] == []
        assert not list(cache.glob("*/.*.making")) and not list(cache.glob("layers/[0-9a-f]*"))
        smaller = recipe(tmp_path / "small-test", "RUN echo small > /small")
        client.templates.build(smaller, build_args=nonce)
        with client.sandboxes.create("small-test") as sandbox:
            assert sandbox.exec("cat /small", check=True).stdout == "small\n"
