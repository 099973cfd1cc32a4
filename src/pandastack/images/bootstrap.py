"""Debian trees made on the host by mmdebstrap from packages that are here already, without running anything that is
not Debian's own.

Who resolves and who fetches: apt's signed lists or a template's lock say which files, and ``packages.fetch`` brings
them. mmdebstrap sees a repository of exactly those and no network.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pandastack.errors import BuildError
from pandastack.host.facts import is_root
from pandastack.host.processes.run import CommandError, run
from pandastack.images.apt import SUITE, Source, debian_architecture, host_sources, parse_deb822, private_apt, render
from pandastack.images.cache import Cache, content_key
from pandastack.images.packages import debian, fetch
from pandastack.images.packages.lock import Deb
from pandastack.images.scratch import enter

_FORMAT = 2
_TIMEOUT = 1800.0
_EPOCH = "2023-06-10"
"""Debian 12's release: the time of all files that the bootstrap itself writes, so that two bootstraps
agree."""

_ENVIRONMENT = {"SOURCE_DATE_EPOCH": str(int(datetime.fromisoformat(_EPOCH).replace(tzinfo=UTC).timestamp()))}
"""For what writes today's date into a file: passwd's tools, as the day of a password's last change."""

_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"

_PATHS = (
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "lintian", "bug")),
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
)
"""dpkg's options inside the image, now and for every later install: no documentation."""

_DPKG = "force-unsafe-io"
"""Another: no fsync, for the disk is a copy."""

_EXCLUDE = """
printf '%s\\n' PATHS >>"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
for name in doc man info locale lintian bug; do rm -rf "$1/usr/share/$name"/*; done
""".replace("PATHS", shlex.join(_PATHS))
"""A script that adds those options to the others of the tree $1, whose essential packages are extracted but not
installed: installing them brings what is included. Were mmdebstrap told, it would start a filter in Python for each
of them, which takes a third of the bootstrap."""

_APT = ('Acquire::Languages "none"', 'Acquire::PDiffs "false"')
ARCHIVE = "root.tar"
_FACTS = "tree.json"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Bootstrap:
    """What a tree is made of. ``debs`` are its locked files; without them the mirrors' present candidates."""

    include: tuple[str, ...]
    suite: str
    arch: str
    sources: tuple[Source, ...]
    debs: tuple[Deb, ...] = ()

    @property
    def key(self) -> str:
        return content_key("bootstrap", _FORMAT, asdict(self), _DPKG, _EXCLUDE, _APT, _ENVIRONMENT, _FINISH, _PACK)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What apt is asked for to find every file."""
        return (*debian.BASE, *self.include)


@dataclass(frozen=True)
class DebianTree:
    """What a finished tree has: its packages' versions, and which locked ones were gone and replaced."""

    packages: Mapping[str, str]
    replaced: Mapping[str, str]


def plan_debian(include: Sequence[str] = (), debs: Sequence[Deb] = ()) -> Bootstrap:
    """A minimal Debian with apt, and ``include`` besides. Its package lists name the same mirrors as the host's."""
    packages = tuple(sorted({"apt", "usr-is-merged", *include}))
    return Bootstrap(packages, SUITE, debian_architecture(), host_sources(SUITE), tuple(debs))


def silent(done: int, total: int) -> None:
    pass


async def make_debian_tree(cache: Cache, plan: Bootstrap, tree: Path, report: fetch.Report = silent) -> DebianTree:
    """Make the tree of ``plan`` at ``tree``, where nothing is yet, in a directory of the caller's: from the archive in
    the cache, or by mmdebstrap, and then an archive is kept. Raises :class:`BuildError` when mmdebstrap fails."""
    async with cache.entry("trees", plan.key) as entry:
        if entry.ready:
            await run([*enter(), "mkdir", tree], timeout=60)
            await run([*enter(), *_UNPACK, entry.path / ARCHIVE, "-C", tree], timeout=600)
        else:
            started = time.monotonic()
            await _make(cache, plan, tree, entry.work, report)
            entry.commit()
            seconds = round(time.monotonic() - started, 1)
            _log.info("image.bootstrapped", key=plan.key[:12], seconds=seconds)
    facts = json.loads((entry.path / _FACTS).read_bytes())
    return DebianTree(facts["packages"], facts["replaced"])


