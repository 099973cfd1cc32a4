"""Results stay readable whatever the API answers, and say what is missing."""

from __future__ import annotations

import json

import httpx
import pytest

from pandastack.errors import BadRequestError, CommandTimeoutError, NotFoundError
from pandastack.mcp import answers
from pandastack.mcp.answers import FILE_BYTES, LIST_ENTRIES, TEXT_CHARACTERS, Answer
from pandastack.sdk.wire.call import Call

pytestmark = pytest.mark.anyio
FILE = Call("GET", "/sandboxes/s/fs", params={"path": "/root/file"}, streamed=True)


async def of(value: object) -> Answer:
    return await answers.of_response(Call("GET", "/x"), httpx.Response(200, json=value))


async def of_file(content: bytes) -> Answer:
    request = httpx.Request("GET", "http://test/v1/x")
    return await answers.of_response(FILE, httpx.Response(200, content=content, request=request))


async def test_what_is_short_is_the_apis_own_body() -> None:
    value = {"id": "a", "metadata": {"ü": "x"}}
    assert await of(value) == Answer(json.dumps(value, ensure_ascii=False))
    assert await answers.of_response(Call("DELETE", "/x"), httpx.Response(204)) == Answer("{}")


async def test_long_output_keeps_its_ends() -> None:
    text = "first\n" + "x" * TEXT_CHARACTERS * 2 + "\nlast"
    answer = await of({"stdout": text, "stderr": "", "exit_code": 1})
    shown = json.loads(answer.text)
    dropped = len(text) - TEXT_CHARACTERS
    assert shown["stdout"].startswith("first\n") and shown["stdout"].endswith("\nlast")
    assert f"[cut: {dropped} characters]" in shown["stdout"]
    assert (shown["stderr"], shown["exit_code"], answer.failed) == ("", 1, False)
    assert answer.notices == (f"stdout cut: {dropped} characters omitted from the middle",)


async def test_output_at_the_limit_is_whole() -> None:
    answer = await of({"stdout": "x" * TEXT_CHARACTERS, "stderr": "", "exit_code": 0})
    assert answer.notices == () and "cut" not in answer.text


async def test_long_lists_lose_entries_and_stay_json() -> None:
    for value in (list(range(LIST_ENTRIES + 5)), {"path": "/", "entries": list(range(LIST_ENTRIES + 5))}):
        answer = await of(value)
        shown = json.loads(answer.text)
        assert len(shown["entries"] if isinstance(shown, dict) else shown) == LIST_ENTRIES
        assert answer.notices == (f"cut: the first {LIST_ENTRIES} of {LIST_ENTRIES + 5} entries",)
    assert (await of(list(range(LIST_ENTRIES)))).notices == ()


async def test_files() -> None:
    assert await of_file("ü\n".encode()) == Answer("ü\n")
    assert await of_file(b"") == Answer("")
    long = await of_file(b"x" + "ü".encode() * FILE_BYTES)
    assert long.text == "x" + "ü" * (FILE_BYTES // 2 - 1), "a character at the cut is not broken"
    (notice,) = long.notices
    assert f"first {FILE_BYTES} of {1 + 2 * FILE_BYTES} bytes" in notice and f"tail -c +{FILE_BYTES + 1}" in notice
    binary = await of_file(b"\x89PNG\xff")
    assert binary.text == "�PNG�" and "not valid UTF-8" in binary.notices[0]
    assert len((await of_file(b"\xff" * 3 * FILE_BYTES)).notices) == 2


def test_errors_say_what_to_do() -> None:
    own = answers.of_error(BadRequestError("no", hint="mine", field="x"))
    assert json.loads(own.text) == {"error": "no", "code": "bad_request", "hint": "mine", "field": "x"}
    assert own.failed
    missing = json.loads(answers.of_error(NotFoundError("sandbox not found: x")).text)
    assert "list_sandboxes" in missing["hint"]
    assert "hint" not in json.loads(answers.of_error(BadRequestError("no")).text)


def test_a_timeout_shows_what_was_written() -> None:
    late = CommandTimeoutError("command timeout after 1s", detail={"stdout": "x" * TEXT_CHARACTERS * 2, "stderr": "e"})
    shown = json.loads(answers.of_error(late).text)
    assert shown["detail"]["stderr"] == "e" and "[cut: " in shown["detail"]["stdout"]
    assert "setsid" in shown["hint"]


async def test_rows_are_cut_by_whole_rows() -> None:
    rows = [[number, "x" * 1000] for number in range(100)]
    answer = await of({"columns": [], "rows": rows, "count": 100})
    shown = json.loads(answer.text)["rows"]
    assert shown == rows[: len(shown)] and 20 < len(shown) < 40
    assert answer.notices == (f"cut: the first {len(shown)} of 100 rows",)


async def test_a_log_of_events_is_text() -> None:
    body = b': open\n\nevent: stdout\ndata: {"text": "a\\n"}\n\nevent: stderr\ndata: {"text": "b"}\n\n'
    body += b"event: ended\ndata: {}\n\n"
    response = httpx.Response(200, content=body, headers={"content-type": "text/event-stream; charset=utf-8"})
    assert await answers.of_response(Call("GET", "/x"), response) == Answer('{"log": "a\\nb"}')
    long = json.dumps({"text": "x" * TEXT_CHARACTERS * 2}).encode()
    response = httpx.Response(
        200, content=b"event: stdout\ndata: " + long + b"\n\n", headers={"content-type": "text/event-stream"}
    )
    assert "omitted from the middle" in (await answers.of_response(Call("GET", "/x"), response)).notices[0]
