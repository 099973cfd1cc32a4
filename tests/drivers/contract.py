"""What every driver does, asked of real machines with the real guest.

A driver's test module inherits :class:`DriverContract` and has a fixture ``driver``. The guests run with the
accelerator that ``PANDASTACK_TEST_ACCELERATOR`` names (``tcg`` if none).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from pandastack.disks.overlay import disk_size, flatten, make_overlay
from pandastack.errors import GuestError, NotFoundError, ServerError
from pandastack.guest import Channel, ExecRequest, Identity
from pandastack.host import facts, files, pagemap
from pandastack.host.processes.identity import ProcessIdentity, alive, identify, kill
from pandastack.images.ext4 import make_ext4
from pandastack.model.accelerator import Accelerator
from pandastack.network.namespace import empty_namespace
from pandastack.vmm.driver import Driver, Machine
from pandastack.vmm.plan import (
    GUEST_MAC,
    Blank,
    Boot,
    Confinement,
    Disk,
    DiskRate,
    MachinePlan,
    Sockets,
    TapNic,
    UserNic,
)

MEMORY_MB = 256
BOOT_DEADLINE = 90.0
DEADLINE = 30.0
VOLUME_BYTES = 8 * 2**20
MTU = 1400
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
ALL_FRAMES, ARP = socket.ntohs(3), b"\x08\x06"


@dataclass(frozen=True)
class Guest:
    """What a machine is booted from, and with what."""

    boot: Boot
    image: Path
    accelerator: Accelerator


@dataclass(frozen=True)
class Capture:
    """A machine that was booted, wrote ``before`` to its memory and to its disk, and was captured."""

    directory: Path
    guest: Guest
    before: str

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def devices(self) -> Path:
        return self.directory / "devices"


def plan_in(directory: Path, guest: Guest, memory: Path) -> MachinePlan:
    """A machine without a guest that keeps its files in ``directory``."""
    sockets = directory / "s"
    sockets.mkdir()
    return MachinePlan(
        name=f"contract-{directory.name}",
        cpus=1,
        memory_mb=MEMORY_MB,
        memory=memory,
        disks=(
            Disk("root", directory / "root", base=guest.image),
            Disk("volume", directory / "volume"),
            Blank("blank"),
        ),
        sockets=Sockets(sockets / "channel", sockets / "control", sockets / "console"),
        accelerator=guest.accelerator,
        nic=TapNic(MTU),
    )


async def booting_plan(directory: Path, guest: Guest) -> MachinePlan:
    memory = directory / "memory"
    with memory.open("wb") as file:
        file.truncate(MEMORY_MB * 2**20)
    make_overlay(directory / "root", guest.image.stat().st_size)
    (directory / "volume").write_bytes(bytes(512))
    return replace(plan_in(directory, guest, memory), boot=guest.boot, memory_shared=True)


def restoring_plan(directory: Path, capture: Capture) -> MachinePlan:
    for name in ("root", "volume"):
        files.clone(capture.directory / name, directory / name)
    return plan_in(directory, capture.guest, capture.memory)


@asynccontextmanager
async def channel_of(plan: MachinePlan) -> AsyncIterator[Channel]:
    async with await anyio.connect_unix(plan.sockets.channel) as stream, Channel(stream) as channel:
        yield channel


@asynccontextmanager
async def booted(driver: Driver, plan: MachinePlan, log: Path) -> AsyncIterator[tuple[Machine, Channel]]:
    async with driver.launch(plan, log) as machine, channel_of(plan) as channel:
        await channel.hello(timeout_s=BOOT_DEADLINE)
        await introduce(channel)
        yield machine, channel


@asynccontextmanager
async def restored(driver: Driver, plan: MachinePlan, devices: Path) -> AsyncIterator[tuple[Machine, Channel]]:
    log = devices.with_name("vmm.log")
    async with driver.launch(plan, log) as machine, channel_of(plan) as channel:
        await machine.load(devices)
        await introduce(channel)
        yield machine, channel


async def introduce(channel: Channel) -> None:
    identity = Identity("contract", secrets.token_hex(16))
    await channel.resume(identity, at_frame_boundary=True, timeout_s=DEADLINE)


async def run(channel: Channel, command: str) -> str:
    text = b""
    async with channel.exec(ExecRequest(cmd=command, timeout_s=DEADLINE)) as process:
        async for _, piece in process.output():
            text += piece
    assert process.result.exit_code == 0, text
    return text.decode().strip()


async def captured(channel: Channel, machine: Machine, devices: Path) -> None:
    """The machine stays paused inside the block of its life: its memory and disks can be copied."""
    await channel.sync(timeout_s=DEADLINE)
    async with channel.quiesced(timeout_s=DEADLINE):
        await machine.pause()
        await machine.save_devices(devices)


async def make_capture(driver: Driver, guest: Guest, directory: Path) -> Capture:
    before = secrets.token_hex(8)
    plan = await booting_plan(directory, guest)
    async with booted(driver, plan, directory / "boot.log") as (machine, channel):
        await run(channel, f"echo {before} | tee /run/before > /root/before")
        await machine.set_link(up=False)
        await captured(channel, machine, directory / "devices")
    return Capture(directory, guest, before)


CONNECT = "bash -c ': < /dev/tcp/198.51.100.1/80'"


@contextmanager
def tap_device() -> Iterator[tuple[int, str]]:
    """A tap device without an address: its descriptor and its name."""
    name = f"ps{secrets.token_hex(4)}"
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield fd, name
    finally:
        os.close(fd)


def sender_of_arp(sniffer: socket.socket) -> bytes:
    """The hardware address that asks for another's."""
    while True:
        frame = sniffer.recv(2048)
        if frame[12:14] == ARP:
            return frame[6:12]


