"""Requests for runner pools and jobs, checked. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pandastack.contract.sandboxes import DEFAULT_SIZE, WantedSize
from pandastack.errors import BadRequestError
from pandastack.products.keeping import checked_keep
from pandastack.services.cron import checked_cron, checked_zone
from pandastack.services.github.actions import checked_scope
from pandastack.services.records.spec import checked_size

MOST_STEPS = 64
MOST_COMMAND = 32 * 1024
"""Bytes of one command."""
MOST_ENVIRONMENT = 32 * 1024
MOST_INPUT = 64 * 1024
MOST_ARTIFACTS = 64
MOST_LABELS = 100
MOST_CONCURRENCY = 64
MOST_REPOSITORIES = 100
DEFAULT_SECONDS = 3600.0
LONGEST_SECONDS = 24 * 3600.0
DIRECTORY = "/workspace"
"""Where the checkout is, and commands begin."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,254}")
_LABEL = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,256}")
_SCHEMES = ("https", "http", "git")


@dataclass(frozen=True, slots=True)
class Git:
    """A repository that is checked out as a pool is prepared."""

    url: str
    ref: str = "HEAD"


@dataclass(frozen=True, slots=True)
class GitHub:
    """Whose jobs of Actions a pool runs: those of a repository or an organization (``scope``). ``repositories`` are
    those of an organization whose jobs are looked for; ``program`` is GitHub's, in the prepared machine."""

    scope: str
    repositories: tuple[str, ...] = ()
    group_id: int = 1
    program: str = "/opt/actions-runner/run.sh"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool's machines are made of. Times in seconds; ``network`` is a policy as it is stored, None: the
    template's. ``env`` is that of all commands, those of jobs too. At the times of the cron expression ``refresh`` in
    ``timezone`` it is prepared anew."""

    template: str = "base"
    prepare: tuple[str, ...] = ()
    git: Git | None = None
    directory: str = DIRECTORY
    env: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    concurrency: int = 2
    job_seconds: float = DEFAULT_SECONDS
    prepare_seconds: float = DEFAULT_SECONDS
    network: Mapping[str, Any] | None = None
    size: WantedSize = DEFAULT_SIZE
    github: GitHub | None = None
    refresh: str | None = None
    timezone: str = "UTC"

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PoolSpec:
        """The inverse."""
        given = dict(stored)
        given["prepare"], given["labels"] = tuple(given["prepare"]), tuple(given["labels"])
        given["git"] = None if given["git"] is None else Git(**given["git"])
        given["size"] = WantedSize(**given["size"])
        if (github := given["github"]) is not None:
            given["github"] = GitHub(**{**github, "repositories": tuple(github["repositories"])})
        return cls(**given)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job does. ``deadline_seconds`` None: that of its pool. ``has_input``: it was given an input, which is in
    memory only. ``keep_seconds`` of a job that fails: how long its machine is kept, and its checkpoint.
    ``checkpoint``: its machine is captured before each command but the first."""

    steps: tuple[str, ...]
    ref: str | None = None
    trusted: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    deadline_seconds: float | None = None
    has_input: bool = False
    keep_seconds: int = 0
    checkpoint: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> JobSpec:
        """The inverse."""
        given = dict(stored)
        given["steps"], given["artifacts"] = tuple(given["steps"]), tuple(given["artifacts"])
        return cls(**given)


def checked_name(name: str) -> str:
    """The name of a pool. Raises :class:`BadRequestError`."""
    if not _NAME.fullmatch(name):
        hint = "up to 64 of a-z, 0-9, dot, underscore and hyphen; the first is a letter or digit"
        raise BadRequestError(f"name: {name[:64]!r} cannot be the name of a pool", field="name", hint=hint)
    return name


