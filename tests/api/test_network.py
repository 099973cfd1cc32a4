"""Network policies over HTTP: at create, live, and the log of what a sandbox wanted to reach."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pandastack.api.models.network import SandboxNetwork
from pandastack.contract.network import EgressRecord
from pandastack.errors import ServerError
from pandastack.model.network import OPEN, Egress
from pandastack.model.network_rules import parse_policy
from tests.support.api import UNKNOWN, Api, Serve, refusal
from tests.support.plane import BASE, OUTSIDER, add_workspace

pytestmark = pytest.mark.anyio

LISTED = {"egress": {"allow": ["*.example.org:443"]}}
NO_LIMITS = {"kbytes_per_second": 0, "packets_per_second": 0, "connections_per_second": 0}


def sandbox_id(path: str) -> str:
    return path.rpartition("/")[2]


async def network(api: Api, path: str) -> dict[str, Any]:
    answer = await api.http.get(f"{path}/network")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("given", "egress"),
    [("deny", "deny"), ({"egress": "none"}, "none"), (LISTED, LISTED["egress"]), ({}, "allow"), (None, "allow")],
)
async def test_create_takes_a_policy_and_the_record_has_it(api: Api, given: object, egress: object) -> None:
    answer = await api.http.post("/v1/sandboxes", json={"template": "base", "network": given})
    assert answer.status_code == 201, answer.text
    shown = answer.json()["network"]
    assert (shown["egress"], shown["limits"], shown["bytes_in"]) == (egress, NO_LIMITS, 0)
    assert api.engine.networks[answer.json()["id"]] == (OPEN if given is None else parse_policy(given))
    assert (await network(api, f"/v1/sandboxes/{answer.json()['id']}"))["egress"] == egress


async def test_a_record_from_before_there_were_policies_shows_the_default(api: Api) -> None:
    path = await api.sandbox()
    await api.app.state.plane.registry.change(sandbox_id(path), network=None)
    shown = (await api.http.get(path)).json()["network"]
    assert (shown["egress"], shown["secrets"], shown["limits"]) == ("allow", [], NO_LIMITS)
    assert SandboxNetwork.of(None, (0, 0), made=False) is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("all", "network.egress"),
        ({"egress": {"allow": ["203.0.113.0/33"]}}, "network.egress.allow[0]"),
        ({"egress": {"allow": ["a.example", "b.example:0"]}}, "network.egress.allow[1]"),
        ({"egress": {"allow": ["*.com"]}}, "network.egress.allow[0]"),
        ({"egress": {"allow": ["a.example"], "deny": ["a.example"]}}, "network.egress.allow[0]"),
        ({"egress": "deny", "ports": [80]}, "network.ports"),
        ({"egress": "deny", "services": ["db:1", "sandbox:b:0"]}, "network.services[1]"),
        ({"egress": "deny", "services": ["box:b"]}, "network.services[0]"),
        ({"limits": {"kbytes_per_second": "1"}}, "network.limits.kbytes_per_second"),
        (7, "network"),
    ],
)
async def test_a_bad_policy_is_refused_before_anything_is_made(api: Api, given: object, field: str) -> None:
    body = refusal(await api.http.post("/v1/sandboxes", json={"template": "base", "network": given}), 400)
    assert body["field"] == field
    assert (api.engine.calls, (await api.http.get("/v1/sandboxes")).json()) == ([], [])


async def test_put_replaces_the_policy(api: Api) -> None:
    path = await api.sandbox()
    answer = await api.http.put(f"{path}/network", json={**LISTED, "limits": {"packets_per_second": 100}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["egress"] == LISTED["egress"]
    assert answer.json()["limits"]["packets_per_second"] == 100
    assert (await api.http.put(f"{path}/network", json="deny")).json()["egress"] == "deny"
    shown = await network(api, path)
    assert (shown["egress"], shown["limits"]) == ("deny", NO_LIMITS)
    assert (await api.http.get(path)).json()["network"]["egress"] == "deny"
    events = (await api.http.get(f"{path}/events")).json()["events"]
    assert [each["payload"]["network"]["egress"] for each in events if each["type"] == "sandbox.network_changed"] == [
        LISTED["egress"],
        "deny",
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "egress"),
        ({"limits": {}}, "egress"),
        ({"egress": {"allow": ["x"]}}, "egress.allow[0]"),
        ("open", "egress"),
        ([], None),
    ],
)
async def test_a_bad_put_changes_nothing(api: Api, body: object, field: str | None) -> None:
    path = await api.sandbox()
    assert refusal(await api.http.put(f"{path}/network", json=body), 400).get("field") == field
    assert refusal(await api.http.put(f"{path}/network"), 400)["field"] == "egress"
    assert api.engine.networks[sandbox_id(path)] == OPEN


async def test_a_refused_change_leaves_the_record_as_it_was(api: Api) -> None:
    path = await api.sandbox()
    api.engine.refusals["set_network"] = ServerError("no nft")
    refusal(await api.http.put(f"{path}/network", json="deny"), 500)
    assert (await api.http.get(path)).json()["network"]["egress"] == "allow"


async def test_what_was_denied_is_allowed_in_one_request(api: Api) -> None:
    path = await api.sandbox()
    await api.http.put(f"{path}/network", json="deny")
    first = await api.http.post(f"{path}/network/allow", json={"host": "Pypi.ORG"})
    assert (first.json()["rule"], first.json()["egress"]) == ("pypi.org", {"allow": ["pypi.org"]})
    for body in ({"host": "203.0.113.7", "port": 53, "protocol": "udp"}, {"host": "203.0.113.7:53/udp"}):
        second = await api.http.post(f"{path}/network/allow", json=body)
        assert second.json()["egress"] == {"allow": ["pypi.org", "203.0.113.7:53/udp"]}
    assert (await network(api, path))["egress"] == {"allow": ["pypi.org", "203.0.113.7:53/udp"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "host"),
        ({"host": "x"}, "host"),
        ({"host": "10.0.0.1"}, "host"),
        ({"host": "a.example", "port": 0}, "port"),
        ({"host": "a.example", "port": True}, "port"),
        ({"host": "203.0.113.7", "protocol": "icmp"}, "protocol"),
    ],
)
async def test_what_cannot_be_allowed_names_the_field(api: Api, body: dict[str, Any], field: str) -> None:
    path = await api.sandbox()
    assert refusal(await api.http.post(f"{path}/network/allow", json=body), 400)["field"] == field


async def test_a_rule_that_denies_is_a_conflict(api: Api) -> None:
    path = await api.sandbox()
    await api.http.put(f"{path}/network", json={"egress": {"deny": ["*.example.org"]}})
    refusal(await api.http.post(f"{path}/network/allow", json={"host": "a.example.org"}), 409)
    await api.http.put(f"{path}/network", json="none")
    refusal(await api.http.post(f"{path}/network/allow", json={"host": "a.example.org"}), 409)


async def test_a_hibernated_sandbox_is_changed_without_waking_it(api: Api) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    assert (await api.http.put(f"{path}/network", json="deny")).status_code == 200
    assert (await api.http.get(path)).json()["status"] == "hibernated"
    assert api.engine.networks[sandbox_id(path)].egress is Egress.DENY


async def test_forks_have_the_policy_of_their_parent(api: Api) -> None:
    path = await api.sandbox()
    await api.http.put(f"{path}/network", json=LISTED)
    child = (await api.http.post(f"{path}/fork")).json()["sandbox"]
    assert child["network"]["egress"] == LISTED["egress"]


async def test_the_record_outlives_the_server(serve: Serve) -> None:
    from tests.cluster.scripted_engine import ScriptedEngine

    engine = ScriptedEngine()
    async with serve(engine) as api:
        path = await api.sandbox()
        await api.http.put(f"{path}/network", json=LISTED)
    async with serve(engine, api.token) as api:
        assert (await api.http.get(path)).json()["network"]["egress"] == LISTED["egress"]


async def test_a_check_tells_what_would_be_decided(api: Api) -> None:
    path = await api.sandbox()
    asked = f"{path}/network/check"
    assert (await api.http.get(asked, params={"host": "a.example", "port": 443})).json()["allowed"] is True
    await api.http.put(f"{path}/network", json="deny")
    found = (await api.http.get(asked, params={"host": "A.example.", "port": 443})).json()
    assert (found["allowed"], found["how_to_allow"]) == (False, "a.example:443")
    for params, field in (
        ({"host": "a.example"}, "port"),
        ({"host": "*.a.example", "port": 1}, "host"),
        ({"host": "203.0.113.0/24", "port": 1}, "host"),
        ({"host": "127.1", "port": 1}, "host"),
        ({"port": 1}, "host"),
        ({"host": "a.example", "port": "x"}, "port"),
    ):
        assert refusal(await api.http.get(asked, params=params), 400)["field"] == field


def record(seq: int, name: str, allowed: bool = False) -> EgressRecord:
    return EgressRecord(seq, 1.5, allowed, "dns", name, "", 0, "default", "no rule allows it")


async def test_the_egress_log_and_its_stream(api: Api) -> None:
    path = await api.sandbox()
    assert (await api.http.get(f"{path}/egress/log")).json() == {"records": [], "forgotten": False}
    api.engine.egress[sandbox_id(path)] = [record(1, "a.example"), record(2, "b.example")]
    found = (await api.http.get(f"{path}/egress/log?since=1")).json()["records"]
    assert [(each["seq"], each["name"], each["allowed"]) for each in found] == [(2, "b.example", False)]
    assert found[0]["time"] == "1970-01-01T00:00:01.500Z"
    text = (await api.http.get(f"{path}/egress/log?follow=1")).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert [each["name"] for each in events] == ["a.example", "b.example"]
    assert text.count("event: decision") == 2
    for since in ("-1", "x", str(2**70)):
        assert refusal(await api.http.get(f"{path}/egress/log?since={since}"), 400)["field"] == "since"


async def test_metrics_have_the_bytes_of_all(api: Api) -> None:
    path = await api.sandbox()
    api.engine.traffic[sandbox_id(path)] = (7, 3)
    assert (await network(api, path))["bytes_in"] == 7
    from pandastack.contract.network import Traffic

    api.app.state.plane.traffic.take("x", (Traffic("s", 70, 30),))
    text = (await api.http.get("/metrics")).text
    assert 'pandastack_network_bytes_total{direction="in"} 70.0' in text


async def test_of_an_unknown_sandbox_nothing_is_told(api: Api) -> None:
    refusal(await api.http.get(f"{UNKNOWN}/network"), 404)
    refusal(await api.http.put(f"{UNKNOWN}/network", json="deny"), 404)
    refusal(await api.http.post(f"{UNKNOWN}/network/allow", json={"host": "a.example"}), 404)
    refusal(await api.http.get(f"{UNKNOWN}/network/check?host=a.example&port=1"), 404)
    refusal(await api.http.get(f"{UNKNOWN}/egress/log"), 404)
    refusal(await api.http.get(f"{UNKNOWN}/egress/log?follow=1"), 404)


async def services_of(api: Api, path: str) -> list[str]:
    return list((await network(api, path))["services"])


async def other_workspace(api: Api) -> str:
    """A sandbox of another workspace."""
    await add_workspace(api.app.state.plane, OUTSIDER.workspace)
    record = await api.app.state.plane.sandboxes.create(OUTSIDER, BASE)
    return str(record.id)


async def test_services_are_listed_at_create_and_live(api: Api) -> None:
    target = sandbox_id(await api.sandbox())
    given = {"egress": "deny", "services": [f"sandbox:{target}:8000", "db:none-yet"]}
    made = await api.http.post("/v1/sandboxes", json={"template": "base", "network": given})
    assert (made.status_code, made.json()["network"]["services"]) == (201, given["services"])
    path = f"/v1/sandboxes/{made.json()['id']}"
    assert api.engine.networks[made.json()["id"]].services == tuple(given["services"])
    answer = await api.http.put(f"{path}/network", json={"egress": "deny", "services": [f"sandbox:{target}"]})
    assert answer.json()["services"] == await services_of(api, path) == [f"sandbox:{target}"]
    answer = await api.http.post(f"{path}/network/allow", json={"host": "app:shop"})
    assert (answer.json()["rule"], answer.json()["services"]) == ("app:shop", [f"sandbox:{target}", "app:shop"])
    assert answer.json()["egress"] == "deny"


async def test_unknown_and_foreign_sandboxes_are_refused_alike(api: Api) -> None:
    foreign, unknown, path = await other_workspace(api), "0" * 36, await api.sandbox()
    before = len(api.engine.calls)
    for where, send in {
        "network.services[1]": lambda services: api.http.post(
            "/v1/sandboxes", json={"template": "base", "network": {"services": services}}
        ),
        "services[1]": lambda services: api.http.put(f"{path}/network", json={"egress": "deny", "services": services}),
        "host": lambda services: api.http.post(f"{path}/network/allow", json={"host": services[1]}),
    }.items():
        texts = []
        for id in (foreign, unknown):
            body = refusal(await send([f"sandbox:{sandbox_id(path)}", f"sandbox:{id}:8000"]), 400)
            assert body["field"] == where
            texts.append(body["error"].replace(id, "ID"))
        assert texts[0] == texts[1] and "there is no sandbox:ID:8000 in this workspace" in texts[0]
    assert api.engine.networks[sandbox_id(path)] == OPEN
    assert [each for each in api.engine.calls[before:] if "create" in str(each)] == []


async def test_a_service_that_is_gone_hinders_no_other_change(api: Api) -> None:
    target, path = await api.sandbox(), await api.sandbox()
    services = [f"sandbox:{sandbox_id(target)}"]
    await api.http.put(f"{path}/network", json={"egress": "deny", "services": services})
    assert (await api.http.delete(target)).is_success
    assert (await api.http.put(f"{path}/network", json={"egress": "allow", "services": services})).status_code == 200
    assert (await api.http.post(f"{path}/network/allow", json={"host": "a.example"})).status_code == 200
    body = {"egress": "allow", "services": [f"{services[0]}:80"]}
    assert refusal(await api.http.put(f"{path}/network", json=body), 400)["field"] == "services[0]"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"host": "db:shop", "port": 80}, "port"),
        ({"host": "db:shop", "protocol": "tcp"}, "protocol"),
        ({"host": "db:shop:80"}, "host"),
        ({"host": "sandbox:x:99999"}, "host"),
    ],
)
async def test_a_service_that_cannot_be_allowed(api: Api, body: dict[str, Any], field: str) -> None:
    path = await api.sandbox()
    assert refusal(await api.http.post(f"{path}/network/allow", json=body), 400)["field"] == field


async def test_the_name_of_a_service_is_checked_as_it_is(api: Api) -> None:
    path = await api.sandbox()
    host = "8000-B.sandbox.PandaStack.internal."
    assert (await api.http.get(f"{path}/network/check", params={"host": host, "port": 80})).status_code == 200
    assert api.engine.checked[-1].host == "8000-b.sandbox.pandastack.internal"
    assert refusal(await api.http.get(f"{path}/network/check", params={"host": host}), 400)["field"] == "port"
    params = {"host": host, "port": 80, "protocol": "udp"}
    assert refusal(await api.http.get(f"{path}/network/check", params=params), 400)["field"] == "protocol"
