"""Checks of what an engine needs from its host: the substance of ``pandastack doctor``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pandastack.disks.pool import IMAGE_MINIMUM
from pandastack.engine.driver import find_memory_remedy
from pandastack.engine.layout import Layout, runtime_directory
from pandastack.errors import BadRequestError
from pandastack.host import facts, files, mount
from pandastack.host.cgroups import open_groups
from pandastack.host.side_channels import side_channels
from pandastack.network.namespace import namespaces_work
from pandastack.network.subnets import DEFAULT, parse_subnets
from pandastack.network.trial import find_obstacle, gate_shuts_itself


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but slower or less well isolated than it could."""
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One finding; ``fix`` is the exact command or step that resolves it."""

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Tool:
    program: str
    package: str
    purpose: str
    needed: bool = True


TOOLS = (
    Tool("qemu-system-x86_64", "qemu-system-x86", "runs the machines"),
    Tool("mke2fs", "e2fsprogs", "makes the templates' root disks"),
    Tool("e2fsck", "e2fsprogs", "gives the directories of root disks an index"),
    Tool("mmdebstrap", "mmdebstrap", "bootstraps Debian for templates"),
    Tool("dpkg-deb", "dpkg", "unpacks the guest kernel"),
    Tool("depmod", "kmod", "indexes the guest kernel's modules"),
    Tool("lz4", "lz4", "unpacks the guest kernel"),
    Tool("zstd", "zstd", "packs the initramfs", needed=False),
    Tool("mkfs.xfs", "xfsprogs", "makes a storage pool whose files can share blocks", needed=False),
    Tool("ip", "iproute2", "makes network namespaces", needed=False),
    Tool("nft", "nftables", "connects sandboxes, and keeps them apart", needed=False),
    Tool("skopeo", "skopeo", "fetches the images of registries that templates are built on", needed=False),
    Tool("umoci", "umoci", "unpacks their layers, in a machine", needed=False),
    Tool("prlimit", "util-linux", "limits the files of machines"),
    Tool("nsenter", "util-linux", "starts machines in network namespaces", needed=False),
)

SYSTEM_PACKAGES = tuple(dict.fromkeys(tool.package for tool in TOOLS))


def examine(layout: Layout) -> Iterator[Check]:
    """Every check, in the order a person should read them."""
    yield _python()
    yield _architecture()
    yield from (_tool(tool) for tool in TOOLS)
    yield _privileges()
    yield _namespaces()
    network = _network()
    yield network
    if network.verdict is Verdict.OK:
        yield _gate()
    yield _control_groups()
    yield _shared_memory()
    yield from (Check(f"side channel {name}", Verdict.WARN, detail, fix) for name, detail, fix in side_channels())
    yield _kvm_device()
    yield _memory()
    yield _directory("data directory", layout.data)
    yield _directory("cache directory", layout.cache)
    yield _directory("runtime directory", runtime_directory())
    yield _reflink(layout)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python",
        Verdict.OK if sys.version_info >= (3, 11) else Verdict.FAIL,
        version,
        "install Python 3.11 or newer",
    )


def _architecture() -> Check:
    here = facts.architecture()
    if here == "x86_64":
        return Check("architecture", Verdict.OK, here)
    return Check(
        "architecture",
        Verdict.FAIL,
        f"{here}: machines run on x86_64 hosts only for now",
        "use an x86_64 host",
    )


def _tool(tool: Tool) -> Check:
    found = facts.program(tool.program)
    if found:
        return Check(tool.program, Verdict.OK, str(found))
    verdict = Verdict.FAIL if tool.needed else Verdict.WARN
    return Check(tool.program, verdict, f"not installed ({tool.purpose})", f"apt-get install {tool.package}")


def _privileges() -> Check:
    if facts.is_root():
        return Check(
            "privileges",
            Verdict.OK,
            "root: every machine gets a user of its own",
        )
    detail = f"uid {os.geteuid()}: machines run as this user, and the storage pool cannot be mounted"
    return Check("privileges", Verdict.WARN, detail, "run as root to separate machines from one another")


def _namespaces() -> Check:
    name = "network namespaces"
    if namespaces_work():
        return Check(name, Verdict.OK, "machines run in an empty one")
    detail = "cannot be made: machines run in the host's namespace, but without a network device"
    return Check(name, Verdict.WARN, detail, "run as root, in a container with CAP_SYS_ADMIN")


def _network() -> Check:
    name = "network"
    try:
        subnets = parse_subnets(os.environ.get("PANDASTACK_NETWORK") or DEFAULT, "PANDASTACK_NETWORK")
    except BadRequestError as error:
        return Check(name, Verdict.FAIL, error.message, error.hint or f"PANDASTACK_NETWORK={DEFAULT}")
    obstacle = find_obstacle(subnets)
    if obstacle is None:
        return Check(name, Verdict.OK, f"sandboxes have slots in {subnets.network}, {subnets.count} at most")
    detail, fix = obstacle
    return Check(name, Verdict.FAIL if "is used by" in detail else Verdict.WARN, detail, fix)


def _gate() -> Check:
    name = "network gate"
    if gate_shuts_itself():
        return Check(name, Verdict.OK, "the kernel shuts it with the egress process")
    detail = "the server shuts it when it notices that the egress process died: a killed server leaves it open"
    return Check(name, Verdict.WARN, detail, "use Linux 5.12 or later")


def _control_groups() -> Check:
    name = "control groups"
    if facts.is_root() and (groups := open_groups("pandastack-doctor")):
        groups.close()
        return Check(
            name, Verdict.OK, f"version {groups.version}: machines have limits of memory, CPU time and threads"
        )
    detail = "cannot be made: only the host's limits hold machines back"
    return Check(name, Verdict.WARN, detail, "run as root; in a systemd service, set Delegate=yes")


def _shared_memory() -> Check:
    name = "shared memory"
    remedy = find_memory_remedy()
    if remedy is None:
        return Check(name, Verdict.OK, "machines open their shared memory image read-only")
    detail = "a guest that took over its VMM could write to the memory image of its template"
    return Check(name, Verdict.WARN, detail, remedy)


def _kvm_device() -> Check:
    device = Path("/dev/kvm")
    if not device.exists():
        return Check(
            "kvm",
            Verdict.WARN,
            "no /dev/kvm: machines run under software emulation, which is not hardware isolation",
            "use a host with VT-x or AMD-V, or enable nested virtualization",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return Check("kvm", Verdict.WARN, "/dev/kvm is not accessible", "add this user to the group kvm")
    return Check(
        "kvm",
        Verdict.OK,
        "/dev/kvm exists; the first build tests whether the guest kernel boots with it",
    )


def _memory() -> Check:
    free = facts.available_memory_bytes()
    text = f"{free / 2**30:.1f} GiB available of {facts.memory_bytes() / 2**30:.1f}"
    if free < 2 * 1024**3:
        return Check("memory", Verdict.WARN, text, "building templates needs 2 GiB: stop other programs")
    return Check("memory", Verdict.OK, text)


def _directory(name: str, path: Path) -> Check:
    existing = next(each for each in (path, *path.parents) if each.exists())
    if not facts.can_write(existing):
        return Check(name, Verdict.FAIL, f"{path}: {existing} is not writable", f"chown {existing}, or choose another")
    free = shutil.disk_usage(existing).free
    text = f"{path}, {free / 2**30:.1f} GiB free"
    if free < IMAGE_MINIMUM:
        return Check(name, Verdict.WARN, text, "templates need about 3 GiB")
    return Check(name, Verdict.OK, text)


def _reflink(layout: Layout) -> Check:
    pool = layout.engine / "pool"
    existing = next(each for each in (pool, *pool.parents) if each.exists())
    if mount.is_mounted(pool):
        return Check("reflink", Verdict.OK, f"XFS image mounted at {pool}")
    if facts.can_write(existing) and files.can_clone(existing):
        return Check("reflink", Verdict.OK, "the data directory's file system shares blocks")
    if facts.is_root() and facts.program("mkfs.xfs"):
        return Check("reflink", Verdict.OK, "not on the data directory's file system; an XFS image will be used")
    return Check(
        "reflink",
        Verdict.WARN,
        "disks are copied instead of shared: correct, but slower and larger",
        "run as root with xfsprogs installed, or put the data directory on XFS or Btrfs",
    )
