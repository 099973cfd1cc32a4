"""Python packages resolved by pip into the wheels that a Debian guest can use. No code of theirs is run: source
archives, whose metadata only running them would tell, are never considered."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import anyio
import httpx
from packaging.utils import canonicalize_name, parse_wheel_filename

from pandastack.errors import BadRequestError, BuildError
from pandastack.host.processes.run import Completed, run
from pandastack.images.packages import fetch
from pandastack.images.packages.declared import python_name
from pandastack.images.packages.lock import Wheel
from pandastack.images.packages.suggest import suggest_python
from pandastack.images.packages.wheels import PYTHON

GLIBC = 36
"""Debian 12 has glibc 2.36."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_TIMEOUT = 600.0
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
_INDEX = "https://pypi.org/simple"


def platform_arguments(architecture: str, version: str = PYTHON.version, glibc: int = GLIBC) -> list[str]:
    """pip's options for wheels that run on Debian's Python; ``architecture`` is Debian's name for it."""
    machine = _MACHINES[architecture]
    old = ("manylinux2014", "manylinux2010", "manylinux1") if machine == "x86_64" else ("manylinux2014",)
    tags = [
        *(f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 4, -1)),
        *(f"{name}_{machine}" for name in old),
    ]
    return [
        "--only-binary=:all:", "--implementation=cp", f"--python-version={version}",
        *(f"--platform={tag}" for tag in [*tags, f"linux_{machine}"]),
    ]  # fmt: skip


async def resolve(requirements: Sequence[str], base: Sequence[Wheel], architecture: str) -> tuple[Wheel, ...]:
    """The wheels that ``requirements`` need beyond those of ``base``, whose versions stay as they are.

    Raises :class:`BadRequestError` that names the package that does not exist, has no wheel, or conflicts.
    """
    with tempfile.TemporaryDirectory(prefix="pandastack-pip-") as scratch:
        pins = Path(scratch) / "base.txt"
        pins.write_text("".join(f"{wheel.name}=={wheel.version}\n" for wheel in base))
        argv = [*_PIP, "install", "--dry-run", "--ignore-installed", "--report=-", f"--target={scratch}/none"]
        argv += [f"--constraint={pins}", *platform_arguments(architecture), "--", *requirements]
        answer = await run(argv, timeout=_TIMEOUT, check=False)
    if answer.returncode != 0:
        raise await explain(answer.stderr.decode("utf-8", "replace"), architecture)
    had = {(wheel.name, wheel.version) for wheel in base}
    wheels = [wheel for wheel in parse_report(json.loads(answer.stdout)) if (wheel.name, wheel.version) not in had]
    return await _with_sizes(wheels)


def parse_report(report: Mapping[str, Any]) -> tuple[Wheel, ...]:
    """The wheels of pip's installation report, by name; sizes are 0. Source: pip's "Installation Report" page."""
    return tuple(sorted((_wheel(item) for item in report["install"]), key=lambda wheel: wheel.name))


def _wheel(item: Mapping[str, Any]) -> Wheel:
    found, metadata = item["download_info"], item["metadata"]
    parts = urlsplit(found["url"])
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    file = unquote(parts.path.rpartition("/")[2])
    web = parts.scheme in ("http", "https")
    name = canonicalize_name(metadata["name"])
    return Wheel(name, metadata["version"], file, url if web else "", found["archive_info"]["hashes"]["sha256"], 0)


async def _with_sizes(wheels: Sequence[Wheel]) -> tuple[Wheel, ...]:
    """Ask for the sizes, which pip's report does not have: they make a progress bar possible."""
    sizes: dict[str, int] = {}
    turns = anyio.CapacityLimiter(fetch.AT_ONCE)

    async def ask(client: httpx.AsyncClient, wheel: Wheel) -> None:
        async with turns:
            try:
                response = await client.head(wheel.url)
                sizes[wheel.file] = int(response.headers.get("content-length", 0)) if response.is_success else 0
            except httpx.TransportError:
                sizes[wheel.file] = 0

    async with fetch.client() as client, anyio.create_task_group() as tasks:
        for wheel in wheels:
            if wheel.url:
                tasks.start_soon(ask, client, wheel)
    return tuple(Wheel(w.name, w.version, w.file, w.url, w.sha256, sizes.get(w.file, 0) or 1) for w in wheels)


