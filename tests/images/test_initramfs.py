import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.host.processes.run import run
from pandastack.images import cpio
from pandastack.images.cache import Cache
from pandastack.images.initramfs import build_initramfs, checked_initramfs, contents
from pandastack.images.kernel import Kernel


def read_archive(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """A reader of its own, from the format's description: name → mode, bytes, device."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = fields
        assert (uid, gid, mtime) == (0, 0, 0)
        start = offset + 110
        name = data[start : start + name_size - 1].decode()
        body = -(-(start + name_size) // 4) * 4
        if name == "TRAILER!!!":
            assert len(data) == body
            return found
        found[name] = (mode, data[body : body + size], (major, minor))
        offset = -(-(body + size) // 4) * 4


def test_contents() -> None:
    archive = read_archive(contents(b"agent", [("b.ko", b"1"), ("a.ko", b"22")]))
    assert archive["init"] == (stat.S_IFREG | 0o755, b"agent", (0, 0))
    assert archive["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert archive["modules.list"][1] == b"b.ko\na.ko\n"
    assert archive["modules/a.ko"][1] == b"22"
    assert list(archive).index("modules") < list(archive).index("modules/a.ko")


def test_a_boots_has_the_check_of_the_root_before_the_rest(tmp_path: Path) -> None:
    (tmp_path / "initramfs").write_bytes(b"\x28\xb5\x2f\xfdrest")
    (tmp_path / "e2fsck").write_bytes(b"program")
    data = checked_initramfs(tmp_path / "initramfs", tmp_path / "e2fsck")
    own = data.removesuffix(b"\x28\xb5\x2f\xfdrest")
    assert read_archive(own) == {"e2fsck": (stat.S_IFREG | 0o755, b"program", (0, 0))}
    assert len(own) % 4 == 0  # where the kernel looks for the next archive


def test_equal_contents_are_equal_bytes() -> None:
    members = [cpio.file("b", b"x"), cpio.directory("a"), cpio.file("a/c", b"")]
    assert cpio.archive(members) == cpio.archive(reversed(members))


@given(st.dictionaries(st.text("abc./-é", min_size=1), st.binary(max_size=40)))
def test_every_archive_reads_back(files: dict[str, bytes]) -> None:
    archive = read_archive(cpio.archive([cpio.file(name, data) for name, data in files.items()]))
    assert {name: data for name, (_, data, _) in archive.items()} == files


@pytest.mark.skipif(not shutil.which("cpio"), reason="the program cpio is not installed here")
def test_the_cpio_tool_agrees(tmp_path: Path) -> None:
    data = contents(b"agent", [("m.ko", b"module")])
    listed = subprocess.run(["cpio", "-tv", "--quiet"], input=data, capture_output=True, check=True)
    assert b"crw-------" in listed.stdout and b"5,   1" in listed.stdout
    subprocess.run(["cpio", "-id", "--quiet", "init", "modules*"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "modules/m.ko").read_bytes() == b"module"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


async def test_it_is_made_once_for_each_agent(tmp_path: Path) -> None:
    module = tmp_path / "m.ko"
    module.write_bytes(b"module")
    agent = tmp_path / "agent"
    agent.write_bytes(b"first")
    kernel = Kernel("1", "1-cloud", "0" * 64, tmp_path / "vmlinux", (module,), tmp_path / "modules.img", "0" * 64)
    cache = Cache(tmp_path / "cache")
    first = await build_initramfs(agent, kernel, cache)
    assert await build_initramfs(agent, kernel, cache) == first
    agent.write_bytes(b"second")
    assert await build_initramfs(agent, kernel, cache) != first
    plain = (await run(["zstd", "-dc", first])).stdout
    assert read_archive(plain)["init"][1] == b"first"
