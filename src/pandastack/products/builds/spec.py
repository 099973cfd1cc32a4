"""What a caller asks a build for, checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from pandastack.errors import BadRequestError

DEFAULT_TEMPLATE = "base"
DEFAULT_SECONDS = 3600.0
LONGEST_SECONDS = 24 * 3600.0
EARLIEST_CLOCK = 315_532_800
"""1980-01-01: ZIP archives, and so wheels, know no earlier time."""
LATEST_CLOCK = 4_102_444_800
"""2100-01-01."""

_MOST_COMMAND = 32 * 1024  # characters
_MOST_ENV_BYTES = 32 * 1024
_MOST_PATHS = 100
_MOST_PATH = 1024  # characters
_MOST_TEMPLATE = 128  # characters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PINNED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LOGNAME", "OUT", "SHELL", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ", "USER")
"""Variables that every build gets, and that a caller therefore does not set."""


class Network(StrEnum):
    """What a build has of the network."""

    NONE = "none"
    RECORD = "record"
    """A proxy that names in a lock what it has fetched."""
    REPLAY = "replay"
    """The same proxy without a network: it answers what a lock names."""


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """A build. ``command`` is a line for the guest's shell, run in the unpacked input.

    ``artifacts`` are paths below the input that are copied to ``$OUT`` after the command, ``source_date_epoch`` is the
    time at which the guest's clock starts (None: the newest file of the input), ``cpu`` None the template's number.
    With ``verify`` it is built twice. With ``refetch``, bodies that the lock names and that are not stored are fetched
    before it begins.
    """

    command: str
    template: str = DEFAULT_TEMPLATE
    artifacts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    source_date_epoch: int | None = None
    cpu: int | None = None
    timeout_seconds: float = DEFAULT_SECONDS
    verify: bool = False
    network: Network = Network.NONE
    refetch: bool = False
    explain: str = ""
    """The template whose diffoscope says what differs; empty: none."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a request says of the network. ``locked``: a lock comes with it."""

    record: bool = False
    locked: bool = False
    refetch: bool = False

    def network(self) -> Network:
        """Raises :class:`BadRequestError` for what does not go together."""
        if self.record and self.locked:
            hint = "leave one of both out"
            raise BadRequestError("lock: a build that records makes a new one", field="lock", hint=hint)
        if self.refetch and not self.locked:
            raise BadRequestError("refetch: is for a build with a lock", field="refetch")
        return Network.RECORD if self.record else Network.REPLAY if self.locked else Network.NONE


_NOTHING = Fetch()


def planned_build(
    command: str,
    template: str | None = None,
    artifacts: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    source_date_epoch: int | None = None,
    cpu: int | None = None,
    timeout_seconds: float | None = None,
    verify: bool = False,
    fetch: Fetch = _NOTHING,
    explain: str | None = None,
) -> BuildSpec:
    """Check a request. Raises :class:`BadRequestError` with the field's name."""
    if not command.strip():
        raise BadRequestError("command: is required", field="command", hint="such as: make && cp program $OUT")
    if len(command) > _MOST_COMMAND or "\0" in command:
        raise _wrong("command", f"must be shorter than {_MOST_COMMAND} characters, without NUL")
    name = template or DEFAULT_TEMPLATE
    if len(name) > _MOST_TEMPLATE:
        raise _wrong("template", f"must be shorter than {_MOST_TEMPLATE} characters")
    if cpu is not None and not 1 <= cpu <= 1024:
        raise _wrong("cpu", "must be from 1 to 1024")
    if explain and not verify:
        raise BadRequestError("explain: is for a build that is verified", field="explain", hint="verify builds twice")
    if explain and len(explain) > _MOST_TEMPLATE:
        raise _wrong("explain", f"must be shorter than {_MOST_TEMPLATE} characters")
    return BuildSpec(
        command=command,
        template=name,
        artifacts=_checked_paths(artifacts),
        env=_checked_env(env or {}),
        source_date_epoch=None if source_date_epoch is None else _checked_clock(source_date_epoch),
        cpu=cpu,
        timeout_seconds=_checked_limit(timeout_seconds),
        verify=verify,
        network=fetch.network(),
        refetch=fetch.refetch,
        explain=explain or "",
    )


def clock_of(spec: BuildSpec, newest: int) -> int:
    """When the guest's clock starts, in seconds since the epoch; ``newest`` is the time of the newest input file."""
    if spec.source_date_epoch is not None:
        return spec.source_date_epoch
    return min(max(newest, EARLIEST_CLOCK), LATEST_CLOCK)


def _checked_paths(paths: Sequence[str]) -> tuple[str, ...]:
    if len(paths) > _MOST_PATHS:
        raise _wrong("artifacts", f"must be at most {_MOST_PATHS} paths")
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path or len(path) > _MOST_PATH:
            hint = "a path below the input; files elsewhere are artifacts when the command copies them to $OUT"
            raise BadRequestError(
                f"artifacts: {path[:64]!r} is not a path below the input", field="artifacts", hint=hint
            )
    return tuple(str(PurePosixPath(path)) for path in paths)


def _checked_env(env: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in env.items():
        if not _VARIABLE.fullmatch(key) or "\0" in value:
            raise _wrong("env", f"{key[:64]!r} is not a valid variable")
        if key in PINNED_VARIABLES:
            hint = "source_date_epoch sets the clock" if key == "SOURCE_DATE_EPOCH" else None
            raise BadRequestError(f"env: {key} is the same in every build", field="env", hint=hint)
    if sum(len(key.encode()) + len(value.encode(errors="replace")) for key, value in env.items()) > _MOST_ENV_BYTES:
        raise _wrong("env", f"must not be longer than {_MOST_ENV_BYTES} bytes")
    return dict(sorted(env.items()))


def _checked_clock(seconds: int) -> int:
    if not EARLIEST_CLOCK <= seconds <= LATEST_CLOCK:
        what = f"must be from {EARLIEST_CLOCK} to {LATEST_CLOCK}"
        raise BadRequestError(f"source_date_epoch: {what}", field="source_date_epoch", hint="the years 1980 to 2100")
    return seconds


def _checked_limit(seconds: float | None) -> float:
    if seconds is None:
        return DEFAULT_SECONDS
    if not 0 < seconds <= LONGEST_SECONDS:  # also refuses NaN
        raise _wrong("timeout_seconds", f"must be above 0 and at most {LONGEST_SECONDS:.0f}")
    return seconds


def _wrong(field: str, what: str) -> BadRequestError:
    return BadRequestError(f"{field}: {what}", field=field)
