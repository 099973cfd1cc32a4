"""A request that cannot be right is refused in one clear sentence, and nothing has happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.installation import Server

CREATE = "/sandboxes"


@pytest.fixture
def untouched(http: httpx.Client, server: Server) -> Iterator[httpx.Client]:
    """The same sandboxes afterwards as before."""
    before = {each["id"] for each in http.get("/sandboxes").json()}
    yield http
    assert {each["id"] for each in http.get("/sandboxes").json()} == before


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"template": "no-such"}, "template"),
        ({"template": "../base"}, "template"),
        ({"template": ""}, "template"),
        ({}, "template"),
        ({"template": 7}, "template"),
        ({"template": "base", "ttl_seconds": -1}, "ttl_seconds"),
        ({"template": "base", "ttl_seconds": 2**40}, "ttl_seconds exceeds tier maximum"),
        ({"template": "base", "ttl_seconds": "soon"}, "ttl_seconds"),
        ({"template": "base", "metadata": {"a": 1}}, "metadata"),
        ({"template": "base", "volumes": [{"name": "no-such"}]}, "volume"),
    ],
)
def test_a_create_that_cannot_be_right(untouched: httpx.Client, body: dict[str, Any], word: str) -> None:
    answer = untouched.post(CREATE, json=body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_snapshot_that_is_not_there(untouched: httpx.Client) -> None:
    answer = untouched.post(CREATE, json={"template": "../ignored", "from_snapshot": "no-such"})
    assert answer.status_code == 404
    assert "snapshot" in answer.json()["error"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'"text"', b'{"template": "base"', b"null"])
def test_a_body_that_is_no_object(untouched: httpx.Client, content: bytes) -> None:
    answer = untouched.post(CREATE, content=content)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_a_body_that_is_too_large(untouched: httpx.Client) -> None:
    body = {"template": "base", "metadata": {"a": "x" * (9 * 1024**2)}}
    assert untouched.post(CREATE, json=body).status_code == 413


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer pds_" + "0" * 32, "Basic dTpw", "Bearer ü"])
def test_a_wrong_token(untouched: httpx.Client, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode()}
    for method, path in (("POST", CREATE), ("GET", CREATE), ("GET", "/templates"), ("GET", "/me")):
        answer = untouched.request(method, path, headers=headers, json={"template": "base"})
        assert (path, answer.status_code) == (path, 401)
        assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("sandbox", ["00000000-0000-4000-8000-000000000000", "no-such", "..%2f..%2fhealthz", "%00"])
def test_a_sandbox_that_does_not_exist(untouched: httpx.Client, sandbox: str) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/exec", {"cmd": "true"}),
        ("POST", "/exec/stream", {"cmd": "true"}),
        ("GET", "/fs?path=/etc/passwd", None),
        ("GET", "/lifecycle", None),
        ("PATCH", "/lifecycle", {"ttl_seconds": 1}),
        ("GET", "/logs", None),
    ):
        answer = untouched.request(method, f"/sandboxes/{sandbox}{path}", json=body)
        assert (method, path, answer.status_code) == (method, path, 404)


@pytest.mark.parametrize("seconds", [-1, 10**12, "long", True])
def test_a_time_limit_that_is_none(untouched: httpx.Client, seconds: object) -> None:
    sandbox = untouched.post(CREATE, json={"template": "base"}).json()["id"]
    try:
        body = {"cmd": "touch /root/ran", "timeout_seconds": seconds}
        answer = untouched.post(f"/sandboxes/{sandbox}/exec", json=body)
        assert answer.status_code == 400
        assert "timeout_seconds" in answer.json()["error"]
        ran = untouched.get(f"/sandboxes/{sandbox}/fs/stat", params={"path": "/root/ran"})
        assert ran.status_code == 404
    finally:
        untouched.delete(f"/sandboxes/{sandbox}")


def test_health_and_version_need_no_token(server: Server) -> None:
    for path in ("/healthz", "/version", "/metrics", "/openapi.json", "/docs"):
        assert (path, httpx.get(f"{server.url}{path}").status_code) == (path, 200)
