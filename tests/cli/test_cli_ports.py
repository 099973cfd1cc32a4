"""What the commands about ports print, and the arguments that `up` and `port-forward` refuse."""

from __future__ import annotations

import json

import pytest

from pandastack.cli.sandbox.ports import _ports
from pandastack.cli.server.serve import _port
from pandastack.errors import BadRequestError
from tests.sdk.wire_server import RECORD, Reply, WireServer
from tests.support.cli import Cli

HERE = "/v1/sandboxes/0b5f"
FOUND = Reply(200, RECORD)
PORT = {"port": 8000, "label": "web", "listening": True, "source": "user"}
LINK = {"url": "http://a/v1/p/pvt_1/", "token": "pvt_1", "port": 80, "expires_at": "soon"}


def test_ports(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, [PORT]), FOUND, Reply(200, [PORT]))
    lines = cli("sandbox", "ports", "0b5f").stdout.splitlines()
    assert lines[1].split()[:3] == ["8000", "yes", "web"]
    (shown,) = json.loads(cli("sandbox", "ports", "0b5f", "--json").stdout)
    assert shown["preview_url"].startswith("http://8000-0b5f.localhost:")


def test_a_link(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, LINK))
    assert cli("sandbox", "preview-url", "0b5f", "80", "--ttl", "60").stdout == "http://a/v1/p/pvt_1/\n"
    assert wire.asked[1].json()["ttl_seconds"] == 60


@pytest.mark.parametrize(("text", "ports"), [("80", (80, 80)), ("80:0", (80, 0)), ("5432:15432", (5432, 15432))])
def test_ports_to_forward(text: str, ports: tuple[int, int]) -> None:
    assert _ports(text) == ports


@pytest.mark.parametrize("text", ["", "0", "x", "80:", ":80", "80:81:82", "99999", "80:99999", "²"])
def test_no_ports_to_forward(text: str) -> None:
    with pytest.raises(BadRequestError):
        _ports(text)


@pytest.mark.parametrize(
    ("text", "api", "port"),
    [(None, 8080, 8081), (None, 0, 0), (None, 65535, 0), ("none", 8080, None), ("0", 8080, 0), ("9000", 8080, 9000)],
)
def test_the_port_of_the_gateway(text: str | None, api: int, port: int | None) -> None:
    assert _port(text, api, 1, "--gateway-port") == port


@pytest.mark.parametrize("text", ["x", "-1", "65536", ""])
def test_no_port_of_a_door(text: str) -> None:
    with pytest.raises(BadRequestError, match="ssh-port"):
        _port(text, 8080, 2, "--ssh-port")
