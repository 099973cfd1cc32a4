"""What a function depends on: the file of its bundle that says so, and how that is installed. Pure.

Formats: pylock.toml https://packaging.python.org/en/latest/specifications/pylock-toml/, poetry.lock 2.1.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pandastack.errors import BadRequestError

REQUIREMENTS = "/tmp/pandastack-requirements.txt"
"""Where the guest gets requirements that were read from a lock."""
MOST_LOCK = 4 * 1024 * 1024

_PIP = (
    "python3 -m pip install --break-system-packages --root-user-action=ignore --disable-pip-version-check --no-input -q"
)
_LOCKED = f"{_PIP} --no-deps --require-hashes -r {REQUIREMENTS}"
_PYPROJECT = f"""python3 -c 'import tomllib
for each in tomllib.load(open("pyproject.toml", "rb")).get("project", {{}}).get("dependencies", []): print(each)' \\
    > {REQUIREMENTS}
{_PIP} -r {REQUIREMENTS}"""
_UV = f"""{_PIP} --target /tmp/pandastack-uv uv
UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never /tmp/pandastack-uv/bin/uv export --quiet --frozen --no-dev --no-emit-project \\
    --format requirements-txt -o {REQUIREMENTS} > /dev/null
rm -r /tmp/pandastack-uv
{_LOCKED}"""
_NPM = "--omit=dev --no-audit --no-fund --loglevel=error"

_SCRIPTS: Mapping[str, Mapping[str, str]] = {
    "python": {
        "pylock.toml": _LOCKED,
        "uv.lock": _UV,
        "poetry.lock": _LOCKED,
        "requirements.txt": f"{_PIP} -r requirements.txt",
        "pyproject.toml": _PYPROJECT,
    },
    "nodejs": {
        "package-lock.json": f"npm ci {_NPM}",
        "npm-shrinkwrap.json": f"npm ci {_NPM}",
        "package.json": f"npm install {_NPM}",
    },
}
"""What installs from each file, by runtime. The first file that a bundle has is used."""

_READ_HERE = frozenset({"pylock.toml", "poetry.lock"})
_BESIDE = {"uv.lock": "pyproject.toml", "package-lock.json": "package.json", "npm-shrinkwrap.json": "package.json"}
"""Locks that mean nothing without another file."""

_REFUSED: Mapping[str, Mapping[str, str]] = {
    "python": {
        "pdm.lock": "`pdm export -o requirements.txt` writes what it locks",
        "Pipfile.lock": "`pipenv requirements --hash > requirements.txt` writes what it locks",
        "conda-lock.yml": "write a requirements.txt, or build a template with these packages",
    },
    "nodejs": dict.fromkeys(
        ("yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"),
        "`npm install --package-lock-only` writes a package-lock.json",
    ),
}
"""Locks that nothing here reads, and what to do instead."""
_UNLOCKED = frozenset({"pyproject.toml", "package.json"})

MANIFESTS = frozenset(name for files in (*_SCRIPTS.values(), *_REFUSED.values()) for name in files)
"""The files of a bundle's first folder that count."""

_HASH = re.compile(r"(sha256|sha384|sha512):[0-9a-f]{64,128}")


@dataclass(frozen=True, slots=True)
class Install:
    """How dependencies are installed: by ``script``, in ``/fn``. ``source`` is the file that names them;
    ``requirements`` is what the guest needs at :data:`REQUIREMENTS`, None for nothing."""

    source: str
    script: str
    requirements: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Locked:
    """One package of a lock, in the words of pip."""

    name: str
    version: str
    marker: str | None
    hashes: Sequence[str]

    def __str__(self) -> str:
        marker = "" if self.marker is None else f" ; {self.marker}"
        return f"{self.name}=={self.version}{marker}" + "".join(f" --hash={each}" for each in self.hashes) + "\n"


