"""Shared by the WebSocket routes: refusals before the upgrade, and text frames that are JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.api.errors import error_response
from pandastack.errors import BadRequestError, PandastackError

NORMAL, GOING_AWAY, REFUSED = 1000, 1001, 1008


async def refuse(websocket: WebSocket, error: PandastackError) -> None:
    """Answer the upgrade request with the error's own status."""
    await websocket.send_denial_response(error_response(error))


async def send_json(websocket: WebSocket, value: Mapping[str, Any]) -> None:
    """Send one text frame."""
    await websocket.send_text(json.dumps(value, ensure_ascii=True))


async def receive(websocket: WebSocket) -> bytes | str:
    """The next frame; raises :class:`WebSocketDisconnect`."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
    text, data = message.get("text"), message.get("bytes")
    return text if text is not None else data if data is not None else b""


def parsed(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a frame; raises :class:`BadRequestError`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number with too many digits raises the former
        raise BadRequestError(f"bad json: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise BadRequestError("bad json: must be an object")
    return value
