"""What the commands about networks send and print."""

from __future__ import annotations

import json

import pytest

from tests.sdk.wire_server import RECORD, Reply, WireServer
from tests.support.cli import Cli

HERE = "/v1/sandboxes/0b5f"
FOUND = Reply(200, RECORD)
NETWORK = {
    "egress": {"allow": ["pypi.org"]},
    "services": ["db:1"],
    "secrets": [],
    "limits": {"kbytes_per_second": 10, "packets_per_second": 0, "connections_per_second": 0},
    "bytes_in": 7,
    "bytes_out": 3,
}
DENIED = {
    "seq": 5,
    "time": "now",
    "allowed": False,
    "via": "dns",
    "name": "a\x1b.example",
    "address": "",
    "port": 443,
    "rule": "default",
    "reason": "no rule",
    "dropped": 0,
}
ALLOWED = DENIED | {"seq": 6, "allowed": True, "name": "pypi.org", "reason": ""}


def test_get_shows_what_there_is(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, NETWORK), FOUND, Reply(200, NETWORK))
    shown = dict(line.split(maxsplit=1) for line in cli("network", "get", "0b5f").stdout.splitlines())
    assert shown == {
        "egress": "list",
        "allow": "pypi.org",
        "services": "db:1",
        "bytes_in": "7",
        "bytes_out": "3",
        "limits": "kbytes_per_second=10",
    }
    assert json.loads(cli("network", "get", "0b5f", "--json").stdout) == NETWORK


@pytest.mark.parametrize(
    ("arguments", "egress", "limit"),
    [
        (["deny"], "deny", 10),
        (["--allow", "a.example", "--allow", "b.example:1", "--deny", "c.example"], None, 10),
        (["--kbytes-per-second", "0"], NETWORK["egress"], 0),
    ],
)
def test_set_keeps_what_is_not_given(
    cli: Cli, wire: WireServer, arguments: list[str], egress: object, limit: int
) -> None:
    wire.will(FOUND, Reply(200, NETWORK), Reply(200, NETWORK))
    assert cli("network", "set", "0b5f", *arguments).exit_code == 0
    assert wire.lines[-1] == f"PUT {HERE}/network"
    sent = wire.asked[-1].json()
    assert sent["egress"] == (egress or {"allow": ["a.example", "b.example:1"], "deny": ["c.example"]})
    assert (sent["services"], sent["limits"]["kbytes_per_second"]) == (["db:1"], limit)
    assert "bytes_in" not in sent


@pytest.mark.parametrize(
    ("arguments", "services"),
    [(["--service", "sandbox:b:80", "--service", "db:2"], ["sandbox:b:80", "db:2"]), (["--no-services"], [])],
)
def test_set_replaces_services(cli: Cli, wire: WireServer, arguments: list[str], services: list[str]) -> None:
    wire.will(FOUND, Reply(200, NETWORK), Reply(200, NETWORK))
    assert cli("network", "set", "0b5f", *arguments).exit_code == 0
    sent = wire.asked[-1].json()
    assert (sent["services"], sent["egress"]) == (services, NETWORK["egress"])


def test_allow_is_one_command(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(200, NETWORK | {"rule": "a.example:443"}))
    assert cli("network", "allow", "0b5f", "a.example:443").stdout == "allowed a.example:443\n"
    assert wire.lines[-1] == f"POST {HERE}/network/allow"
    assert wire.asked[-1].json() == {"host": "a.example:443"}


def test_check_exits_by_the_decision(cli: Cli, wire: WireServer) -> None:
    denied = {"allowed": False, "rule": "default", "how_to_allow": "a.example:53", "reason": "no rule"}
    wire.will(FOUND, Reply(200, denied), FOUND, Reply(200, denied | {"allowed": True, "how_to_allow": ""}))
    result = cli("network", "check", "0b5f", "a.example:53", "--udp")
    assert (result.exit_code, result.stderr) == (1, "hint: pandastack network allow 0b5f a.example:53\n")
    assert wire.lines[-1] == f"GET {HERE}/network/check?host=a.example&port=53&protocol=udp"
    assert cli("network", "check", "0b5f", "a.example:53").exit_code == 0


def test_the_log_is_a_table_or_a_stream(cli: Cli, wire: WireServer) -> None:
    answer = Reply(200, {"records": [DENIED, ALLOWED], "forgotten": False})
    wire.will(FOUND, answer, FOUND, answer)
    rows = cli("network", "log", "0b5f", "--since", "4").stdout.splitlines()
    assert wire.lines[-1] == f"GET {HERE}/egress/log?since=4"
    assert rows[1].split()[:4] == ["5", "now", "denied", "dns"] and "a\\x1b.example:443" in rows[1]
    assert [each["seq"] for each in json.loads(cli("network", "log", "0b5f", "--denied", "--json").stdout)] == [5]
    events = "".join(f"event: decision\ndata: {json.dumps(each)}\n\n" for each in (DENIED, ALLOWED))
    wire.will(FOUND, Reply(200, events.encode(), {"content-type": "text/event-stream"}))
    assert len(cli("network", "log", "0b5f", "--follow", "--denied").stdout.splitlines()) == 1


def test_create_takes_a_word_or_rules(cli: Cli, wire: WireServer) -> None:
    wire.will(*[Reply(201, RECORD)] * 4)
    cli("sandbox", "create", "--network", "none")
    cli("sandbox", "create", "--allow", "a.example", "--deny", "b.example")
    cli("sandbox", "create")
    cli("sandbox", "create", "--network", "deny", "--service", "sandbox:b:80")
    assert [each.json().get("network") for each in wire.asked] == [
        {"egress": "none"},
        {"egress": {"allow": ["a.example"], "deny": ["b.example"]}},
        None,
        {"egress": "deny", "services": ["sandbox:b:80"]},
    ]
    assert cli("sandbox", "create", "--service", "sandbox:b:80").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["set", "0b5f"],
        ["set", "0b5f", "all"],
        ["set", "0b5f", "--service", "db:1", "--no-services"],
        ["set", "0b5f", "deny", "--allow", "a.example"],
        ["check", "0b5f", "a.example"],
        ["log", "0b5f", "--since", "-1"],
    ],
)
def test_wrong_usage_sends_nothing(cli: Cli, wire: WireServer, arguments: list[str]) -> None:
    assert cli("network", *arguments).exit_code == 2
    assert wire.asked == []