def downloads(wheels: Sequence[Wheel]) -> list[fetch.Download]:
    """What has to be in the cache before ``wheels`` are unpacked."""
    return [fetch.Download(w.file, (w.url,) if w.url else (), w.sha256, w.size) for w in wheels]


async def download_by_pip(wheels: Sequence[Wheel], architecture: str, into: Path) -> None:
    """Have pip look in this host's own indexes. Raises :class:`BuildError` that names the first wheel they lack."""
    argv = [*_PIP, "download", "--no-deps", f"--dest={into}", *platform_arguments(architecture)]
    await run([*argv, *(f"{wheel.name}=={wheel.version}" for wheel in wheels)], timeout=_TIMEOUT, check=False)
    for wheel in wheels:
        if not (into / wheel.file).is_file():
            raise BuildError(
                f"Python package {wheel.name} {wheel.version}: {wheel.file} is no longer at its address "
                f"({wheel.url or 'none'}), and this host's indexes do not have it",
                hint="`pandastack template lock FOLDER` resolves the packages anew",
            )


async def explain(errors: str, architecture: str) -> BadRequestError:
    """pip's failure as an error that names the declared package."""
    if match := re.search(r"No matching distribution found for (.+)", errors):
        return await _not_found(match[1].strip(), errors, architecture)
    causes = re.findall(
        r"^(?:ERROR: )?\s{0,4}((?:Cannot install|The user requested|\S+ \S+ depends on) .+)", errors, re.M
    )
    text = "; ".join(line.strip() for line in causes[:5]) or errors.strip()[-600:] or "pip failed"
    return BadRequestError(f"the Python packages cannot be resolved: {text}", field="packages.python")


async def _not_found(requirement: str, errors: str, architecture: str) -> BadRequestError:
    wanted = re.split(r"\s+\(from", requirement)[0]
    try:
        name = python_name(wanted)[0]
    except ValueError:
        name = wanted
    files = await _files(name)
    if files is None:
        return BadRequestError(
            f"Python package {name} does not exist", hint=suggest_python(name), field="packages.python"
        )
    versions = re.search(rf"requirement {re.escape(wanted)} .*\(from versions: (.+)\)", errors)
    if versions and versions[1] != "none":
        newest = ", ".join(versions[1].split(", ")[-8:])
        return BadRequestError(f"no version of {wanted} fits; the newest are {newest}", field="packages.python")
    platforms = describe_platforms(files) or "none: only source archives, which a RUN instruction could build"
    return BadRequestError(
        f"Python package {wanted} has no wheel for Debian's Python {PYTHON.version} on {_MACHINES[architecture]}",
        hint=f"wheels that there are: {platforms}",
        field="packages.python",
    )


def describe_platforms(files: Sequence[str]) -> str:
    """The tags of the newest version's wheels among ``files``, as text; empty when it has none."""
    tags: dict[Any, set[str]] = {}
    for file in files:
        if not file.endswith(".whl"):
            continue
        try:
            _, version, _, found = parse_wheel_filename(file)
        except ValueError:
            continue
        tags.setdefault(version, set()).update(f"{tag.interpreter} {tag.platform}" for tag in found)
    if not tags:
        return ""
    newest = max(tags)
    return f"{newest} for {', '.join(sorted(tags[newest])[:12])}"


async def _files(name: str) -> list[str] | None:
    """The names of a project's files in this host's index, ``None`` when it has no such project (PEP 691)."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"}
    async with fetch.client() as client:
        try:
            answer = await client.get(f"{await _index()}/{name}/", headers=accept)
        except httpx.TransportError:
            return []
    if answer.status_code == 404:
        return None
    if "json" in answer.headers.get("content-type", ""):
        return [str(file["filename"]) for file in answer.json()["files"]]
    return re.findall(r">\s*([^<>\s]+\.(?:whl|tar\.gz|zip))\s*</a", answer.text)


async def _index() -> str:
    listed: Completed = await run([*_PIP, "config", "list"], timeout=60, check=False)
    settings = dict(re.findall(r"^(\S+?)='(.*)'$", listed.text, re.MULTILINE))
    return (settings.get(":env:.index-url") or settings.get("global.index-url") or _INDEX).rstrip("/")
