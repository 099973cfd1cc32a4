"""Compares every answer of an application with its own OpenAPI document: statuses, media types, fields.

Fields that the document does not have are refused, at any depth. What streams (events, bytes) is compared by status
and media type only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from jsonschema import Draft202012Validator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON = "application/json"
ERROR = {"$ref": "#/components/schemas/Error"}
_START = ("http.response.start", "websocket.http.response.start")
_BODY = ("http.response.body", "websocket.http.response.body")


class Documented:
    """``app``, watched. ``report`` is told each answer that differs from ``document``, in a sentence, and each JSON
    answer with one of the ``secret`` texts in it."""

    def __init__(
        self,
        app: ASGIApp,
        document: Mapping[str, Any],
        report: Callable[[str], object],
        secret: Sequence[str] = (),
    ) -> None:
        self._secret = [text.encode() for text in secret]
        self._app = app
        self._document = document
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer()

        async def watch(message: Message) -> None:
            answer.take(message)
            if answer.whole:  # reported before the client can see the end of it
                for wrong in self._wrong(scope, answer):
                    self._report(wrong)
            await send(message)

        await self._app(scope, receive, watch)

    def _wrong(self, scope: Scope, answer: _Answer) -> list[str]:
        path = getattr(scope.get("route"), "path", "")
        method = scope.get("method", "GET").lower()
        name = f"{method.upper()} {path or scope['path']} {answer.status}"
        if (
            "/proxy/" in path or "/http-invoke" in path or path.startswith("/v1/p/")
        ):  # what a server in a sandbox says is in no document
            return []
        operation = self._document["paths"].get(path, {}).get(method)
        if scope["path"] in ("/openapi.json", "/docs") or method == "options":  # of the document, and of browsers
            return []
        documented = (operation or {}).get("responses", {}).get(str(answer.status))
        if documented is None and answer.status < 400:
            return [f"{name}: the document has no such answer"]
        content = documented.get("content", {}) if documented else {JSON: {"schema": ERROR}}
        if not content:
            return [f"{name}: the document says that there is no body"] if answer.body or answer.streamed else []
        if answer.media_type not in content:
            return [f"{name}: {answer.media_type} is not in the document"]
        if any(text in answer.body for text in self._secret):
            return [f"{name}: it names something of the host: {answer.body[:500]!r}"]
        schema = content[answer.media_type].get("schema")
        if answer.media_type != JSON or answer.streamed:
            return []
        return [f"{name}: {fault}" for fault in self._faults(schema, answer.body)]

    def _faults(self, schema: Any, body: bytes) -> list[str]:
        if not schema:
            return ["the document says nothing of its fields"]
        validator = Draft202012Validator({**schema, "components": self._document["components"]})
        return [f"{fault.json_path}: {fault.message[:500]}" for fault in validator.iter_errors(json.loads(body))]


class _Answer:
    """One answer as it goes by."""

    def __init__(self) -> None:
        self.status = 0
        self.media_type = ""
        self.body = b""
        self.streamed = False
        self.whole = False

    def take(self, message: Message) -> None:
        if message["type"] in _START:
            self.status = message["status"]
            headers = Headers(raw=message.get("headers", []))
            self.media_type = headers.get("content-type", "").partition(";")[0]
        elif message["type"] in _BODY:
            self.whole = not message.get("more_body", False)
            if self.media_type == JSON:
                self.body += message.get("body", b"")
            else:
                self.streamed = self.streamed or bool(message.get("body"))


def document_of(app: FastAPI) -> Mapping[str, Any]:
    """The OpenAPI document of ``app``, with no room for fields that it does not name."""
    document: Mapping[str, Any] = _closed(app.openapi())
    return document


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: _closed(value) for key, value in schema.items()}
    if isinstance(parts.get("properties"), dict) and parts.get("type") == "object":
        parts.setdefault("additionalProperties", False)
    return parts
