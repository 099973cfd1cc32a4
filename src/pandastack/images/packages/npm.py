"""npm packages resolved by npm itself and unpacked without running their scripts.

They are installed below ``/usr/local/lib/node_modules``, where ``npm install --global`` puts them.
"""

from __future__ import annotations

import base64
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pandastack.errors import BadRequestError, BuildError
from pandastack.host.facts import program
from pandastack.host.processes.run import run
from pandastack.images.packages.declared import npm_name
from pandastack.images.packages.fetch import Download
from pandastack.images.packages.lock import NpmPackage

LIBRARY = "usr/local/lib"
UNPACKED_MAX = 2 * 1024**3
"""The most bytes that one tarball may unpack to."""

_CPUS = {"amd64": "x64", "arm64": "arm64"}
_TIMEOUT = 600.0


async def resolve(entries: Sequence[str], architecture: str) -> tuple[NpmPackage, ...]:
    """The tarballs that ``entries`` need. Raises :class:`BadRequestError` with npm's reason."""
    if not program("npm"):
        raise BadRequestError(
            "npm packages are declared, and this host has no npm to resolve them",
            hint="install npm, or commit a packages.lock made where it is",
            field="packages.npm",
        )
    wanted = {name: version or "latest" for name, version in map(npm_name, entries)}
    with tempfile.TemporaryDirectory(prefix="pandastack-npm-") as scratch:
        folder = Path(scratch)
        (folder / "package.json").write_text(json.dumps({"name": "template", "dependencies": wanted}))
        argv = [
            "npm",
            "install",
            "--package-lock-only",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",  # npm takes --silent=false as --silent and a package called false
            "--omit-lockfile-registry-resolved=false",  # whatever the user's own npmrc says: a lock has addresses
        ]
        answer = await run(argv, cwd=folder, timeout=_TIMEOUT, check=False)
        if answer.returncode != 0:
            raise explain(answer.stderr.decode("utf-8", "replace"))
        return parse_lock(json.loads((folder / "package-lock.json").read_bytes()), architecture)


def explain(errors: str) -> BadRequestError:
    """npm's failure as an error of ours."""
    lines = [
        line.partition(" ")[2].removeprefix("ERR! ").removeprefix("error ")
        for line in errors.splitlines()
        if "npm" in line[:4]
    ]
    said = [line for line in lines if line and not line.startswith(("A complete log", "code "))]
    return BadRequestError(f"the npm packages cannot be resolved: {'; '.join(said)[:600]}", field="packages.npm")


def parse_lock(lock: Mapping[str, Any], architecture: str) -> tuple[NpmPackage, ...]:
    """The packages of a ``package-lock.json`` (version 2 or 3) that Linux with glibc needs."""
    found = []
    for place, entry in sorted(lock["packages"].items()):
        if place and _fits(entry, architecture):
            found.append(_package(place, entry))
    return tuple(found)


def _package(place: str, entry: Mapping[str, Any]) -> NpmPackage:
    name = place.rpartition("node_modules/")[2]
    algorithm, _, digest = str(entry.get("integrity", "")).partition("-")
    if algorithm != "sha512" or not str(entry.get("resolved", "")).startswith(("https://", "http://")):
        raise BadRequestError(f"npm package {name} has no registry file with a sha512", field="packages.npm")
    commands = entry.get("bin", {}) if place == f"node_modules/{name}" else {}
    bins = {command: str(PurePosixPath(target)) for command, target in commands.items()}
    sha512 = base64.b64decode(digest, validate=True).hex()
    return NpmPackage(name, entry["version"], place, entry["resolved"], sha512, bins)


def _fits(entry: Mapping[str, Any], architecture: str) -> bool:
    wanted = {"os": "linux", "cpu": _CPUS[architecture], "libc": "glibc"}
    for key, ours in wanted.items():
        listed = entry.get(key)
        if listed and (f"!{ours}" in listed or not (ours in listed or all(each.startswith("!") for each in listed))):
            return False
    return True


def downloads(packages: Sequence[NpmPackage]) -> list[Download]:
    """What has to be in the cache before ``packages`` are unpacked."""
    return [Download(f"{package.sha512[:32]}.tgz", (package.url,), package.sha512, 0, "sha512") for package in packages]


def unpack(package: NpmPackage, tarball: Path, tree: Path) -> None:
    """Unpack one tarball into the tree and link its commands. Raises :class:`BuildError` for a hostile one."""
    target = tree / LIBRARY / package.place
    try:
        with tarfile.open(tarball, "r|gz") as archive:
            _extract(archive, target)
    except (tarfile.TarError, ValueError, OSError, EOFError) as error:
        raise BuildError(f"npm package {package.name} {package.version} cannot be unpacked: {error}") from error
    for command, file in package.bin.items():
        _link(tree, package, command, target / file)


def _extract(archive: tarfile.TarFile, target: Path) -> None:
    total = 0
    for member in archive:
        parts = PurePosixPath(member.name).parts[1:]  # the first is "package", or anything else
        if not parts or member.isdir():
            continue
        if not member.isreg():
            raise ValueError(f"{member.name[:80]!r} is neither a file nor a directory")
        if ".." in parts or member.name.startswith("/"):
            raise ValueError(f"the name {member.name[:80]!r} leaves the tree")
        total += member.size
        if total > UNPACKED_MAX:
            raise ValueError("it is implausibly large")
        path = target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = archive.extractfile(member)
        assert source is not None
        with path.open("wb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
        path.chmod(0o755 if member.mode & 0o111 else 0o644)


def _link(tree: Path, package: NpmPackage, command: str, file: Path) -> None:
    if not file.is_file():
        return
    file.chmod(0o755)
    link = tree / "usr/local/bin" / command
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(file, link.parent))