def checked_pool(wanted: PoolSpec) -> PoolSpec:
    """Check a pool; its labels become lower-case. Raises :class:`BadRequestError` with the field."""
    _check_commands(wanted.prepare, "prepare")
    _check_environment(wanted.env)
    _check_seconds(wanted.job_seconds, "job_seconds")
    _check_seconds(wanted.prepare_seconds, "prepare_seconds")
    checked_size(wanted.size)
    if not 1 <= wanted.concurrency <= MOST_CONCURRENCY:
        raise BadRequestError(f"concurrency: must be from 1 to {MOST_CONCURRENCY}", field="concurrency")
    path = PurePosixPath(wanted.directory)
    if not path.is_absolute() or ".." in path.parts or not _is_path(wanted.directory) or str(path) == "/":
        raise BadRequestError("directory: must be an absolute path below /", field="directory", hint="/workspace")
    if wanted.git is not None:
        _check_git(wanted.git)
    labels = checked_labels(wanted.labels)
    if wanted.github is not None:
        _check_github(wanted.github, labels)
    refresh = None if wanted.refresh is None else checked_cron(wanted.refresh, "refresh")
    own = {"labels": labels, "directory": str(path), "refresh": refresh, "timezone": checked_zone(wanted.timezone)}
    return PoolSpec(**{**_fields(wanted), **own})


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels in lower-case, each once. Raises :class:`BadRequestError`."""
    if len(labels) > MOST_LABELS or not all(_LABEL.fullmatch(each) for each in labels):
        hint = f"at most {MOST_LABELS}, each of up to 256 visible ASCII characters without commas"
        raise BadRequestError("labels: must be labels", field="labels", hint=hint)
    return tuple(dict.fromkeys(each.lower() for each in labels))


def checked_job(wanted: JobSpec, pool: PoolSpec, given: bytes | None) -> JobSpec:
    """Check a job of a pool, and its input. Raises :class:`BadRequestError` with the field."""
    if not wanted.steps:
        raise BadRequestError("steps: must not be empty", field="steps", hint='such as ["make test"]')
    _check_commands(wanted.steps, "steps")
    _check_environment({**pool.env, **wanted.env})
    if wanted.deadline_seconds is not None:
        _check_seconds(wanted.deadline_seconds, "deadline_seconds")
        if wanted.deadline_seconds > pool.job_seconds:
            message = f"deadline_seconds: must be at most {pool.job_seconds:g}, as its pool says"
            raise BadRequestError(message, field="deadline_seconds")
    if wanted.ref is not None:
        _check_ref(wanted.ref, "ref")
        if pool.git is None:
            hint = "leave it out: the pool's checkout was uploaded"
            raise BadRequestError("ref: this pool has no repository", field="ref", hint=hint)
    if len(wanted.artifacts) > MOST_ARTIFACTS:
        raise BadRequestError(f"artifacts: must be at most {MOST_ARTIFACTS} paths", field="artifacts")
    for path in wanted.artifacts:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or not _is_path(path):
            message = f"artifacts: {path[:100]!r} is not a path below the checkout"
            raise BadRequestError(message, field="artifacts")
    checked_keep(wanted.keep_seconds)
    if given is not None and len(given) > MOST_INPUT:
        raise BadRequestError(f"stdin: must have at most {MOST_INPUT} bytes", field="stdin")
    return wanted


def has_labels(pool: PoolSpec, wanted: Sequence[str]) -> bool:
    """Whether a pool has all of these labels, as :func:`checked_labels` returns them."""
    return set(wanted) <= set(pool.labels)


def _fields(spec: PoolSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in PoolSpec.__slots__}


def _check_commands(commands: Sequence[str], field: str) -> None:
    if len(commands) > MOST_STEPS:
        raise BadRequestError(f"{field}: must be at most {MOST_STEPS} commands", field=field)
    for each in commands:
        if not each.strip() or "\0" in each or len(each.encode("utf-8", "surrogatepass")) > MOST_COMMAND:
            message = f"{field}: a command must have 1 to {MOST_COMMAND} bytes, without NUL"
            raise BadRequestError(message, field=field)


def _check_environment(env: Mapping[str, str]) -> None:
    for name, text in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in text:
            raise BadRequestError(f"env: {name[:64]!r} is not a valid variable", field="env")
    if sum(len(name) + len(text.encode("utf-8", "surrogatepass")) for name, text in env.items()) > MOST_ENVIRONMENT:
        message = f"env: must have at most {MOST_ENVIRONMENT} bytes, with that of the pool"
        raise BadRequestError(message, field="env")


def _check_seconds(seconds: float, field: str) -> None:
    if not (math.isfinite(seconds) and 1 <= seconds <= LONGEST_SECONDS):
        raise BadRequestError(f"{field}: must be from 1 to {LONGEST_SECONDS:g}", field=field)


def _check_git(git: Git) -> None:
    try:
        parts = urlsplit(git.url)
        fits = parts.scheme in _SCHEMES and bool(parts.hostname) and git.url.isprintable() and len(git.url) <= 2048
    except ValueError:
        fits = False
    if not fits or " " in git.url:
        hint = "an address that begins with https://, http:// or git://"
        raise BadRequestError("git.url: must be the address of a repository", field="git.url", hint=hint)
    _check_ref(git.ref, "git.ref")


def _check_github(github: GitHub, labels: Sequence[str]) -> None:
    checked_scope(github.scope, "github.scope")
    if not labels:
        hint = "such as self-hosted, linux and x64: GitHub implies none"
        raise BadRequestError("labels: a pool for GitHub needs labels", field="labels", hint=hint)
    if len(github.repositories) > MOST_REPOSITORIES or not all("/" in each for each in github.repositories):
        message = f"github.repositories: must be at most {MOST_REPOSITORIES} of OWNER/REPOSITORY"
        raise BadRequestError(message, field="github.repositories")
    for each in github.repositories:
        checked_scope(each, "github.repositories")
    if not 1 <= github.group_id < 1 << 31:
        raise BadRequestError("github.group_id: must be the number of a runner group", field="github.group_id")
    if not github.program.startswith("/") or not _is_path(github.program):
        raise BadRequestError("github.program: must be an absolute path", field="github.program")


def _check_ref(ref: str, field: str) -> None:
    if not _REF.fullmatch(ref) or ".." in ref:
        hint = "a branch, a tag, a commit, or the full name of one, such as refs/pull/7/head"
        raise BadRequestError(f"{field}: {ref[:64]!r} is not a ref", field=field, hint=hint)


def _is_path(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) <= 1024 and text.isprintable()
