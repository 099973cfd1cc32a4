"""Root disks from Debian packages, made on the host by mmdebstrap without running anything that is not
Debian's own.

``debian()`` is what ``FROM debian:bookworm`` means. ``builder()`` is the tool machine that flattens layers
into a disk.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import structlog

from pandastack.errors import BuildError
from pandastack.host.facts import is_root
from pandastack.host.processes.run import CommandError, run
from pandastack.images.apt import SUITE, Source, debian_architecture, host_sources, parse_deb822, render
from pandastack.images.cache import Cache, content_key
from pandastack.images.erofs import DISK, Image, load_image, make_disk, mkfs_arguments, write_manifest

_FORMAT = 1
_TIMEOUT = 1800.0
_EPOCH = "2023-06-10"
"""Debian 12's release: the time of all files that the bootstrap itself writes, so that two bootstraps
agree."""

_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"

_DPKG = (
    "force-unsafe-io",
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "lintian", "bug")),
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
)
"""dpkg's options inside the image, now and for every later install: no documentation, no fsync (the disk is a
copy)."""

_APT = ('Acquire::Languages "none"', 'Acquire::PDiffs "false"')
_TOOLS = ("base-files", "coreutils", "dash", "e2fsprogs", "erofs-utils", "libc-bin", "mount", "tar")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Bootstrap:
    """What an image is made of: everything that determines its content, save the versions that the mirror has
    today.

    ``variant`` is mmdebstrap's: ``minbase`` is an installed Debian with apt, ``extract`` only unpacks files.
    """

    variant: str
    include: tuple[str, ...]
    suite: str
    arch: str
    sources: tuple[Source, ...]

    @property
    def key(self) -> str:
        return content_key("bootstrap", _FORMAT, asdict(self), _DPKG, _APT, _FINISH, mkfs_arguments("", "", ""))


async def debian(cache: Cache, *, suite: str = SUITE, include: Sequence[str] = ()) -> Image:
    """A minimal Debian with apt, and ``include`` besides. Its package lists name the same mirrors as the
    host's.

    Raises :class:`BuildError` when mmdebstrap fails.
    """
    # usr-is-merged stands for usrmerge, which would bring all of perl.
    packages = tuple(sorted({"usr-is-merged", *include}))
    return await bootstrap(cache, Bootstrap("minbase", packages, suite, debian_architecture(), host_sources(suite)))


async def builder(cache: Cache, *, suite: str = SUITE) -> Image:
    """The tool machine's root: a shell, mount, tar, mkfs.erofs and mke2fs; no apt, and no package is configured."""
    return await bootstrap(cache, Bootstrap("extract", _TOOLS, suite, debian_architecture(), host_sources(suite)))


async def bootstrap(cache: Cache, plan: Bootstrap) -> Image:
    """The image of ``plan``, from the cache or made now (10 to 30 seconds; downloads are kept for the next
    one)."""
    async with cache.entry("images", plan.key) as entry:
        if not entry.ready:
            started = time.monotonic()
            packages = await _make(cache, plan, entry.work)
            facts = {"suite": plan.suite, "architecture": plan.arch, "variant": plan.variant}
            write_manifest(entry.work, packages, facts)
            entry.commit()
            seconds = round(time.monotonic() - started, 1)
            _log.info("image.bootstrapped", key=plan.key[:12], variant=plan.variant, seconds=seconds)
    return load_image(entry.path)


async def _make(cache: Cache, plan: Bootstrap, into: Path) -> Mapping[str, str]:
    archives = cache.root / "apt" / plan.arch
    archives.mkdir(parents=True, exist_ok=True)
    enter = () if is_root() else _ENTER_NAMESPACE
    try:
        async with _tree() as tree:
            sources = tree.with_name("debian.sources")
            sources.write_text(render(plan.sources))
            started = int(time.time())
            await run(arguments(plan, tree, sources, archives), timeout=_TIMEOUT)
            packages = _packages(tree, plan)
            await run([*enter, "sh", "-ec", _FINISH, "sh", tree, f"@{started - 1}"], timeout=300)
            await make_disk(tree, into / DISK, plan.key, enter=enter)
    except CommandError as error:
        raise BuildError(
            f"Debian {plan.suite} could not be bootstrapped: {error.message}",
            hint="mmdebstrap and erofs-utils must be installed and the Debian mirror reachable",
        ) from error
    return packages


