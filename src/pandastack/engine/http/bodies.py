"""Request bodies of the engine's HTTP interface, parsed strictly into what the engine works with."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from starlette.requests import Request

from pandastack.engine.spec import SandboxSpec
from pandastack.errors import BadRequestError
from pandastack.guest import ExecRequest


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise BadRequestError("the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def sandbox_spec(body: dict[str, Any]) -> SandboxSpec:
    """The sandbox to create."""
    sandbox_id = identifier(body, "id")
    hostname = str(body.get("hostname") or sandbox_id[:8])
    return SandboxSpec(sandbox_id, hostname, _strings(body.get("env"), "env"))


def create_source(body: dict[str, Any]) -> tuple[str | None, str | None]:
    """What to create it from: the name of a template or the id of a snapshot, and ``None`` for the other."""
    if body.get("snapshot") is not None:
        return None, identifier(body, "snapshot")
    template = body.get("template")
    if not isinstance(template, str):
        raise BadRequestError("template must be a name", field="template")
    return template, None


def fork_specs(body: dict[str, Any], env: dict[str, str]) -> list[SandboxSpec]:
    """The children to make; they begin with the environment of their parent."""
    children = body.get("children")
    if not isinstance(children, list) or not children or not all(isinstance(each, dict) for each in children):
        raise BadRequestError("children must be a list of objects", field="children")
    specs = [sandbox_spec(each) for each in children]
    if len({each.sandbox for each in specs}) < len(specs):
        raise BadRequestError("children must have different ids", field="children")
    return [replace(each, env={**env, **each.env}) for each in specs]


def identifier(values: Mapping[str, Any], field: str) -> str:
    """The UUID under ``field``, in its canonical form."""
    try:
        return str(UUID(str(values[field])))
    except (KeyError, ValueError) as error:
        raise BadRequestError(f"{field} must be a UUID", field=field) from error


def identifiers(values: Mapping[str, Any], field: str) -> list[str]:
    """The UUIDs in the list under ``field``."""
    found = values.get(field)
    if not isinstance(found, list):
        raise BadRequestError(f"{field} must be a list", field=field)
    return [identifier({field: each}, field) for each in found]


def exec_request(body: dict[str, Any]) -> tuple[ExecRequest, bytes | None]:
    """The command and its standard input (``None``: empty)."""
    command = body.get("cmd")
    if not isinstance(command, str) or not command:
        raise BadRequestError("cmd must be a non-empty string", field="cmd")
    stdin = _bytes(body.get("stdin"), "stdin")
    request = ExecRequest(
        cmd=command,
        timeout_s=_seconds(body.get("timeout_seconds"), "timeout_seconds"),
        cwd=body.get("cwd"),
        env=_strings(body.get("env"), "env"),
        user=body.get("user"),
        stdin=stdin is not None or bool(body.get("stdin_open")),
        id=identifier(body, "id") if body.get("id") is not None else None,
        keep_bytes=_whole(body.get("keep_bytes", 0), "keep_bytes"),
        spool=bool(body.get("spool")),
        background=bool(body.get("background")),
        terminal=_terminal(body.get("terminal")),
    )
    return request, stdin


def _terminal(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRequestError("terminal must be an object with rows and cols", field="terminal")
    return terminal_size(value)


def terminal_size(body: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = _whole(body.get("rows"), "rows"), _whole(body.get("cols"), "cols")
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
        raise BadRequestError("a terminal has 1 to 65535 rows and columns", field="rows")
    return rows, columns


def _whole(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise BadRequestError(f"{field} must be a whole number", field=field)
    return value


def _seconds(value: Any, field: str) -> float | None:
    if not value:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise BadRequestError(f"{field} must be a positive number of seconds", field=field)
    return float(value)


def _strings(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise BadRequestError(f"{field} must be an object of strings", field=field)
    return value


def _bytes(value: Any, field: str) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadRequestError(f"{field} must be base64", field=field) from error
