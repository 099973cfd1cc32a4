import gzip
import lzma
import struct
from dataclasses import asdict
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.host.processes.run import run
from pandastack.images.cache import Cache
from pandastack.images.kernel import fetch_kernel
from pandastack.images.pins import FSCK, KERNEL, Pin, read_pins, render_lock
from pandastack.images.vmlinux import load_order, module_depends, module_name, uncompress

ELF = b"\x7fELF" + b"kernel" * 1000


def bzimage(payload: bytes) -> bytes:
    image = bytearray(1024)  # one boot sector and one sector of set-up code
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = struct.pack("<H", 0x20F)
    image[0x248:0x250] = struct.pack("<II", 64, len(payload))
    return bytes(image) + b"\0" * 64 + payload + b"tail"


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd", "lz4"])
async def test_every_compression_of_a_bzimage(tool: str) -> None:
    size = struct.pack("<I", len(ELF))
    if tool == "gzip":
        payload = gzip.compress(ELF)  # its own trailer is the size
    elif tool == "xz":
        payload = lzma.compress(ELF) + size
    else:
        argv = [tool, *(["-l"] if tool == "lz4" else []), "-c", "-q"]
        payload = (await run(argv, input=ELF)).stdout + size
    assert await uncompress(bzimage(payload)) == ELF


async def test_an_arm64_image_is_taken_as_it_is() -> None:
    image = b"MZ".ljust(56, b"\0") + b"ARM\x64" + b"code"
    assert await uncompress(image) == image
    assert await uncompress(gzip.compress(image)) == image


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"nonsense" * 100,
        bzimage(b""),
        bzimage(gzip.compress(b"no kernel")),
        bzimage(gzip.compress(ELF)[:20]),
    ],
)
async def test_what_is_no_kernel(image: bytes) -> None:
    with pytest.raises(BuildError):
        await uncompress(image)


def test_module_facts() -> None:
    assert module_depends(b"\x7fELF\0license=GPL\0depends=virtio,net-failover\0name=x\0") == (
        "virtio",
        "net_failover",
    )
    assert module_depends(b"\x7fELF\0depends=\0") == ()
    assert module_name("kernel/fs/nls-ascii.ko.xz") == "nls_ascii"


def test_load_order() -> None:
    needs = {"net": ("fail", "ring"), "fail": ("base",), "ring": (), "blk": ("ring",), "base": ("ring",)}
    assert load_order(["net", "blk"], {"base"}, needs.__getitem__) == ("fail", "ring", "net", "blk")
    with pytest.raises(BuildError, match="circle"):
        load_order(["a"], (), {"a": ("b",), "b": ("a",)}.__getitem__)


def test_the_lock_file_reads_back(tmp_path: Path) -> None:
    kernels = {"amd64": Pin("linux-image-1", "1-1", "a" * 64), "arm64": Pin("linux-image-2", "1-1", "b" * 64)}
    pins = {KERNEL: kernels, FSCK: {"amd64": Pin("e2fsck-static", "1", "c" * 64)}}
    lock = tmp_path / "lock"
    lock.write_text(render_lock(pins))
    assert read_pins(lock) == pins
    assert all(set(table) == {"amd64", "arm64"} for table in read_pins().values())
    lock.write_text("[kernel.amd64]\npackage = 1")
    with pytest.raises(BuildError, match="cannot be used"):
        read_pins(lock)


async def test_debians_kernel(shared_cache: Cache) -> None:
    kernel = await fetch_kernel(shared_cache)
    assert kernel.vmlinux.read_bytes()[:4] == b"\x7fELF"
    assert kernel.release.endswith(("-cloud-amd64", "-cloud-arm64"))
    order = [path.stem for path in kernel.modules]
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in kernel.modules)
    for name in ("virtio_mmio", "virtio_blk", "virtio_console", "virtio_net"):
        assert name in order
    for path in kernel.modules:
        for need in module_depends(path.read_bytes()):
            assert order.index(need) < order.index(path.stem)
    assert await fetch_kernel(shared_cache) == kernel


async def test_a_pin_that_is_gone(shared_cache: Cache, tmp_path: Path) -> None:
    """A mirror that dropped the pinned version: the candidate is taken, said to be not the pin, and
    remembered."""
    gone = Pin("linux-image-6.1.0-1-cloud-amd64", "6.1.4-1", "0" * 64)
    lock = tmp_path / "lock"
    lock.write_text(render_lock({**read_pins(), KERNEL: {"amd64": gone, "arm64": gone}}))
    kernel = await fetch_kernel(shared_cache, lock=lock)
    assert not kernel.pinned
    assert kernel.manifest["sha256"] != gone.sha256 and len(kernel.sha256) == 64
    assert await fetch_kernel(shared_cache, lock=lock) == kernel


@pytest.mark.network
async def test_a_pin_with_another_hash_is_refused(tmp_path: Path) -> None:
    pins = {arch: Pin(**{**asdict(pin), "sha256": "0" * 64}) for arch, pin in read_pins()[KERNEL].items()}
    lock = tmp_path / "lock"
    lock.write_text(render_lock({**read_pins(), KERNEL: pins}))
    try:
        kernel = await fetch_kernel(Cache(tmp_path / "cache"), lock=lock)
    except BuildError as error:
        assert "is not the pinned file" in error.message
    else:  # the shipped pin has left the mirror meanwhile
        assert not kernel.pinned
