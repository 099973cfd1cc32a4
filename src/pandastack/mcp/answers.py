"""Results of tools: the API's answers, cut where they are longer than a model should read. Every cut is announced."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from pandastack.errors import ConnectionError, PandastackError, to_body
from pandastack.sdk._sse import EventDecoder
from pandastack.sdk.wire.call import Call
from pandastack.sdk.wire.coding import mapped_transport_errors

TEXT_CHARACTERS = 32 * 1024
"""How much of one output of a command is shown: a quarter from its beginning, the rest from its end."""
FILE_BYTES = 64 * 1024
LIST_ENTRIES = 500

_HINTS = {
    "not_found": "list_sandboxes lists the sandboxes, list_dir the files of one",
    "command_timeout": "give it more time (at most 300 s), or start it in the background: "
    "setsid COMMAND </dev/null >/tmp/log 2>&1 &",
    "no_capacity": "delete a sandbox that is no longer needed, or try again later",
    "storage_full": "delete sandboxes or files that are no longer needed",
}
"""Hints for a model about errors that have none of their own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` is the API's answer; ``notices`` describe what was cut from it."""

    text: str
    notices: tuple[str, ...] = ()
    failed: bool = False


async def of_response(call: Call, response: httpx.Response) -> Answer:
    """The result of a call that succeeded."""
    if call.streamed:
        return await _of_file(call, response)
    if not response.content:
        return Answer("{}")
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return _of_events(response.content)
    value = response.json()
    if isinstance(value, dict) and "stdout" in value:
        return _of_command(value)
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        return _of_rows(value)
    return _of_listing(value)


def of_error(error: PandastackError) -> Answer:
    """The result of a call that failed: the body of the API's error, with a hint and a command's output so far."""
    body = to_body(error)
    body.setdefault("hint", _HINTS.get(error.code, "")) or body.pop("hint")
    detail = body.get("detail")
    if isinstance(detail, Mapping):
        body["detail"] = {key: _cut(value)[0] if isinstance(value, str) else value for key, value in detail.items()}
    return Answer(_json(body), failed=True)


async def _of_file(call: Call, response: httpx.Response) -> Answer:
    data, more = b"", False
    try:
        with mapped_transport_errors(str(response.url.copy_with(query=None))):
            async for chunk in response.aiter_bytes():
                data += chunk
                if more := len(data) > FILE_BYTES:
                    break
    finally:
        await response.aclose()
    declared = response.headers.get("content-length", "")
    if not more and declared.isdecimal() and int(declared) != len(data):
        raise ConnectionError("the connection broke before the end of the file")
    # An incomplete character at the cut is not the file's fault.
    text = data[:FILE_BYTES].decode("utf-8", "ignore" if more else "replace")
    notices = []
    if more:
        total = f" of {declared}" if declared else ""
        rest = f"tail -c +{FILE_BYTES + 1} {shlex.quote(str(call.params['path']))}"
        notices.append(f"cut: the first {FILE_BYTES}{total} bytes; the rest: {rest}")
    if not _is_utf8(data[:FILE_BYTES], more):
        notices.append("not valid UTF-8: some bytes are omitted or replaced; `base64` shows all of them")
    return Answer(text, tuple(notices))


def _is_utf8(data: bytes, cut: bool) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return cut and len(data) - error.start < 4 and error.reason == "unexpected end of data"
    return True


def _of_command(value: dict[str, Any]) -> Answer:
    notices = []
    for name in ("stdout", "stderr"):
        value[name], dropped = _cut(str(value[name]))
        if dropped:
            notices.append(f"{name} cut: {dropped} characters omitted from the middle")
    return Answer(_json(value), tuple(notices))


def _of_events(content: bytes) -> Answer:
    """What was printed, of a log that is sent as events. What else they tell is the answer of another tool."""
    events = EventDecoder().feed(content)
    printed = [str(json.loads(each.data)["text"]) for each in events if each.name in ("stdout", "stderr")]
    log, dropped = _cut("".join(printed))
    return Answer(_json({"log": log}), (f"log cut: {dropped} characters omitted from the middle",) if dropped else ())


def _of_listing(value: Any) -> Answer:
    """Cut a list by whole entries, so that the rest is still JSON."""
    name = "records" if isinstance(value, dict) and "records" in value else "entries"
    entries = value.get(name) if isinstance(value, dict) else value
    if not isinstance(entries, list) or len(entries) <= LIST_ENTRIES:
        return Answer(_json(value))
    kept = entries[:LIST_ENTRIES]
    shown = {**value, name: kept} if isinstance(value, dict) else kept
    return Answer(_json(shown), (f"cut: the first {LIST_ENTRIES} of {len(entries)} entries",))


def _of_rows(value: dict[str, Any]) -> Answer:
    """Cut the rows of a table by whole rows."""
    rows, kept, size = value["rows"], list[Any](), 0
    for row in rows:
        size += len(_json(row))
        if size > TEXT_CHARACTERS:
            break
        kept.append(row)
    notices = (f"cut: the first {len(kept)} of {len(rows)} rows",) if len(kept) < len(rows) else ()
    return Answer(_json({**value, "rows": kept}), notices)


def _cut(text: str) -> tuple[str, int]:
    """``text``, without its middle if it is too long, and the number of characters dropped."""
    dropped = len(text) - TEXT_CHARACTERS
    if dropped <= 0:
        return text, 0
    head = TEXT_CHARACTERS // 4
    return f"{text[:head]}\n[cut: {dropped} characters]\n{text[head + dropped :]}", dropped


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
