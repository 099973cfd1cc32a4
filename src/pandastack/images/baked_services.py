"""The ``services`` of ``template.toml``, read strictly: an unknown or ill-typed field is an error that names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pandastack.errors import BadRequestError
from pandastack.model.baked_services import BakedService, Readiness, Restart

SERVICES_MOST = 16
"""How many services a template may have."""

COMMAND_LENGTH = 4096
"""Characters of a service's command, and of the one that says whether it is ready."""

VARIABLES_MOST = 64
TIMEOUT_MOST = 600
"""Seconds that a service may take until it is ready."""

_NAME = r"[a-z][a-z0-9-]{0,26}"
_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_FIELDS = ("command", "cwd", "env", "name", "ready", "restart", "user")
_CONDITIONS = ("command", "file", "port")


def parse_services(name: str, value: Any) -> tuple[BakedService, ...]:
    """The services in their order. Raises :class:`BadRequestError` with the path of the wrong field."""
    if not isinstance(value, list) or len(value) > SERVICES_MOST:
        raise _wrong(name, f"a list of at most {SERVICES_MOST} tables, written [[{name}]]")
    services = tuple(_service(f"{name}[{index}]", each) for index, each in enumerate(value))
    seen: set[str] = set()
    for index, each in enumerate(services):
        if each.name in seen:
            raise _wrong(f"{name}[{index}].name", f"a name that no other service has, not {each.name} again")
        seen.add(each.name)
    return services


def _service(at: str, value: Any) -> BakedService:
    table = _table(at, value, _FIELDS)
    for required in ("name", "command"):
        if required not in table:
            raise _wrong(f"{at}.{required}", "given")
    return BakedService(
        name=_text(f"{at}.name", table["name"], _NAME, f"text that matches {_NAME}"),
        command=_command(f"{at}.command", table["command"]),
        user=_text(f"{at}.user", table.get("user", "root"), _USER, "the name of a user"),
        env=_env(f"{at}.env", table.get("env", {})),
        cwd=_path(f"{at}.cwd", table["cwd"]) if "cwd" in table else None,
        restart=_restart(f"{at}.restart", table.get("restart", "always")),
        ready=_ready(f"{at}.ready", table["ready"]) if "ready" in table else None,
    )


def _ready(at: str, value: Any) -> Readiness:
    table = _table(at, value, (*_CONDITIONS, "timeout_seconds"))
    given = [each for each in _CONDITIONS if each in table]
    if len(given) != 1:
        raise _wrong(at, "a table with exactly one of port, file and command")
    return Readiness(
        port=_number(f"{at}.port", table["port"], 65535) if "port" in table else None,
        file=_path(f"{at}.file", table["file"]) if "file" in table else None,
        command=_command(f"{at}.command", table["command"]) if "command" in table else None,
        timeout_seconds=_number(f"{at}.timeout_seconds", table.get("timeout_seconds", 60), TIMEOUT_MOST),
    )


def _wrong(at: str, expected: str) -> BadRequestError:
    return BadRequestError(f"{at} must be {expected}", field=at)


def _table(at: str, value: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(at, "a table")
    if unknown := sorted(set(value) - set(known)):
        hint = f"known: {', '.join(known)}"
        raise BadRequestError(f"unknown field {at}.{unknown[0]}", hint=hint, field=f"{at}.{unknown[0]}")
    return value


def _text(at: str, value: Any, form: str, expected: str) -> str:
    if not isinstance(value, str) or "\0" in value or not re.fullmatch(form, value):
        raise _wrong(at, expected)
    return value


def _command(at: str, value: Any) -> str:
    return _text(
        at, value, rf"(?s)(?=.*\S).{{1,{COMMAND_LENGTH}}}", f"a command of at most {COMMAND_LENGTH} characters"
    )


def _path(at: str, value: Any) -> str:
    return _text(at, value, r"(?s)/.{0,4094}", "an absolute path")


def _number(at: str, value: Any, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise _wrong(at, f"a whole number from 1 to {most}")
    return value


def _restart(at: str, value: Any) -> Restart:
    if not isinstance(value, str) or value not in list(Restart):
        raise _wrong(at, " or ".join(f'"{each}"' for each in Restart))
    return Restart(value)


def _env(at: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > VARIABLES_MOST:
        raise _wrong(at, f"a table of at most {VARIABLES_MOST} variables")
    for key, text in value.items():
        if not re.fullmatch(_VARIABLE, key):
            raise _wrong(f"{at}.{key}", f"named like {_VARIABLE}")
        if not isinstance(text, str) or "\0" in text or len(text) > COMMAND_LENGTH:
            raise _wrong(f"{at}.{key}", f"text of at most {COMMAND_LENGTH} characters")
    return dict(value)
