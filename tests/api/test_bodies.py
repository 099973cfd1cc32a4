"""Bodies of all kinds: odd types, wrong shapes, too large, made by a fuzzer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pandastack.api.routes.terminals import _event
from pandastack.api.sockets import parsed
from pandastack.errors import BadRequestError
from tests.support.api import SETTINGS, Api

pytestmark = pytest.mark.anyio

NULLS = {"template": "base", "ttl_seconds": None, "persistent": None, "metadata": None, "volumes": None}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["template", "ttl_seconds", "persistent", "metadata", "volumes", "cmd", "timeout_seconds", "name"]
)
BODIES = (
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, JSON, max_size=4).map(lambda value: json.dumps(value).encode())
)


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "nonsense", None])
@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
async def test_an_empty_body_of_any_type_is_an_empty_object(api: Api, kind: str | None, body: bytes) -> None:
    headers = {"content-type": kind} if kind else {}
    path = await api.sandbox() + "/lifecycle"
    assert (await api.http.patch(path, content=body, headers=headers)).status_code == 200
    response = await api.http.post("/v1/me/tokens", content=body, headers=headers)
    assert (response.status_code, response.json()["label"]) == (201, "")


async def test_nulls_count_as_absent(api: Api) -> None:
    assert (await api.http.post("/v1/sandboxes", json=NULLS)).status_code == 201


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"\xff\xfe", b'{"cmd": "\\ud800"}', b"cmd=ls", b"{} {}"])
async def test_invalid_json_is_one_clear_sentence(api: Api, body: bytes) -> None:
    response = await api.http.post(await api.sandbox() + "/exec", content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("the body is not valid JSON: ")
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/fs/mkdir", {"path": 7}, "path"),
        ("/fs/chmod", {"path": [], "mode": "755"}, "path"),
        ("/ports", {"port": 80, "label": {"path": 1}}, "label"),
    ],
)
async def test_a_field_that_is_called_like_a_part_of_the_request_is_named(
    api: Api, route: str, body: object, field: str
) -> None:
    response = await api.http.post(await api.sandbox() + route, json=body)
    assert (response.status_code, response.json().get("field")) == (400, field), response.text


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"5"])
async def test_json_that_is_not_an_object_is_refused(api: Api, body: bytes) -> None:
    response = await api.http.post("/v1/sandboxes", content=body)
    assert response.status_code == 400
    assert response.json()["error"] == "the body must be a JSON object"


@pytest.mark.parametrize("declared", [True, False])
async def test_bodies_over_the_limit_are_refused_while_they_come(api: Api, declared: bool) -> None:
    sandbox = await api.sandbox()
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while pulled < 100 * SETTINGS.max_file_bytes:
            pulled += 16384
            yield b"x" * 16384

    for method, path, limit in (
        ("POST", f"{sandbox}/exec", SETTINGS.max_json_bytes),
        ("PUT", f"{sandbox}/fs?path=/big", SETTINGS.max_file_bytes),
    ):
        pulled = 0
        content: Any = b"x" * (limit + 1) if declared else endless()
        response = await api.http.request(method, path, content=content)
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"
        assert pulled <= limit + 2 * 16384
    assert "/big" not in api.engine.files
    if declared:
        assert api.engine.received == []


async def test_a_body_at_the_limit_passes(api: Api) -> None:
    path = await api.sandbox() + "/fs?path=/big"
    response = await api.http.put(path, content=b"x" * SETTINGS.max_file_bytes)
    assert response.json() == {"path": "/big", "bytes": SETTINGS.max_file_bytes}


async def _check_any_body(api: Api, sandbox: str, body: bytes) -> None:
    for method, path in (
        ("POST", "/v1/sandboxes"),
        ("POST", f"{sandbox}/exec"),
        ("POST", f"{sandbox}/exec/stream"),
        ("PATCH", f"{sandbox}/lifecycle"),
        ("POST", "/v1/me/tokens"),
    ):
        response = await api.http.request(method, path, content=body)
        assert response.status_code in (200, 201, 400), (path, response.status_code, response.text)
        if response.status_code == 400:
            answer = response.json()
            assert isinstance(answer["error"], str) and answer["error"]
            assert answer["code"] == "bad_request"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
async def test_any_body_is_answered_in_the_right_shape(api: Api, body: bytes) -> None:
    await _check_any_body(api, await api.sandbox(), body)


DEEP = b"[" * 200_000
DEEP_BODY = DEEP[:50_000]
HUGE = b"9" * 5000


@pytest.mark.parametrize(
    "value", [DEEP_BODY, HUGE, b"-" + HUGE, b"1e999", b"NaN"], ids=["deep", "huge", "low", "inf", "nan"]
)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/sandboxes", "ttl_seconds"),
        ("/v1/sandboxes", "checkpoint_every"),
        ("/v1/sandboxes", "metadata"),
        ("{}/exec", "timeout_seconds"),
        ("{}/processes", "timeout_seconds"),
        ("{}/processes", "rows"),
        ("{}/processes/1/signal", "signal"),
        ("{}/processes/1/resize", "rows"),
        ("{}/processes/1/wait", "timeout_seconds"),
        ("{}/fork", "count"),
        ("{}/repl/sessions/1/run", "timeout_ms"),
        ("/v1/me/tokens", "expires_in_days"),
    ],
)
async def test_no_number_and_no_depth_is_too_much(api: Api, path: str, field: str, value: bytes) -> None:
    body = b'{"template": "base", "cmd": "x", "code": "1", "pty": true, "cols": 1, "%s": %s}' % (field.encode(), value)
    response = await api.http.post(path.format(await api.sandbox()), content=body)
    assert response.status_code == 400, response.text
    assert len(response.content) < 1000


@pytest.mark.parametrize("digits", ["9" * 5000, "\N{ARABIC-INDIC DIGIT THREE}"])
async def test_a_lifetime_in_metadata_that_is_no_number_is_ignored(api: Api, digits: str) -> None:
    path = await api.sandbox()
    body = {"count": 1, "metadata": {"explore_ttl": digits}}
    tree = (await api.http.post(f"{path}/fork-tree", json=body)).json()
    assert tree["children"][0]["ttl_seconds"] == 300


@pytest.mark.parametrize("name", ["range", "content-length"])
async def test_no_number_in_a_header_is_too_much(api: Api, name: str) -> None:
    path = await api.sandbox() + "/fs?path=/etc/hostname"
    value = "9" * 5000
    if name == "range":
        assert (await api.http.get(path, headers={name: f"bytes=0-{value}"})).content == b"guest\n"
    else:
        assert (await api.http.put(path, headers={name: value}, content=b"x")).status_code == 413


@pytest.mark.parametrize("frame", [DEEP.decode(), HUGE.decode(), "[]", "{", '{"a": ' + HUGE.decode() + "}"])
def test_a_frame_that_makes_no_sense_is_refused(frame: str) -> None:
    with pytest.raises(BadRequestError, match="bad json"):
        parsed(frame)


@pytest.mark.parametrize("size", [10**400, -1, 0, 65536, 1e999, "NaN", None, True])
def test_a_size_that_no_terminal_has_is_ignored(size: Any) -> None:
    assert _event(json.dumps({"resize": {"rows": size, "cols": size}})) in (None, (1, 1))
