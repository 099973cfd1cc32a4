"""Request bodies of the engine's HTTP interface, parsed strictly into what the engine works with."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any
from uuid import UUID

from starlette.requests import Request

from pandastack.engine.sandbox import Order
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


def create_order(body: dict[str, Any]) -> tuple[Order, str]:
    """The sandbox to create and the name of its template."""
    try:
        sandbox_id = str(UUID(str(body["id"])))
    except (KeyError, ValueError) as error:
        raise BadRequestError("id must be a UUID", field="id") from error
    template = body.get("template")
    if not isinstance(template, str):
        raise BadRequestError("template must be a name", field="template")
    hostname = str(body.get("hostname") or sandbox_id[:8])
    return Order(sandbox_id, hostname, _strings(body.get("env"), "env")), template


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
        stdin=stdin is not None,
    )
    return request, stdin


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
