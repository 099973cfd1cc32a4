"""Debian packages resolved by apt from its signed lists, and a small repository made of nothing but them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import anyio.to_thread

from pandastack.errors import BadRequestError, BuildError
from pandastack.host.processes.run import run
from pandastack.images.apt import Apt, Source, parse_deb822
from pandastack.images.packages.declared import debian_name
from pandastack.images.packages.fetch import Download
from pandastack.images.packages.lock import Deb
from pandastack.images.packages.suggest import suggest

BASE = ("?essential", "?priority(required)", "apt", "usr-is-merged")
"""What mmdebstrap's variant ``minbase`` installs. usr-is-merged stands for usrmerge, which would bring all of perl."""

_TIMEOUT = 600.0


async def resolve(apt: Apt, wanted: Sequence[str], pins: Sequence[Deb] = ()) -> tuple[Deb, ...]:
    """The packages that installing ``wanted`` into an empty system takes, by name; of each pinned one the pinned
    version when the mirrors have it, else the newest.

    Raises :class:`BadRequestError` that names the package that does not exist or cannot be installed.
    """
    apt.prefer({deb.name: deb.version for deb in pins})
    argv = ["apt-get", *apt.options, "-qq", "--no-install-recommends", "install", "--print-uris", *wanted]
    answer = await run(argv, timeout=_TIMEOUT, check=False)
    if answer.returncode != 0:
        raise await _explain(apt, answer.stderr.decode("utf-8", "replace"))
    chosen = parse_uris(answer.text)
    shown = await run(
        ["apt-cache", *apt.options, "show", *(f"{name}={version}" for name, version in chosen.items())],
        timeout=_TIMEOUT,
    )
    debs = {}
    for stanza in parse_deb822(shown.text):
        name, version = stanza.get("Package", ""), stanza.get("Version", "")
        if chosen.get(name) == version:
            debs[name] = Deb(name, version, stanza["Filename"], stanza["SHA256"], int(stanza["Size"]))
    if missing := sorted(set(chosen) - set(debs)):
        raise BuildError(f"apt's lists do not describe {missing[0]} {chosen[missing[0]]}")
    return tuple(debs[name] for name in sorted(debs))


def parse_uris(text: str) -> Mapping[str, str]:
    """Names and versions from lines like ``'http://…' git_1%3a2.39_amd64.deb 7 SHA256:…`` of ``--print-uris``."""
    files = re.findall(r"^'[^']+' (\S+)\.deb ", text, re.MULTILINE)
    return {name: version for name, version, _ in (unquote(file).split("_", 2) for file in files)}


async def _explain(apt: Apt, errors: str) -> BadRequestError:
    field = "packages.debian"
    if match := re.search(r"Unable to locate package (\S+)|Couldn't find any package by \S+ '(\S+)'", errors):
        name = match[1] or match[2]
        names = (await run(["apt-cache", *apt.options, "pkgnames"], timeout=_TIMEOUT)).text.split()
        return BadRequestError(f"Debian package {name} does not exist", hint=suggest(name, names), field=field)
    if match := re.search(r"Version '(\S+)' for '(\S+)' was not found", errors):
        there = await apt.show(match[2])
        hint = f"the mirrors have {there.version}" if there else None
        return BadRequestError(f"Debian package {match[2]} has no version {match[1]}", hint=hint, field=field)
    if match := re.search(r"Package '(\S+)' has no installation candidate", errors):
        return BadRequestError(f"Debian package {match[1]} is only a name that others provide", field=field)
    said = [line.removeprefix("E: ") for line in errors.splitlines() if not line.startswith("W:") and line.strip()]
    return BadRequestError(f"the Debian packages cannot be resolved: {'; '.join(said)[:600]}", field=field)


def downloads(debs: Sequence[Deb], sources: Sequence[Source]) -> list[Download]:
    """What has to be in the cache before ``debs`` are installed; any mirror of ``sources`` may have a file."""
    mirrors = tuple(dict.fromkeys(uri.rstrip("/") for source in sources for uri in source.uris))
    return [_download(deb, mirrors) for deb in debs]


def _download(deb: Deb, mirrors: Sequence[str]) -> Download:
    security = deb.path.startswith("pool/updates/")  # the layout of the security archive
    ordered = sorted(mirrors, key=lambda uri: ("security" in uri) != security)
    urls = tuple(f"{uri}/{deb.path.replace('+', '%2b')}" for uri in ordered)
    return Download(deb.path.rpartition("/")[2], urls, deb.sha256, deb.size)


def replaced(locked: Sequence[Deb], taken: Sequence[Deb]) -> Mapping[str, str]:
    """What took the place of locked versions that are gone: ``{"git": "1:2.39.5-0 → 1:2.39.5-1"}``.

    Raises :class:`BuildError` when the mirrors have another file under a locked version.
    """
    before = {deb.name: deb for deb in locked}
    changed = {}
    for deb in taken:
        old = before.get(deb.name)
        if old and old.version != deb.version:
            changed[deb.name] = f"{old.version} → {deb.version}"
        elif old and old.sha256 != deb.sha256:
            raise BuildError(f"{deb.name} {deb.version} of the mirror is not the locked file: SHA-256 {deb.sha256}")
    return changed


async def make_repository(debs: Mapping[Deb, Path], suite: str, into: Path) -> str:
    """A flat repository (sources.list(5)) of exactly these files; returns its line for sources.list. mmdebstrap finds
    the essential packages by the suite's name.

    apt trusts it without a signature: every file has the hash that the signed lists or the lock give it.
    """
    into.mkdir(mode=0o755)
    await anyio.to_thread.run_sync(_copy, list(debs.values()), into)
    stanzas = []
    for deb, path in debs.items():
        control = (await run(["dpkg-deb", "--field", path], timeout=60)).text.strip()
        stanzas.append(f"{control}\nFilename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {deb.sha256}\n")
    index = "\n".join(stanzas).encode()
    (into / "Packages").write_bytes(index)
    digest = hashlib.sha256(index).hexdigest()
    (into / "Release").write_text(f"Suite: {suite}\nCodename: {suite}\nSHA256:\n {digest} {len(index)} Packages\n")
    return f"deb [trusted=yes] copy:{into} ./"


def _copy(paths: Sequence[Path], into: Path) -> None:
    for path in paths:
        try:
            os.link(path, into / path.name)
            (into / path.name).chmod(0o644)
        except OSError:
            shutil.copyfile(path, into / path.name)


def names(entries: Sequence[str]) -> list[str]:
    """The names of declared Debian packages, without versions."""
    return [debian_name(entry)[0] for entry in entries]
