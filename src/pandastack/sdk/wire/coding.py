"""Maps HTTP responses and transport failures to the errors of this package, and is the only place that does."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from pandastack.errors import (
    BadRequestError,
    CapacityError,
    ConnectionError,
    PandastackError,
    SandboxTimeout,
    ServerError,
    from_body,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An unsuccessful answer. ``enveloped``: the body is the platform's own JSON, not a proxy's
    page.

    Without any answer ``status`` is 0, and ``broken`` means that an established connection broke.
    """

    status: int
    error: PandastackError
    enveloped: bool
    retry_after: float | None
    broken: bool = False


def refusal_from(status: int, headers: Mapping[str, str], content: bytes) -> Refusal:
    """Read an error response; ``content`` may be anything, such as a load balancer's HTML."""
    body = _object(content)
    retry_after = parse_retry_after(headers.get("retry-after"))
    message = _message(body) or content.decode("utf-8", "replace").strip()[:500] or f"HTTP {status}"
    error = from_body(status, {**body, "error": message})
    if error.hint is None and _is_text(body.get("detail")) and body["detail"] != message:
        error.hint = body["detail"]
    if isinstance(error, CapacityError) and retry_after is not None:
        error.retry_after = math.ceil(retry_after)
    return Refusal(status, error, enveloped=_is_text(body.get("error")), retry_after=retry_after)


def no_answer(error: ConnectionError) -> Refusal:
    """An error raised by :func:`mapped_transport_errors`, as a refusal."""
    broken = isinstance(error.__cause__, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
    return Refusal(0, error, enveloped=False, retry_after=None, broken=broken)


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _message(body: Mapping[str, Any]) -> str:
    return next((body[key] for key in ("error", "message", "detail") if _is_text(body.get(key))), "")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """The wait in a ``Retry-After`` header (seconds or an HTTP date), in seconds; None without one."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


@contextmanager
def mapped_transport_errors(url: str) -> Iterator[None]:
    """Raise this package's errors for failures below HTTP in a call to ``url``."""
    try:
        yield
    except httpx.TimeoutException as cause:
        raise ConnectionError(
            f"no answer from {url} in time",
            hint="a command may still run; give it timeout_seconds or stream it",
        ) from cause
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as cause:
        raise BadRequestError(f"{url} is not a usable server address: {cause}", hint="set PANDASTACK_API") from cause
    except httpx.HTTPError as cause:
        raise ConnectionError(
            f"cannot talk to {url}: {str(cause) or type(cause).__name__}",
            hint="is the server running? `pandastack up` starts one, PANDASTACK_API names another",
        ) from cause


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a successful response, ``{}`` for an empty one. Raises ServerError for anything
    else.
    """
    value = json_value(response)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ServerError(f"{response.url.path} did not answer with a JSON object")
    return value


def json_list(response: httpx.Response, key: str = "items") -> list[dict[str, Any]]:
    """The objects of a list response: a bare array, or one under ``key``. Raises ServerError for anything
    else.
    """
    value = json_value(response)
    items = value.get(key) if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise ServerError(f"{response.url.path} did not answer with a JSON array")
    return items


def json_value(response: httpx.Response) -> Any:
    """The JSON of a successful response, None for an empty one. Raises ServerError for anything else."""
    try:
        return json.loads(response.content) if response.content else None
    except ValueError as cause:
        raise ServerError(f"{response.url.path} did not answer with JSON") from cause


def is_command_timeout(error: ServerError) -> bool:
    """Whether a server's error for a command means that the command's own limit was reached."""
    text = error.message.lower()
    return ("timeout" in text or "deadline exceeded" in text) and "i/o timeout" not in text


@contextmanager
def mapped_command_timeout() -> Iterator[None]:
    """Raise SandboxTimeout in place of a ServerError that means a command's time limit."""
    try:
        yield
    except ServerError as cause:
        if not is_command_timeout(cause):
            raise
        raise SandboxTimeout(cause.message, hint=cause.hint, status_code=cause.status_code) from cause