def chosen_file(manifests: Collection[str], runtime: str) -> str | None:
    """The file that says what to install; None: nothing is installed. Raises :class:`BadRequestError` with what to do
    for a lock that would be ignored, and for one whose other file is missing."""
    chosen = next((name for name in _SCRIPTS[runtime] if name in manifests), None)
    if chosen is None or chosen in _UNLOCKED:
        for name, hint in _REFUSED[runtime].items():
            if name in manifests:
                raise _refusal(name, "this kind of lock file is not supported", hint)
    other = _BESIDE.get(chosen or "")
    if chosen is not None and other is not None and other not in manifests:
        raise _refusal(chosen, f"{other} is missing", "a lock file belongs to it: send both")
    return chosen


def is_read_here(name: str) -> bool:
    """Whether :func:`plan_install` needs the content of the file."""
    return name in _READ_HERE


def plan_install(name: str, runtime: str, content: bytes = b"") -> Install:
    """How to install from a file that :func:`chosen_file` chose. Raises :class:`BadRequestError` with the file's name
    for a lock that cannot be honoured."""
    script = f"set -e\ncd /fn\n{_SCRIPTS[runtime][name]}\n"
    if runtime == "python" and name != "requirements.txt":
        script += f"rm {REQUIREMENTS}\n"
    return Install(name, script, requirements_of(name, content).encode() if is_read_here(name) else None)


def requirements_of(name: str, content: bytes) -> str:
    """The packages of a lock as a file of requirements with hashes. Raises :class:`BadRequestError`."""
    if len(content) > MOST_LOCK:
        raise _refusal(name, f"over {MOST_LOCK} bytes")
    try:
        document = tomllib.loads(content.decode())
        listed = document.get("packages" if name == "pylock.toml" else "package", [])
        packages = [_package(name, each) for each in listed if name == "pylock.toml" or _is_wanted(name, each)]
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
        why = str(error)[:200] if isinstance(error, tomllib.TOMLDecodeError) else "it does not have the known form"
        raise _refusal(name, f"malformed: {why}") from error
    return "".join(map(str, packages))


def _is_wanted(name: str, given: Mapping[str, Any]) -> bool:
    groups = given.get("groups")
    if groups is None:
        raise _refusal(name, "does not say which packages are for development only", "`poetry lock` of Poetry 2 does")
    return "main" in groups


def _package(name: str, given: Mapping[str, Any]) -> _Locked:
    package = canonicalize_name(given["name"], validate=True)
    is_elsewhere = any(key in given for key in ("source", "vcs", "directory", "archive"))
    if is_elsewhere or "version" not in given:
        hint = "lock packages of a package index, or put the code into the bundle"
        raise _refusal(name, f"{package} comes from elsewhere than a package index", hint)
    hashes = sorted(set(_hashes(name, given)))
    if not hashes:
        raise _refusal(name, f"{package} has no hashes", "lock it with hashes")
    try:
        version, marker = str(Version(given["version"])), _marker(name, package, given)
    except (InvalidVersion, InvalidMarker) as error:
        raise _refusal(name, f"{package}: {str(error)[:200]}") from error
    return _Locked(package, version, marker, hashes)


def _marker(name: str, package: str, given: Mapping[str, Any]) -> str | None:
    text = given.get("markers" if name == "poetry.lock" else "marker")
    if isinstance(text, Mapping):
        text = text.get("main")
    if text is None:
        return None
    if name == "pylock.toml" and re.search(r"\b(extras|dependency_groups)\b", text):
        raise _refusal(name, f"{package} belongs to an extra or a group", "lock the project without extras and groups")
    return str(Marker(text))


def _hashes(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    if name == "pylock.toml":
        files = [*given.get("wheels", ()), *([given["sdist"]] if "sdist" in given else [])]
        found = [f"{kind}:{digest}" for each in files for kind, digest in each["hashes"].items()]
    else:
        found = [each["hash"] for each in given.get("files", ())]
    return (each for each in found if _HASH.fullmatch(each))


def _refusal(name: str, what: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"{name}: {what}", field="bundle", hint=hint)
