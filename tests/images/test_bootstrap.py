import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pandastack.host.facts import program
from pandastack.host.files import allocated_bytes
from pandastack.host.processes.run import run
from pandastack.images.apt import default_sources
from pandastack.images.bootstrap import ARCHIVE, Bootstrap, arguments, installed, make_debian_tree
from pandastack.images.cache import Cache, file_sha256
from pandastack.images.image import Image
from pandastack.images.tree import DEBIAN_MB, debian_tree, make_image

real = pytest.mark.skipif(
    not (program("mmdebstrap") and program("mke2fs")),
    reason="needs mmdebstrap and mke2fs to make a real image and look into it",
)


@contextmanager
def mounted(image: Image, target: Path) -> Iterator[Path]:
    target.mkdir()
    tried = subprocess.run(["mount", "-o", "loop,ro,noload", image.path, target], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"this kernel mounts no ext4: {tried.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.root
@real
@pytest.mark.timeout(600)
async def test_debian(shared_cache: Cache, tmp_path: Path) -> None:
    plan = debian_tree().with_directories(["/tmp/made", "/workspace"])
    image = await make_image(shared_cache, plan)
    assert await make_image(shared_cache, plan) == image
    assert {"apt", "libc6", "base-files"} <= set(image.packages)
    assert "perl" not in image.packages
    assert image.size_bytes == allocated_bytes(image.path) < 150_000_000 and image.disk_mb == DEBIAN_MB
    with mounted(image, tmp_path / "root") as root:
        assert (root / "tmp/made").is_dir() and (root / "workspace").is_dir()
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777, "a directory that was there keeps its mode"
        assert (root / "etc/debian_version").read_text().startswith("12")
        assert (root / "etc/debian_version").stat().st_mtime > 1e9, "files keep their packages' times"
        assert (root / "etc/resolv.conf").read_bytes() == b""
        assert not (root / "etc/hostname").exists()
        days = {line.split(":")[2] for line in (root / "etc/shadow").read_text().splitlines()}
        assert days == {"19518"}, "the day of Debian 12's release, not of the bootstrap"
        assert (root / "var/lib/apt/lists/partial").stat().st_uid == 0
        assert "bookworm-security" in "".join(
            path.read_text() for path in (root / "etc/apt/sources.list.d").glob("*.sources")
        )
        assert not (root / "etc/ssl").exists(), "the host's certificates are not the image's"
        assert list((root / "var/cache/apt/archives").glob("*.deb")) == []
        await run(["chroot", root, "dpkg", "--audit"])


def make_directory(path: Path) -> Path:
    path.mkdir(mode=0o755)
    return path


@pytest.mark.root
@real
@pytest.mark.timeout(600)
async def test_a_second_bootstrap_makes_the_same_bytes(shared_cache: Cache, tmp_path: Path) -> None:
    """The tree's archive: the disk made from it has the times at which mke2fs found the files read and changed."""
    plan, other = debian_tree().debian, Cache(tmp_path / "cache")
    first = await make_debian_tree(shared_cache, plan, make_directory(tmp_path / "first") / "tree")
    shutil.copytree(shared_cache.root / "downloads", other.root / "downloads")
    second = await make_debian_tree(other, plan, make_directory(tmp_path / "second") / "tree")
    if first.packages != second.packages:
        pytest.skip("the mirror has newer packages than the cached tree")
    name = f"trees/{plan.key}/{ARCHIVE}"
    assert file_sha256(shared_cache.root / name) == file_sha256(other.root / name)


def test_keys_follow_what_is_asked_for() -> None:
    one = Bootstrap(("git",), "bookworm", "amd64", default_sources())
    two = Bootstrap(("git",), "bookworm", "amd64", default_sources())
    three = Bootstrap((), "bookworm", "amd64", default_sources())
    assert one.key == two.key != three.key


def test_mmdebstrap_sees_one_repository() -> None:
    plan = Bootstrap(("a", "b"), "bookworm", "amd64", default_sources())
    argv = arguments(plan, Path("/t"), "deb [trusted=yes] copy:/r ./")
    assert argv[-3:] == ["bookworm", "/t", "deb [trusted=yes] copy:/r ./"]
    assert "--include=a,b" in argv
    assert "?essential" in plan.wanted


def test_package_lists() -> None:
    assert installed("Package: a\nVersion: 1:2-3\nDescription: x\n y\n\nPackage: b\nStatus: gone\n") == {"a": "1:2-3"}
