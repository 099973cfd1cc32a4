"""The benches of network and gateway measure all that they say; what they find is not judged here."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from pandastack.bench import network
from pandastack.bench.api import Api
from pandastack.bench.network import NAMES, Subject, measure, rows
from pandastack.bench.outside import open_outside
from pandastack.bench.subject import open_floor
from tests.support.installation import Install, Server

ROWS = {
    *(
        "floor",
        "create_none",
        "create_allow",
        "create_deny",
        "create_list",
        "create_in_a_row",
        "creates_in_a_row_per_s",
    ),
    *(f"{way}_{what}" for way in ("nat", "proxy") for what in ("connect", "latency", "upload", "download")),
    *("dns", "dns_again", "network_get", "counted_out", "counted_in", "nat_policy_put", "proxy_policy_put"),
    *("nat_policy_bites_tcp", "nat_policy_bites_udp", "proxy_policy_bites_tcp"),
}


@pytest.mark.root
async def test_all_that_the_network_costs_is_measured(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "IN_A_ROW", 3)
    notes: list[str] = []
    with open_outside(NAMES) as outside:
        place = install("base", PANDASTACK_READY_MACHINES="1", PANDASTACK_RESOLVERS=outside.public)
        with place.serving() as server:
            async with open_floor(place.layout, "base") as (floor, _):
                subject = Subject(Api(server.url, server.token, "base"), floor, outside)
                samples = await anyio.to_thread.run_sync(partial(measure, subject, 2, notes.append))
    found = {row.name: row for row in rows(samples)}
    assert found.keys() == ROWS, notes
    for counted in ("counted_out", "counted_in"):
        assert 1 < found[counted].p50 < 1.3


def test_the_gateway_is_measured_against_the_raw_tunnel(server: Server, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = server.installation.cli("bench", "gateway", "-n", "20", "--json", str(report))
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads(report.read_text())["results"]}
    assert found.keys() == {
        *("tunnel_request", "gateway_request", "gateway_added"),
        *("tunnel_requests_per_s", "gateway_requests_per_s"),
    }
    assert found["gateway_request"]["n"] == 20
    assert min(each["p50"] for name, each in found.items() if name != "gateway_added") > 0
    assert "gateway_requests_per_s" in done.stdout
    with server.http() as http:
        assert [each for each in http.get("/sandboxes").json() if each["metadata"].get("kind") == "bench"] == []
