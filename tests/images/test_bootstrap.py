import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pandastack.host.facts import program
from pandastack.host.processes.run import run
from pandastack.images.apt import default_sources
from pandastack.images.bootstrap import Bootstrap, arguments, builder, debian, installed, simulated
from pandastack.images.cache import Cache, file_sha256
from pandastack.images.erofs import Image, mkfs_arguments

real = pytest.mark.skipif(
    not (program("mmdebstrap") and program("mkfs.erofs")),
    reason="needs mmdebstrap and mkfs.erofs to make a real image and look into it",
)


@contextmanager
def mounted(image: Image, target: Path) -> Iterator[Path]:
    target.mkdir()
    tried = subprocess.run(["mount", "-o", "loop,ro", image.path, target], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"this kernel mounts no erofs: {tried.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.root
@real
async def test_debian(shared_cache: Cache, tmp_path: Path) -> None:
    image = await debian(shared_cache)
    assert await debian(shared_cache) == image
    assert {"apt", "libc6", "base-files"} <= set(image.packages)
    assert "perl" not in image.packages
    assert image.size_bytes == image.path.stat().st_size < 80_000_000
    with mounted(image, tmp_path / "root") as root:
        assert (root / "etc/debian_version").read_text().startswith("12")
        assert (root / "etc/debian_version").stat().st_mtime > 1e9, "files keep their packages' times"
        assert (root / "etc/resolv.conf").read_bytes() == b""
        assert not (root / "etc/hostname").exists()
        assert "bookworm-security" in "".join(
            path.read_text() for path in (root / "etc/apt/sources.list.d").glob("*.sources")
        )
        assert not (root / "etc/ssl").exists(), "the host's certificates are not the image's"
        assert list((root / "var/cache/apt/archives").glob("*.deb")) == []
        await run(["chroot", root, "dpkg", "--audit"])


@pytest.mark.root
@real
async def test_the_builder_has_its_tools(shared_cache: Cache, tmp_path: Path) -> None:
    image = await builder(shared_cache)
    assert {"erofs-utils", "e2fsprogs", "mount", "tar", "dash"} <= set(image.packages)
    with mounted(image, tmp_path / "root") as root:
        for tool in ("mkfs.erofs --help", "mke2fs -V", "mount --version", "tar --version", "cp --version"):
            await run(["chroot", root, *tool.split()])


@pytest.mark.root
@real
async def test_a_second_bootstrap_makes_the_same_bytes(shared_cache: Cache, tmp_path: Path) -> None:
    first = await builder(shared_cache)
    other = Cache(tmp_path)
    shutil.copytree(shared_cache.root / "apt", other.root / "apt")
    second = await builder(other)
    if first.packages != second.packages:
        pytest.skip("the mirror has newer packages than the cached image")
    assert file_sha256(first.path) == file_sha256(second.path)


def test_keys_follow_what_is_asked_for() -> None:
    one = Bootstrap("minbase", ("git",), "bookworm", "amd64", default_sources())
    two = Bootstrap("minbase", ("git",), "bookworm", "amd64", default_sources())
    three = Bootstrap("minbase", (), "bookworm", "amd64", default_sources())
    assert one.key == two.key != three.key


def test_arguments_quote_the_archive_folder() -> None:
    plan = Bootstrap("minbase", ("a", "b"), "bookworm", "amd64", default_sources())
    argv = arguments(plan, Path("/t"), Path("/s.sources"), Path("/with space"))
    assert argv[-3:] == ["bookworm", "/t", "/s.sources"]
    assert "--include=a,b" in argv
    assert "--setup-hook=sync-in '/with space' /var/cache/apt/archives/" in argv


def test_package_lists() -> None:
    assert installed("Package: a\nVersion: 1:2-3\nDescription: x\n y\n\nPackage: b\nStatus: gone\n") == {"a": "1:2-3"}
    text = "Inst dash (0.5 Debian:12/stable [amd64]) []\nInst tar [1.0] (1.1 D)\nConf dash (0.5)\n"
    assert simulated(text) == {"dash": "0.5", "tar": "1.1"}


def test_mkfs_keeps_times_and_names_the_disk_by_its_key() -> None:
    argv = mkfs_arguments("/dev/vdb", "/mnt", "key")
    assert "mkfs.erofs" in argv and argv[-2:] == ("/dev/vdb", "/mnt")
    assert not any(word.startswith("-T") for word in argv)
    assert argv != mkfs_arguments("/dev/vdb", "/mnt", "other")
