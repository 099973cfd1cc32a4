"""What a latent worker asks of the server, and what it believes of a worker program."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pandastack.buildbot.machine import (
    Login,
    Machine,
    Wanted,
    end_leftovers,
    find_port,
    plan_input,
    tunnel_url,
)
from pandastack.errors import NotFoundError, PandastackError
from pandastack.sdk import Client
from tests.sdk.wire_server import Reply, WireServer, serving

OWNER = {"buildbot.master": "m", "buildbot.worker": "w"}
WANTED = Wanted("ci", OWNER)
SANDBOX = {"id": "s1", "status": "running"}
GONE = (Reply(404, {"error": "gone"}),) * 2
"""The client asks once more whether it is."""
PROCESS = {"id": "p1", "pid": 1, "cmd": "c", "status": "running"}


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with serving() as server:
        yield server


@pytest.fixture
def wired(wire: WireServer) -> Iterator[Client]:
    with Client(wire.url, "pds_key", max_create_retry_seconds=0) as client:
        yield client


@pytest.mark.parametrize(
    ("printed", "port"), [("", None), ("123", None), ("12345", None), ("123\n", 123), ("65535\nmore", 65535)]
)
def test_the_port_is_the_first_line(printed: str, port: int | None) -> None:
    assert find_port(printed) == port


@pytest.mark.parametrize("printed", ["no\n", "0\n", "65536\n", "-1\n", "\n", "١٢\n", "9" * 100, "9" * 5000 + "\n"])
def test_other_lines_are_refused(printed: str) -> None:
    with pytest.raises(PandastackError, match="instead of a port"):
        find_port(printed)


def test_secrets_are_fresh_and_not_shown() -> None:
    one, other = Login("w"), Login("w")
    assert len({one.password, one.token, other.password, other.token}) == 4
    assert one.password not in repr(one) and one.token not in repr(one)
    told = json.loads(plan_input(WANTED, one))
    assert told == {"name": "w", "password": one.password, "token": one.token, "directory": WANTED.directory}


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("http://localhost:8080", "ws://localhost:8080/v1/sandboxes/s1/tunnel/99"),
        ("https://example.org/below", "wss://example.org/below/v1/sandboxes/s1/tunnel/99"),
    ],
)
def test_the_tunnel_of_a_port(api: str, url: str) -> None:
    assert tunnel_url(api, "s1", 99) == url


def test_a_machine_that_is_not_wanted_any_more_is_deleted_as_soon_as_it_is_there(
    wire: WireServer, wired: Client
) -> None:
    machine = Machine(wired, WANTED, Login("w"))
    assert machine.stop() is False
    wire.will(Reply(201, SANDBOX), Reply(204))
    assert machine.run(lambda *where: pytest.fail("it has begun to work")) == ""
    assert wire.lines == ["POST /v1/runner-pools/ci/sandboxes", "DELETE /v1/sandboxes/s1"]
    assert wire.asked[0].json()["metadata"] == OWNER


def test_a_machine_whose_program_cannot_be_sent_is_deleted(wire: WireServer, wired: Client) -> None:
    wire.will(Reply(201, SANDBOX), GONE[0], *GONE)
    with pytest.raises(NotFoundError):
        Machine(wired, WANTED, Login("w")).run(lambda *where: pytest.fail("it has begun to work"))
    assert wire.lines[-1] == "DELETE /v1/sandboxes/s1"


def test_the_secrets_are_in_the_standard_input_only(wire: WireServer, wired: Client) -> None:
    wire.will(Reply(201, SANDBOX), Reply(200, {"path": "p", "bytes": 1}), Reply(201, PROCESS))
    wire.will(Reply(200, {"bytes": 1}), *GONE, Reply(204))
    login = Login("w")
    with pytest.raises(NotFoundError):
        Machine(wired, WANTED, login).run(lambda *where: None)
    having = [each for each in wire.asked if login.password.encode() in each.body]
    assert [each.path.partition("?")[0] for each in having] == ["/v1/sandboxes/s1/processes/p1/stdin"]


def test_what_a_former_master_left_is_deleted(wire: WireServer, wired: Client) -> None:
    wire.will(Reply(200, [SANDBOX, {**SANDBOX, "id": "s2"}]), Reply(204), *GONE)
    assert end_leftovers(wired, OWNER) == 2
    assert wire.lines[1:] == ["DELETE /v1/sandboxes/s1", *["DELETE /v1/sandboxes/s2"] * 2]
