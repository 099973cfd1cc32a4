"""Bodies of the engine's HTTP interface: strictly read, whoever sends them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from pandastack.engine.http.bodies import create_source, exec_request, fork_specs, sandbox_spec
from pandastack.errors import BadRequestError

ID = str(uuid.uuid4())


def test_an_order() -> None:
    spec = sandbox_spec({"id": ID.upper(), "template": "base"})
    assert (spec.sandbox, spec.hostname, spec.env) == (ID, ID[:8], {})
    spec = sandbox_spec({"id": ID, "template": "base", "hostname": "box", "env": {"A": "1"}, "later": 1})
    assert (spec.hostname, spec.env) == ("box", {"A": "1"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({"id": "../../etc", "template": "base"}, "id"),
        ({"id": 7, "template": "base"}, "id"),
        ({"id": ID, "template": "base", "env": ["A=1"]}, "env"),
        ({"id": ID, "template": "base", "env": {"A": 1}}, "env"),
    ],
)
def test_an_order_that_is_none(body: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError, match=field) as refused:
        sandbox_spec(body)
    assert refused.value.field == field


def test_what_a_sandbox_is_made_of() -> None:
    assert create_source({"template": "base"}) == ("base", None)
    assert create_source({"template": "ignored", "snapshot": ID.upper()}) == (None, ID)


@pytest.mark.parametrize(
    ("body", "field"), [({}, "template"), ({"template": None}, "template"), ({"snapshot": "../x"}, "snapshot")]
)
def test_a_source_that_is_none(body: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError, match=field):
        create_source(body)


def test_children_begin_with_their_parents_environment() -> None:
    other = str(uuid.uuid4())
    specs = fork_specs({"children": [{"id": ID}, {"id": other, "env": {"B": "2"}}]}, {"A": "1", "B": "1"})
    assert [(each.sandbox, each.env) for each in specs] == [(ID, {"A": "1", "B": "1"}), (other, {"A": "1", "B": "2"})]


@pytest.mark.parametrize("children", [None, [], "x", [1], [{"id": "x"}], [{"id": ID}, {"id": ID}]])
def test_children_that_are_none(children: object) -> None:
    with pytest.raises(BadRequestError):
        fork_specs({"children": children}, {})


def test_a_command() -> None:
    request, stdin = exec_request({"cmd": "true"})
    assert (request.cmd, request.timeout_s, request.stdin, stdin) == ("true", None, False, None)
    body = {"cmd": "cat", "timeout_seconds": 1.5, "stdin": "AP8=", "cwd": "/", "user": "nobody", "env": {"A": "1"}}
    request, stdin = exec_request(body)
    assert (request.timeout_s, request.cwd, request.user, request.env) == (1.5, "/", "nobody", {"A": "1"})
    assert (request.stdin, stdin) == (True, b"\x00\xff")
    assert exec_request({"cmd": "cat", "stdin": ""})[1] == b""


@pytest.mark.parametrize("seconds", [0, None, 0.0])
def test_no_time_limit(seconds: float | None) -> None:
    assert exec_request({"cmd": "true", "timeout_seconds": seconds})[0].timeout_s is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "cmd"),
        ({"cmd": ""}, "cmd"),
        ({"cmd": ["ls"]}, "cmd"),
        ({"cmd": "true", "timeout_seconds": -1}, "timeout_seconds"),
        ({"cmd": "true", "timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"cmd": "true", "timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"cmd": "true", "timeout_seconds": "10"}, "timeout_seconds"),
        ({"cmd": "true", "stdin": "no base64!"}, "stdin"),
        ({"cmd": "true", "stdin": 7}, "stdin"),
        ({"cmd": "true", "env": {"A": None}}, "env"),
    ],
)
def test_a_command_that_is_none(body: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError, match=field) as refused:
        exec_request(body)
    assert refused.value.field == field
