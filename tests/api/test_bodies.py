"""Bodies of all kinds: odd types, wrong shapes, too large, made by a fuzzer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
async def test_any_body_is_answered_in_the_right_shape(api: Api, body: bytes) -> None:
    await _check_any_body(api, await api.sandbox(), body)
