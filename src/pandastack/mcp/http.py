"""The protocol over HTTP, without sessions: one POST, one JSON answer (the protocol's "streamable HTTP").

Simple clients are accepted too: any ``Accept`` and content type, an ``initialize`` without parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST, PARSE_ERROR
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from pandastack.mcp.faces import Face

_HEADERS = {b"accept": b"application/json, text/event-stream", b"content-type": b"application/json"}
_NOBODY = {"name": "unknown", "version": ""}


async def answer(face: Face, server: Server[Any], body: bytes, scope: Scope, send: Send) -> None:
    """Answer one POST whose body has been read."""
    refused = None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        message, refused = {}, _refusal(PARSE_ERROR, "the body is not valid JSON")
    if isinstance(message, list):
        refused = _refusal(INVALID_REQUEST, "batches are not supported: send one message at a time")
    elif _is_notification(message):
        refused = Response(status_code=face.noted)  # there is no session that it could refer to
    if refused is not None:
        await refused(scope, _replay(b""), send)
        return
    manager = StreamableHTTPSessionManager(server, stateless=True, json_response=True)
    headers = [pair for pair in scope["headers"] if pair[0] not in _HEADERS]
    inner = {**scope, "method": "POST", "headers": [*headers, *_HEADERS.items()]}
    async with manager.run():
        await manager.handle_request(inner, _replay(json.dumps(_completed(message, face)).encode()), send)


def _is_notification(message: Any) -> bool:
    return isinstance(message, Mapping) and "id" not in message and "method" in message


def _completed(message: Any, face: Face) -> Any:
    """An ``initialize`` with every field that the protocol requires."""
    if not isinstance(message, dict) or message.get("method") != "initialize":
        return message
    given = message.get("params")
    defaults = {"protocolVersion": face.protocol, "capabilities": {}, "clientInfo": _NOBODY}
    return {**message, "params": {**defaults, **(given if isinstance(given, Mapping) else {})}}


def _refusal(code: int, message: str) -> Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return Response(json.dumps(body), 400, media_type="application/json")


def _replay(body: bytes) -> Receive:
    """A source of the request's body; a disconnected caller is noticed elsewhere."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.request", "body": b"", "more_body": False}

    return receive
