"""What the gateway itself answers: JSON to programs, a page to people. Pure."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable

from pandastack.errors import (
    AsleepError,
    CapacityError,
    ConflictError,
    NotFoundError,
    PandastackError,
    RateLimitError,
    to_public_body,
)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">{more}
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}}
h1{{font-size:1.4rem}}p{{color:#555}}code{{background:#eee;padding:.1em .3em}}</style></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""

_ASLEEP_SECONDS = 60
"""When to ask again for a sandbox that the request does not wake."""

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""


def is_navigation(method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a person waits for a page, rather than a program for an answer."""
    given = dict(headers)
    mode = given.get(b"sec-fetch-mode", b"navigate")
    return method == b"GET" and b"text/html" in given.get(b"accept", b"") and mode == b"navigate"


def holding(sandbox: str) -> Answer:
    """A page that asks again, while the sandbox wakes."""
    text = f"The sandbox <code>{html.escape(sandbox)}</code> is waking up. This page asks again in a second."
    body = _PAGE.format(title="Waking up", text=text, more='<meta http-equiv="refresh" content="1">')
    return 503, [*_headers(b"text/html; charset=utf-8"), (b"retry-after", b"1")], body.encode()


def refusal(error: PandastackError, *, page: bool, port: int | None = None) -> Answer:
    """The answer that reports ``error``. When nothing listens that is 502: the request itself may be right."""
    status = error.status_code
    if port is not None and isinstance(error, NotFoundError):
        status = 502
    elif isinstance(error, ConflictError):  # it is paused, or has failed
        status = 503
    body = to_public_body(error)
    headers = []
    if status == 503:
        seconds = error.retry_after if isinstance(error, CapacityError) else 1
        if isinstance(error, AsleepError):
            seconds = _ASLEEP_SECONDS
        headers.append((b"retry-after", str(seconds).encode()))
    if isinstance(error, RateLimitError):
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if not page:
        return status, [*_headers(b"application/json"), *headers], json.dumps(body).encode()
    text = html.escape(str(body["error"])) + "."
    if status == 502 and port is not None:
        text = f"Nothing listens at port <code>{port}</code> of this sandbox yet. Start a server there and reload."
    if hint := body.get("hint"):
        text += f"</p><p>{html.escape(str(hint))}"
    title = {401: "This preview is private", 404: "No such preview", 429: "Too many wakes", 502: "Nothing listens here"}
    default = "The sandbox sleeps" if isinstance(error, AsleepError) else "This preview does not answer"
    page_text = _PAGE.format(title=title.get(status, default), text=text, more="")
    return status, [*_headers(b"text/html; charset=utf-8"), *headers], page_text.encode()


def _headers(kind: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-pandastack-gateway", b"1")]
