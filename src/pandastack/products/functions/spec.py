"""Requests for functions, and what they mean. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.model.network_rules import MOST_NAMES, parse_policy, to_json
from pandastack.products.functions.retries import MOST_RETRIES
from pandastack.store.functions import RunStatus

MOST_CODE = 512 * 1024
MOST_BUNDLE = 50 * 1024 * 1024
MOST_UNPACKED = 200 * 1024 * 1024
MOST_EVENT = 6 * 1024 * 1024
MOST_SECONDS = 300.0
DEFAULT_SECONDS = 60.0
DEFAULT_CONCURRENCY = 10
MOST_CONCURRENCY = 100
LONGEST_NAME = 128
_LONGEST_ENTRYPOINT = 256
_MOST_ENV = 32 * 1024
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A language: its template and entrypoint by default, the endings of its files, and its program in the guest."""

    template: str
    entrypoint: str
    endings: tuple[str, ...]
    program: str


RUNTIMES: Mapping[str, Runtime] = {
    "python": Runtime("code-interpreter", "handler.py", (".py",), "python3 runtime.py"),
    "nodejs": Runtime("agent", "handler.js", (".js", ".mjs", ".cjs"), "node runtime.mjs"),
}


@dataclass(frozen=True, slots=True)
class NewFunction:
    """A request for a function. ``code`` is what to deploy at once; None: nothing yet. ``network`` is a policy as they
    are stored; None: the template's. ``id`` None: a new one."""

    name: str
    runtime: str
    entrypoint: str
    template: str
    code: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    public: bool = False
    timeout_seconds: float = DEFAULT_SECONDS
    memory_mb: int | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    secrets: tuple[str, ...] = ()
    network: Mapping[str, Any] | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class GivenRun:
    """The record of a run that a client made itself."""

    status: RunStatus
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    duration_ms: float | None = None
    sandbox_id: str | None = None
    schedule_id: str | None = None


@dataclass(frozen=True, slots=True)
class Background:
    """What an asynchronous call wants: how often it is tried again, and a URL that is told of its end."""

    retries: int = 0
    callback: str | None = None


PLAIN = Background()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What any call may choose: a ``version`` or an ``alias`` in place of the version that serves, and for how long its
    machine is kept if it fails; 0: not at all."""

    version: int | None = None
    alias: str | None = None
    keep_seconds: int = 0


SERVING = Chosen()


@dataclass(frozen=True, slots=True)
class ScheduledCall:
    """A run that a schedule wants: under the id ``run_id``, of a ``version``, for a time in epoch seconds."""

    run_id: str
    function_id: str
    version: int
    schedule_id: str
    nominal_at: float


def checked_new(given: Mapping[str, Any]) -> NewFunction:
    """A request for a function. Raises :class:`BadRequestError` with the field."""
    runtime = str(given.get("runtime") or "")
    if runtime not in RUNTIMES:
        message = f"runtime: unknown runtime {runtime[:32]!r}" if runtime else "runtime: is required"
        raise BadRequestError(message, field="runtime", hint=f"one of {', '.join(RUNTIMES)}")
    language = RUNTIMES[runtime]
    values = checked_values(given, runtime)
    if runtime == "nodejs" and values.get("template") == RUNTIMES["python"].template:
        values["template"] = language.template  # clients send the default of Python for every runtime; it has no Node
    if "name" not in values:
        raise BadRequestError("name: is required", field="name")
    code = decoded_code(given.get("code"))
    return NewFunction(
        **{"entrypoint": language.entrypoint, "template": language.template, **values}, runtime=runtime, code=code
    )


def checked_values(given: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """The fields of ``given`` that a function has and that may change, those that are None left out. Raises
    :class:`BadRequestError` with the field."""
    checks: Mapping[str, Callable[[Any], Any]] = {
        "name": checked_name,
        "entrypoint": lambda text: checked_entrypoint(text, runtime),
        "template": str,
        "env": checked_env,
        "public": bool,
        "timeout_seconds": checked_seconds,
        "memory_mb": lambda number: _whole("memory_mb", number, 1, 2**31 - 1),
        "concurrency": lambda number: _whole("concurrency", number, 1, MOST_CONCURRENCY),
        "secrets": checked_secrets,
        "network": lambda policy: to_json(parse_policy(policy)),
    }
    return {name: check(given[name]) for name, check in checks.items() if given.get(name) is not None}


def checked_name(text: str) -> str:
    """The name of a function. Raises :class:`BadRequestError`."""
    if not text or len(text) > LONGEST_NAME or not text.isprintable() or text != text.strip():
        hint = "one line of text, without spaces around it"
        raise BadRequestError(f"name: must have 1 to {LONGEST_NAME} characters", field="name", hint=hint)
    return text


def checked_entrypoint(text: str, runtime: str) -> str:
    """``FILE`` or ``FILE:NAME``. Raises :class:`BadRequestError`."""
    file, colon, name = text.partition(":")
    endings = RUNTIMES[runtime].endings
    good = _FILE.fullmatch(file) and file.endswith(endings) and len(text) <= _LONGEST_ENTRYPOINT
    if not good or (colon and not _NAME.fullmatch(name)):
        hint = f"a path in the bundle that ends in {' or '.join(endings)}, such as {RUNTIMES[runtime].entrypoint}"
        raise BadRequestError(f"entrypoint: {text[:64]!r} is not one of {runtime}", field="entrypoint", hint=hint)
    return text


def file_of(entrypoint: str) -> str:
    """The file of an entrypoint."""
    return entrypoint.partition(":")[0]


def name_of(entrypoint: str) -> str | None:
    """The name that an entrypoint gives, or None."""
    return entrypoint.partition(":")[2] or None


def checked_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a function. Raises :class:`BadRequestError`."""
    for name, text in env.items():
        if not _VARIABLE.fullmatch(name) or len(name) > 256:
            raise BadRequestError(f"env: {name[:64]!r} is no name of a variable", field="env", hint="such as API_URL")
        if "\0" in text:
            raise BadRequestError(f"env: {name} has a NUL character", field="env")
    if sum(len(name) + len(text.encode("utf-8", "replace")) for name, text in env.items()) > _MOST_ENV:
        raise BadRequestError(f"env: must not be longer than {_MOST_ENV} bytes", field="env")
    return dict(env)