def work_directory() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="ps-")  # a short path: below it lie Unix sockets


@pytest.mark.anyio
@pytest.mark.vm
@pytest.mark.timeout(300)
class DriverContract:
    """The suite. Its tests are independent of one another, and share one captured machine."""

    async def test_a_restored_guest_continues(self, driver: Driver, capture: Capture, plan: MachinePlan) -> None:
        async with restored(driver, plan, capture.devices) as (_, channel):
            assert await run(channel, "cat /run/before /root/before") == f"{capture.before}\n{capture.before}"
            assert await run(channel, "head -c 16 /dev/urandom | wc -c") == "16"

    async def test_what_a_restored_guest_writes_is_its_own(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        """Memory and disks of the capture are never written again, and machines restored from it do not meet."""
        kept = [capture.memory, capture.directory / "root", capture.guest.image]
        before = [each.stat().st_mtime_ns for each in kept]
        async with restored(driver, plan, capture.devices) as (_, channel):
            await run(channel, "head -c 1000000 /dev/urandom | tee /run/new > /root/new; sync")
        assert [each.stat().st_mtime_ns for each in kept] == before
        with work_directory() as other:
            again = restoring_plan(Path(other), capture)
            async with restored(driver, again, capture.devices) as (_, channel):
                assert await run(channel, "ls /run/new /root/new 2>/dev/null | wc -l") == "0"

    async def test_it_cannot_write_to_the_memory_image(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        """Other machines map the same file: a VMM that its guest has taken over must not reach them through it."""
        image = capture.memory.stat()
        async with restored(driver, plan, capture.devices) as (machine, _):
            modes = []
            for fd in Path(f"/proc/{machine.pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(fd.stat(), image):
                        info = Path(f"/proc/{machine.pid}/fdinfo/{fd.name}").read_text().splitlines()
                        flags = next(line.split()[1] for line in info if line.startswith("flags:"))
                        modes.append(int(flags, 8) & os.O_ACCMODE)
        assert set(modes) <= {os.O_RDONLY}

    async def test_its_process_maps_the_memory_so_that_it_can_be_captured(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        """A capture of a restored machine: the pages that differ from the file, beside the state of the devices."""
        marker = secrets.token_hex(8)
        taken = Capture(work / "taken", capture.guest, capture.before)
        taken.directory.mkdir()
        async with restored(driver, plan, capture.devices) as (machine, channel):
            await run(channel, f"echo {marker} > /run/marker")
            await captured(channel, machine, taken.devices)
            files.clone(capture.memory, taken.memory)
            extents = pagemap.own_pages(machine.pid, capture.memory)
            with taken.memory.open("r+b", buffering=0) as memory:
                for offset, data in pagemap.read_pages(machine.pid, extents):
                    os.pwrite(memory.fileno(), data, offset)
            for name in ("root", "volume"):
                files.clone(work / name, taken.directory / name)
        with work_directory() as other:
            again = restoring_plan(Path(other), taken)
            async with restored(driver, again, taken.devices) as (_, channel):
                assert await run(channel, "cat /run/before /run/marker") == f"{capture.before}\n{marker}"

    async def test_pages_can_be_put_into_its_memory_before_it_loads(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        marker = secrets.token_hex(8)
        async with restored(driver, plan, capture.devices) as (machine, channel):
            await run(channel, f"echo {marker} > /run/marker")
            await captured(channel, machine, work / "devices")
            extents = pagemap.own_pages(machine.pid, capture.memory)
            pages = list(pagemap.read_pages(machine.pid, extents))
            with work_directory() as other:
                for name in ("root", "volume"):
                    files.clone(work / name, Path(other) / name)
                blank = plan_in(Path(other), capture.guest, capture.memory)
                async with driver.launch(blank, Path(other) / "log") as second, channel_of(blank) as theirs:
                    pagemap.write_pages(second.pid, capture.memory, iter(pages))
                    await second.load(work / "devices")
                    await introduce(theirs)
                    assert await run(theirs, "cat /run/marker") == marker

    async def test_a_paused_guest_does_nothing_and_then_continues(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        async with restored(driver, plan, capture.devices) as (machine, channel):
            await machine.pause()
            with pytest.raises(GuestError):
                await channel.ping(timeout_s=0.5)
            await machine.resume()
            await machine.resume()
            assert await channel.ping(timeout_s=DEADLINE) >= 0

    async def test_a_saved_machine_can_be_resumed(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        async with restored(driver, plan, capture.devices) as (machine, channel):
            for name in ("one", "two"):
                await captured(channel, machine, work / name)
                await machine.resume()
                assert await run(channel, f"echo {name} > /root/{name}; sync; cat /root/{name}") == name

    async def test_what_a_guest_wrote_is_in_its_overlay_when_it_is_paused(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        """Small and scattered, large, zeros, and given back: base and overlay together are the guest's disk."""
        size = disk_size(work / "root")
        async with restored(driver, plan, capture.devices) as (machine, channel):
            await run(channel, "head -c 9000000 /dev/urandom > /root/large; head -c 300000 /dev/zero > /root/zeros")
            await run(channel, "cd /root; seq 500 | split -l 1 -a 3 - small-; rm small-a[a-f]?; sync; fstrim /")
            said = await run(channel, "cd /root; cat * | sha256sum; cat /etc/debian_version")
            await captured(channel, machine, work / "devices")
            flatten(capture.guest.image, work / "root", work / "flat")
            assert disk_size(work / "root") == size == (work / "flat").stat().st_size
        flat = replace(capture.guest, image=work / "flat")
        with work_directory() as other:
            async with booted(driver, await booting_plan(Path(other), flat), Path(other) / "log") as (_, channel):
                assert await run(channel, "cd /root; cat * | sha256sum; cat /etc/debian_version") == said
        await anyio.run_process(["e2fsck", "-fn", str(work / "flat")])

    async def test_a_disk_grows_under_a_running_guest(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        """A blank disk of a capture becomes a volume."""
        if not driver.capabilities.resizes_disks:
            pytest.skip("this driver does not resize disks")
        async with restored(driver, plan, capture.devices) as (machine, channel):
            assert await run(channel, "cat /sys/block/vdb/size") == "1"
            os.truncate(work / "volume", VOLUME_BYTES)
            await machine.resize_disk("volume", VOLUME_BYTES)
            grown = f"until [ $(cat /sys/block/vdb/size) = {VOLUME_BYTES // 512} ]; do sleep 0.05; done"
            assert await run(channel, f"{grown}; head -c {VOLUME_BYTES} /dev/zero | tr '\\0' x > /dev/vdb; sync") == ""
        assert (work / "volume").read_bytes() == b"x" * VOLUME_BYTES

    async def test_a_volume_takes_the_place_of_a_blank_disk(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        await make_ext4(work / "data", VOLUME_BYTES >> 20)
        disks = (*plan.disks[:2], Disk("data", work / "data"))
        async with restored(driver, replace(plan, disks=disks), capture.devices) as (machine, channel):
            await machine.resize_disk("data", VOLUME_BYTES)
            grown = f"until [ $(cat /sys/block/vdc/size) = {VOLUME_BYTES // 512} ]; do sleep 0.05; done"
            await run(channel, f"{grown}; mount /dev/vdc /mnt && echo kept > /mnt/file && umount /mnt")
            assert await run(channel, "cat /sys/block/vdc/serial") == "data"
        with work_directory() as other:
            again = replace(restoring_plan(Path(other), capture), disks=disks)
            async with restored(driver, again, capture.devices) as (machine, channel):
                await machine.resize_disk("data", VOLUME_BYTES)
                assert await run(channel, f"{grown}; mount /dev/vdc /mnt && cat /mnt/file") == "kept"

    async def test_its_disks_are_held_to_the_rate_of_the_plan(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        """Also while they grow, and when they are saved."""
        limited = replace(plan, disk_rate=DiskRate(bytes_per_second=2 * 2**20))
        async with restored(driver, limited, capture.devices) as (machine, channel):
            await machine.resize_disk("root", 4 * 2**30)
            began = time.monotonic()
            await run(channel, "dd if=/dev/zero of=/root/much bs=1M count=8 oflag=direct 2>&1")
            assert time.monotonic() - began > 3
            assert await run(channel, "cat /sys/block/vda/size") == str(4 * 2**30 // 512)
            await captured(channel, machine, capture.directory / "limited")

    async def test_a_captured_network_device_is_restored_with_a_tap(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        """The capture had nothing at the other end, and its cable was out."""
        if not facts.is_root():
            pytest.skip("only root can make a tap device")
        carrier = "cat /sys/class/net/eth0/carrier"
        with tap_device() as (fd, name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ALL_FRAMES) as sniffer:
            sniffer.bind((name, 0))
            sniffer.settimeout(DEADLINE)
            async with restored(driver, replace(plan, nic=TapNic(MTU, fd)), capture.devices) as (machine, channel):
                assert await run(channel, carrier) == "0"
                # The kernel may let a second pass before it notices what the capture came too early for.
                await run(channel, f"until timeout 1 {CONNECT} 2>&1 | grep unreachable; do :; done")
                await machine.set_link(up=True)
                await run(channel, f"until [ $({carrier}) = 1 ]; do sleep 0.05; done")
                assert await run(channel, "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address") == (
                    f"{MTU}\n{GUEST_MAC}"
                )
                await run(channel, f"timeout 1 {CONNECT} || true")
                sender = await anyio.to_thread.run_sync(sender_of_arp, sniffer)
                assert sender.hex(":") == GUEST_MAC
                await machine.set_link(up=False)
                await run(channel, f"until [ $({carrier}) = 0 ]; do sleep 0.05; done")

    async def test_a_booted_machine_has_the_network_device_of_its_plan(
        self, driver: Driver, guest: Guest, work: Path
    ) -> None:
        if UserNic not in driver.capabilities.nics:
            pytest.skip("this driver has no user-mode network")
        plan = replace(await booting_plan(work, guest), nic=UserNic(1400))
        async with booted(driver, plan, work / "vmm.log") as (_, channel):
            assert await run(channel, "cat /sys/class/net/e*/mtu") == "1400"

    async def test_its_life_is_the_block(self, driver: Driver, plan: MachinePlan, work: Path) -> None:
        started: list[ProcessIdentity] = []
        with anyio.CancelScope() as scope:
            async with driver.launch(plan, work / "vmm.log") as machine:
                found = identify(machine.pid)
                assert found is not None and machine.plan is plan
                started.append(found)
                scope.cancel()
                await anyio.sleep_forever()
        assert not alive(started[0])
        assert list(plan.sockets.channel.parent.iterdir()) == []

    async def test_an_end_of_its_own_is_told(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        async with restored(driver, plan, capture.devices) as (machine, channel):
            found = identify(machine.pid)
            assert found is not None and kill(found)
            with anyio.fail_after(DEADLINE):
                assert "SIGKILL" in await machine.wait()
                assert isinstance(await channel.wait_closed(), GuestError)
            with pytest.raises(ServerError):
                await machine.pause()

    async def test_a_plan_that_cannot_work_fails_with_the_vmms_words(
        self, driver: Driver, plan: MachinePlan, work: Path
    ) -> None:
        (work / "root").unlink()
        with pytest.raises(ServerError, match="root"):
            async with driver.launch(plan, work / "vmm.log"):
                raise AssertionError("it cannot start")
        assert list(plan.sockets.channel.parent.iterdir()) == []

    async def test_a_state_that_cannot_be_read_ends_the_machine(
        self, driver: Driver, plan: MachinePlan, work: Path
    ) -> None:
        (work / "devices").write_bytes(secrets.token_bytes(4096))
        async with driver.launch(plan, work / "vmm.log") as machine:
            with contextlib.suppress(ServerError):
                await machine.load(work / "devices")
            with anyio.fail_after(DEADLINE):
                assert await machine.wait()

    async def test_another_process_takes_a_machine_over(
        self, driver: Driver, capture: Capture, plan: MachinePlan, work: Path
    ) -> None:
        """Its launcher is killed, and the guest runs on."""
        launcher = await anyio.to_thread.run_sync(_start_launcher, driver, plan, capture.devices)
        assert launcher.stdout is not None
        pid = int(await anyio.to_thread.run_sync(launcher.stdout.readline))
        process = identify(pid)
        assert process is not None
        launcher.kill()
        await anyio.to_thread.run_sync(launcher.wait)
        launcher.stdout.close()
        async with driver.reattach(process, plan, work / "vmm.log") as machine, channel_of(plan) as channel:
            assert machine.pid == pid
            identity = Identity("contract", secrets.token_hex(16))
            await channel.resume(identity, at_frame_boundary=False, timeout_s=DEADLINE)
            assert await run(channel, "cat /run/before") == capture.before
            await machine.pause()
            await machine.resume()
        assert not alive(process)
        with pytest.raises(NotFoundError):
            async with driver.reattach(process, plan, work / "vmm.log"):
                raise AssertionError("it is gone")

    async def test_a_confined_machine_has_a_user_and_a_network_of_its_own(
        self, driver: Driver, capture: Capture, plan: MachinePlan
    ) -> None:
        if not facts.is_root():
            pytest.skip("only root can confine machines")
        confinement = Confinement(0x6FFF0001, 0x6FFF0002, await empty_namespace())
        async with restored(driver, replace(plan, confinement=confinement), capture.devices) as (machine, channel):
            status = Path(f"/proc/{machine.pid}/status").read_text().splitlines()
            ids = {line.split()[0]: set(line.split()[1:]) for line in status if line.startswith(("Uid", "Gid"))}
            assert ids == {"Uid:": {str(confinement.uid)}, "Gid:": {str(confinement.gid)}}
            if confinement.netns is not None:
                assert Path(f"/proc/{machine.pid}/net/dev").read_text().count(":") == 1  # lo
            assert await run(channel, "cat /run/before") == capture.before

    def test_it_says_what_it_is(self, driver: Driver) -> None:
        assert driver.identity
        assert len(set(driver.cpus.values())) == len(driver.cpus)


def _start_launcher(driver: Driver, plan: MachinePlan, devices: Path) -> subprocess.Popen[bytes]:
    launcher = subprocess.Popen(
        [sys.executable, "-m", "tests.drivers.contract"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert launcher.stdin is not None
    launcher.stdin.write(pickle.dumps((driver, plan, devices)))
    launcher.stdin.close()
    return launcher


async def _launch_and_wait(driver: Driver, plan: MachinePlan, devices: Path) -> None:
    """What a server does until it is killed."""
    async with restored(driver, plan, devices) as (machine, _):
        print(machine.pid, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    anyio.run(_launch_and_wait, *pickle.load(sys.stdin.buffer))
