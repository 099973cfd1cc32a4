"""HTTP as events and results of functions, in the format 2.0 of Lambda's function URLs. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json, to_json

_TEXT = re.compile(r"text/.*|application/(.*\+)?(json|xml|javascript|graphql|x-www-form-urlencoded)(;.*)?", re.I)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")
_LENGTH = re.compile(r"[0-9]{1,15}")
_MOST_HEADERS = 100
_NOT_THEIRS = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Malformed(Exception):
    """A function gave a malformed HTTP answer."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a function. ``query`` and ``path`` are as they were sent; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source: str


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What goes back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer whose body follows in pieces. ``length`` is that of the body; None: nobody knows."""

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None


def has_body(method: str, status: int) -> bool:
    """Whether an answer has a body (RFC 9110 6.4.1)."""
    return method != "HEAD" and status not in (204, 304)


def event_of(request: HttpRequest, request_id: str, now: float) -> dict[str, Any]:
    """The event for a request that came at ``now`` (epoch seconds). ``Authorization`` is passed on, as Lambda does."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, text in request.headers:
        if name == "cookie":
            cookies += [each.strip() for each in text.split(";") if each.strip()]
        else:
            headers[name] = f"{headers[name]},{text}" if name in headers else text
    parameters: dict[str, str] = {}
    for name, text in parse_qsl(request.query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{text}" if name in parameters else text
    at = datetime.fromtimestamp(now, UTC)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.source,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": at.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if parameters:
        event["queryStringParameters"] = parameters
    if request.body:
        event.update(_body_of(request.body, headers.get("content-type", "")))
    return event


def _body_of(body: bytes, kind: str) -> dict[str, Any]:
    if not kind or _TEXT.fullmatch(kind):
        try:
            return {"body": body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            pass
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def answer_of(result: Any) -> HttpAnswer:
    """The answer that a result means. Raises :class:`Malformed`."""
    if not (isinstance(result, Mapping) and "statusCode" in result):
        return HttpAnswer(200, (("content-type", "application/json"),), to_json(result))
    status = result["statusCode"]
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise Malformed(f"statusCode must be from 200 to 599, not {str(status)[:32]}")
    body = _bytes_of(result.get("body"), result.get("isBase64Encoded") is True)
    headers = [_header(name, text) for name, text in _pairs(result.get("headers"))]
    headers += [_header("set-cookie", each) for each in result.get("cookies") or ()]
    if len(headers) > _MOST_HEADERS:
        raise Malformed(f"over {_MOST_HEADERS} headers")
    kept = tuple(each for each in headers if each[0].lower() not in _NOT_THEIRS)
    if body and not any(name.lower() == "content-type" for name, _ in kept):
        kept = (*kept, ("content-type", "application/json"))
    return HttpAnswer(status, kept, body)


def head_of(given: Any) -> Head:
    """The head of an answer in pieces: an object with ``statusCode`` and ``headers``. Raises :class:`Malformed`."""
    if not (isinstance(given, Mapping) and "statusCode" in given):
        raise Malformed("the answer begins without a status")
    pairs = _pairs(given.get("headers"))
    plain = answer_of({"statusCode": given["statusCode"], "headers": [list(each) for each in pairs]})
    lengths = {str(text).strip() for name, text in pairs if str(name).lower() == "content-length"}
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(each) for each in lengths):
        raise Malformed("the header Content-Length is malformed")
    return Head(plain.status, plain.headers, int(lengths.pop()) if lengths else None)


def printed(text: str) -> HttpAnswer:
    """The answer that the output of a script is."""
    try:
        from_json(text)
    except ValueError:
        return HttpAnswer(200, (("content-type", "text/plain; charset=utf-8"),), text.encode())
    return HttpAnswer(200, (("content-type", "application/json"),), text.encode())


def _bytes_of(body: Any, is_encoded: bool) -> bytes:
    if body is None:
        return b""
    if not isinstance(body, str):
        return to_json(body)
    if not is_encoded:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("the body is not base64") from None


def _pairs(headers: Any) -> Sequence[tuple[Any, Any]]:
    if headers is None:
        return ()
    if isinstance(headers, Mapping):
        return tuple(headers.items())
    if isinstance(headers, list) and all(isinstance(each, list) and len(each) == 2 for each in headers):
        return tuple((name, text) for name, text in headers)
    raise Malformed("headers must be an object")


def _header(name: Any, text: Any) -> tuple[str, str]:
    value = text if isinstance(text, str) else str(text)
    if not (isinstance(name, str) and _HEADER.fullmatch(name) and _VALUE.fullmatch(value)):
        raise Malformed(f"header {str(name)[:64]!r} is malformed")
    return name, value