async def _make(cache: Cache, plan: Bootstrap, tree: Path, into: Path, report: fetch.Report) -> None:
    debs, replaced = await _obtain(cache, plan, report)
    try:
        sources = tree.with_name("debian.sources")
        sources.write_text(render(plan.sources))
        started = int(time.time())
        line = await debian.make_repository(debs, plan.suite, tree.with_name("repository"))
        await run(arguments(plan, tree, line), env=_ENVIRONMENT, timeout=_TIMEOUT)
        packages = installed((tree / "var/lib/dpkg/status").read_text())
        await run([*enter(), "sh", "-ec", _FINISH, "sh", tree, f"@{started - 1}", sources], timeout=300)
        with (into / ARCHIVE).open("wb") as archive:
            archive.truncate(0)
        await run([*enter(), *_PACK, into / ARCHIVE, "-C", tree, "."], timeout=600)
    except CommandError as error:
        raise BuildError(
            f"Debian {plan.suite} could not be bootstrapped: {error.message}",
            hint="mmdebstrap must be installed",
        ) from error
    (into / _FACTS).write_text(json.dumps({"packages": packages, "replaced": replaced}, indent=1))


async def _obtain(cache: Cache, plan: Bootstrap, report: fetch.Report) -> tuple[Mapping[Deb, Path], Mapping[str, str]]:
    """The files of ``plan`` in the cache: the locked ones, or else the signed candidates of today."""
    debs, replaced = plan.debs, {}
    if not debs or await fetch.fetch(cache, debian.downloads(debs, plan.sources), report):
        async with private_apt(plan.arch, plan.suite) as apt:
            debs = await debian.resolve(apt, plan.wanted, plan.debs)
        replaced = dict(debian.replaced(plan.debs, debs))
        if replaced:
            _log.warning("packages.lock_outdated", replaced=replaced)
        if gone := await fetch.fetch(cache, debian.downloads(debs, plan.sources), report):
            raise BuildError(f"no mirror has {gone[0].name}", hint="check this host's apt sources")
    files = debian.downloads(debs, plan.sources)
    paths = fetch.fetched(cache, files)
    return {deb: paths[file.name] for deb, file in zip(debs, files, strict=True)}, replaced


_PACK = (
    *("tar", "--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=*"),
    # Extended attributes need this format, which would also keep when files were read and changed, and tar's pid.
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "-cf",
)
_UNPACK = ("tar", "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "-xf")

_FINISH = """
cd "$1"
rm -f etc/hostname etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow-
rm -f var/lib/dpkg/*-old var/cache/apt/archives/lock var/cache/ldconfig/aux-cache
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost\\n' >etc/hosts
: >etc/resolv.conf
if [ -d etc/apt ]; then
  rm -f etc/apt/sources.list etc/apt/sources.list.d/*
  cat "$3" >etc/apt/sources.list.d/0000debian.sources
  echo 'APT::Keep-Downloaded-Packages "false";' >etc/apt/apt.conf.d/90-keep-no-archives
fi
mkdir -p mnt
for name in var/lib/apt/lists/partial var/cache/apt/archives/partial; do [ ! -d $name ] || chown 0:0 $name; done
find . -xdev -newermt "$2" -exec touch -h -d EPOCH {} +
find var/cache/apt -exec touch -h -d EPOCH {} +
""".replace("EPOCH", _EPOCH)
"""A script for the finished tree $1: it names the mirrors of $3 and removes all traces of the host and of the time of
the build.

apt gives its directories of partial downloads to its own user only where that user can reach the tree; a guest's apt
does so again.

Files unpacked from packages keep their times (compiled Python depends on them): only those younger than $2
are set back.
"""


def arguments(plan: Bootstrap, tree: Path, source: str) -> list[str]:
    """mmdebstrap's argv: make ``tree`` from the packages of the one repository ``source``."""
    argv = [
        "mmdebstrap", "--quiet", f"--mode={'root' if is_root() else 'unshare'}", "--format=directory",
        "--variant=minbase", f"--architectures={plan.arch}", f"--include={','.join(plan.include)}",
        f"--dpkgopt={_DPKG}", f"--extract-hook={_EXCLUDE}",
        *(f"--aptopt={option}" for option in _APT),
        f"--hook-dir={_MERGED_USR}",
    ]  # fmt: skip
    return [*argv, plan.suite, str(tree), source]


def installed(status: str) -> Mapping[str, str]:
    """Package versions from dpkg's status file."""
    stanzas = parse_deb822(status)
    return {stanza["Package"]: stanza["Version"] for stanza in stanzas if "Package" in stanza and "Version" in stanza}