_FINISH = """
cd "$1"
rm -f etc/hostname etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow-
rm -f var/lib/dpkg/*-old var/cache/apt/archives/lock .packages
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost\\n' >etc/hosts
: >etc/resolv.conf
echo 'APT::Keep-Downloaded-Packages "false";' >etc/apt/apt.conf.d/90-keep-no-archives
mkdir -p mnt
find . -xdev -newermt "$2" -exec touch -h -d EPOCH {} +
find var/cache/apt -exec touch -h -d EPOCH {} +
""".replace("EPOCH", _EPOCH)
"""A script for the finished tree $1: it removes all traces of the host and of the time of the build.

Files unpacked from packages keep their times (compiled Python depends on them): only those younger than $2
are set back.
"""

_ENTER_NAMESPACE = ("mmdebstrap", "--unshare-helper")
"""Outside root the tree belongs to sub-ids; inside this namespace they are seen as root and the rest."""


def _scratch() -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="pandastack-bootstrap-"))
    scratch.chmod(0o755)
    return scratch


@asynccontextmanager
async def _tree() -> AsyncIterator[Path]:
    """Where a tree is made; its parent is open to the sub-ids of an unprivileged mmdebstrap."""
    scratch = _scratch()
    try:
        yield scratch / "tree"
    finally:
        enter = () if is_root() else _ENTER_NAMESPACE
        remove = ("rm", "-rf", "--one-file-system")  # never delete through a mount that a killed mmdebstrap left behind
        with anyio.CancelScope(shield=True):
            await run([*enter, *remove, scratch / "tree"], check=False, timeout=120)
            await run([*remove, scratch], check=False, timeout=60)


def arguments(plan: Bootstrap, tree: Path, sources: Path, archives: Path) -> list[str]:
    """mmdebstrap's argv: make ``tree`` from ``plan``, keeping downloaded packages in ``archives``."""
    argv = [
        "mmdebstrap", "--quiet", f"--mode={'root' if is_root() else 'unshare'}", "--format=directory",
        f"--variant={plan.variant}", f"--architectures={plan.arch}", f"--include={','.join(plan.include)}",
        *(f"--dpkgopt={option}" for option in _DPKG),
        *(f"--aptopt={option}" for option in _APT),
    ]  # fmt: skip
    if plan.variant == "extract":  # ends after the extract hooks
        argv += _keep_archives(archives, "extract")
        argv.append(f'--extract-hook={_LIST_EXTRACTED} {shlex.join(plan.include)} >"$1"/.packages')
    else:
        argv += _keep_archives(archives, "customize")
        argv.append(f"--hook-dir={_MERGED_USR}")
    return [*argv, plan.suite, str(tree), str(sources)]


_LIST_EXTRACTED = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --simulate --quiet install'
"""Unpacked packages are not in dpkg's database: what apt would install into the empty one is what was
unpacked."""


def _keep_archives(archives: Path, last_hook: str) -> list[str]:
    inside = "/var/cache/apt/archives/"
    return [
        "--skip=download/empty,essential/unlink",
        f'--setup-hook=mkdir -p "$1"{inside}',
        f"--setup-hook=sync-in {shlex.quote(str(archives))} {inside}",
        f"--{last_hook}-hook=sync-out {inside} {shlex.quote(str(archives))}",
    ]


def _packages(tree: Path, plan: Bootstrap) -> Mapping[str, str]:
    if plan.variant == "extract":
        return simulated((tree / ".packages").read_text())
    return installed((tree / "var/lib/dpkg/status").read_text())


def simulated(text: str) -> Mapping[str, str]:
    """Package versions from lines like ``Inst dash (0.5.12-2 Debian:12.11/stable [amd64])`` of ``apt-get
    --simulate``."""
    return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", text, re.MULTILINE))


def installed(status: str) -> Mapping[str, str]:
    """Package versions from dpkg's status file."""
    stanzas = parse_deb822(status)
    return {stanza["Package"]: stanza["Version"] for stanza in stanzas if "Package" in stanza and "Version" in stanza}
