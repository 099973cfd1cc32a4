"""Validates the commands and processes that callers ask for. Pure."""

from __future__ import annotations

import re
import signal as signals
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pandastack.contract.processes import ProcessSpec, TerminalSize
from pandastack.errors import BadRequestError
from pandastack.services.settings import Settings

_MAX_TEXT = 4096
_MAX_ENV_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """A line for the guest's shell. ``timeout_seconds`` None: no limit; ``stdin`` None: empty."""

    cmd: str
    timeout_seconds: float | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """The id of the guest's record of the command."""
    leave: bool = False
    """Whether it keeps running when its client disconnects."""
    stdin: bytes | None = None


def planned_command(cmd: str, timeout_seconds: float | None, process_id: str | None, settings: Settings) -> Command:
    """Check a caller's command. Raises :class:`BadRequestError`.

    ``process_id`` is an id chosen by the caller, which can then find the record even if it never gets an answer.
    """
    if not cmd:
        raise BadRequestError("cmd: must not be empty", field="cmd")
    if "\0" in cmd:
        raise BadRequestError("cmd: must not contain a NUL character", field="cmd")
    command = Command(cmd, _checked_timeout(timeout_seconds, settings))
    return command if process_id is None else replace(command, id=checked_id(process_id))


def planned_process(body: Mapping[str, Any], settings: Settings) -> ProcessSpec:
    """Check a caller's process; raises :class:`BadRequestError` with the field's name."""
    cmd = body.get("cmd") or ""
    if not cmd:
        raise BadRequestError("cmd: must not be empty", field="cmd")
    for name, text in (("cmd", cmd), ("cwd", body.get("cwd") or ""), ("user", body.get("user") or "")):
        if "\0" in text or (name != "cmd" and len(text) > _MAX_TEXT):
            raise BadRequestError(f"{name}: must be shorter than 4096 characters, without NUL", field=name)
    if (cwd := body.get("cwd")) and not cwd.startswith("/"):
        raise BadRequestError("cwd: must be absolute", field="cwd")
    given = body.get("id")
    return ProcessSpec(
        cmd=cmd,
        id=checked_id(given) if given is not None else str(uuid.uuid4()),
        timeout_seconds=_checked_timeout(body.get("timeout_seconds"), settings),
        cwd=cwd or None,
        user=body.get("user") or None,
        env=_checked_env(body.get("env") or {}),
        stdin_open=bool(body.get("stdin")),
        background=bool(body.get("background")),
        terminal=checked_size(body.get("rows") or 24, body.get("cols") or 80) if body.get("pty") else None,
    )


def checked_id(text: str) -> str:
    """A UUID in its canonical form; raises :class:`BadRequestError`."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadRequestError(f"id: must be a UUID, not {text[:64]!r}", field="id") from None


def checked_signal(signal: int | str) -> int:
    """A signal's number: 1 to 64, or a name such as ``TERM`` or ``SIGTERM``."""
    text = str(signal)[:32]
    name = text.upper().removeprefix("SIG")
    number = int(text) if re.fullmatch("[0-9]{1,2}", text) else signals.Signals.__members__.get(f"SIG{name}", 0)
    if not 1 <= number <= 64:
        raise BadRequestError(f"signal: unknown signal {text}", field="signal", hint="such as TERM, KILL or 15")
    return int(number)


def checked_size(rows: int, cols: int) -> TerminalSize:
    """Check the size of a terminal."""
    if not (1 <= rows <= 65535 and 1 <= cols <= 65535):
        raise BadRequestError("rows and cols: must be between 1 and 65535", field="rows")
    return TerminalSize(rows, cols)


def _checked_timeout(seconds: float | None, settings: Settings) -> float | None:
    most = settings.max_command_seconds
    if not 0 <= (seconds or 0.0) <= most:  # also refuses NaN, and whole numbers too large for a float
        message = f"timeout_seconds: must be between 0 and {most:.0f}"
        raise BadRequestError(message, field="timeout_seconds", hint="0 means no limit")
    return seconds or None


def _checked_env(env: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in env.items():
        if not key or "=" in key or "\0" in key + value:
            raise BadRequestError(f"env: {key[:64]!r} is not a valid variable", field="env")
    if sum(len(key) + len(value) for key, value in env.items()) > _MAX_ENV_BYTES:
        raise BadRequestError(f"env: must not be longer than {_MAX_ENV_BYTES} bytes", field="env")
    return env