def checked_secrets(names: Sequence[str]) -> tuple[str, ...]:
    """The names of secrets, each once. Raises :class:`BadRequestError`."""
    if len(names) > MOST_NAMES:
        raise BadRequestError(f"secrets: at most {MOST_NAMES}", field="secrets")
    return tuple(dict.fromkeys(names))


def checked_seconds(seconds: float) -> float:
    """How long a run may take. Raises :class:`BadRequestError`."""
    if not 0.1 <= seconds <= MOST_SECONDS:
        message = f"timeout_seconds: must be from 0.1 to {MOST_SECONDS:g}"
        raise BadRequestError(message, field="timeout_seconds")
    return seconds


def decoded_code(text: str | None) -> bytes | None:
    """The code of a request, None for none. Raises :class:`BadRequestError`, :class:`TooLargeError`."""
    if not text:
        return None
    if len(text) > MOST_CODE * 4 // 3 + 1024:
        raise _long_code()
    try:
        code = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError("code: must be base64", field="code") from None
    if len(code) > MOST_CODE:
        raise _long_code()
    return code or None


def checked_run(given: Mapping[str, Any]) -> GivenRun:
    """The record of a run that a client made. Raises :class:`BadRequestError`."""
    status = given.get("status")
    if status not in tuple(RunStatus):
        hint = f"one of {', '.join(RunStatus)}"
        raise BadRequestError(f"status: unknown status {str(status)[:32]!r}", field="status", hint=hint)
    values = {name: given[name] for name in GivenRun.__slots__ if name != "status" and given.get(name) is not None}
    for name in ("sandbox_id", "schedule_id"):
        if len(values.get(name, "")) > 36:
            raise BadRequestError(f"{name}: must be an id", field=name)
    return GivenRun(RunStatus(status), **values)


def checked_background(retries: int | None, callback: str | None, *, is_async: bool) -> Background:
    """What an asynchronous call wants. Raises :class:`BadRequestError`; whether ``callback`` may be reached is for the
    webhooks to say."""
    for name, given in (("retries", retries), ("callback", callback)):
        if given is not None and not is_async:
            hint = 'add "async": true'
            raise BadRequestError(f"{name}: is for asynchronous calls only", field=name, hint=hint)
    return Background(_whole("retries", retries or 0, 0, MOST_RETRIES), callback)


def _long_code() -> TooLargeError:
    hint = "POST /v1/functions/{id}/deploy takes bundles of up to 50 MB"
    return TooLargeError(f"code: over {MOST_CODE} bytes", field="code", hint=hint)


def _whole(name: str, number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise BadRequestError(f"{name}: must be from {least} to {most}", field=name)
    return number
