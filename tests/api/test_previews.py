"""Ports and tokens over the API, and what the gateway is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from pandastack.api.internal.app import create_internal_app
from pandastack.cluster import StreamingASGITransport
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, ExecResult, Output, Record
from pandastack.model.listening import listening_ports
from pandastack.model.previews import Visibility, WakePolicy
from tests.support.api import UNKNOWN, Api, refusal

pytestmark = pytest.mark.anyio

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
TABLE = f"""{HEAD}
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0F02000A:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   4: 0100007F:C000 0100007F:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
{HEAD}
   0: 00000000000000000000000001000000:1388 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1
   1: 00000000000000000000000000000000:1389 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1
   2: 0000000000000000FFFF00000100007F:138A 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1
   3: B80D01200000000000000000010000FE:138B 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1
nonsense
   9: zz:zz 0 0A
"""


async def shows_table(_spec: ExecSpec) -> AsyncIterator[Record | bytes]:
    yield Output(STDOUT, TABLE.encode())
    yield ExecResult(0, None, 1000)


@asynccontextmanager
async def internal_of(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    app = create_internal_app()
    app.state.plane = api.app.state.plane
    transport = StreamingASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
        yield http


async def route(http: httpx.AsyncClient, **wanted: Any) -> httpx.Response:
    return await http.post("/internal/route", json={"sandbox": None, "port": None, "token": None, **wanted})


def test_what_listens_on_the_loopback() -> None:
    assert listening_ports(TABLE.splitlines()) == {22, 8080, 3000, 5000, 5001, 5002}


async def test_ports(api: Api) -> None:
    path = await api.sandbox()
    api.engine.exec_records = shows_table
    made = await api.http.post(f"{path}/ports", json={"port": 9000, "label": "shop"})
    assert (made.status_code, made.json()["label"], made.json()["listening"]) == (201, "shop", False)
    assert (await api.http.post(f"{path}/ports", json={"port": 8080})).json()["label"] == "service"
    listed = (await api.http.get(f"{path}/ports")).json()
    assert [(each["port"], each["source"], each["listening"]) for each in listed] == [
        (3000, "detected", True),
        (5000, "detected", True),
        (5001, "detected", True),
        (5002, "detected", True),
        (8080, "user", True),
        (9000, "user", False),
    ]
    assert listed[0]["proxy_url"] == f"http://api{path}/proxy/3000/"
    assert (await api.http.delete(f"{path}/ports/9000")).status_code == 204
    assert 9000 not in [each["port"] for each in (await api.http.get(f"{path}/ports")).json()]


async def test_looking_wakes_nobody(api: Api) -> None:
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    assert (await api.http.get(f"{path}/ports")).json() == []
    assert (await api.http.get(path)).json()["status"] == "hibernated"


@pytest.mark.parametrize("body", [{}, {"port": 0}, {"port": 65536}, {"port": 22}, {"port": "x"}, {"port": True}])
async def test_bad_ports(api: Api, body: dict[str, Any]) -> None:
    path = await api.sandbox()
    assert refusal(await api.http.post(f"{path}/ports", json=body), 400)["field"] == "port"
    if body != {"port": 22}:
        assert refusal(await api.http.post(f"{path}/preview-token", json=body), 400)["field"] == "port"


@pytest.mark.parametrize("where", ["ports/0", "ports/x", "ports/99999999"])
async def test_bad_ports_in_paths(api: Api, where: str) -> None:
    assert refusal(await api.http.delete(f"{await api.sandbox()}/{where}"), 400)["field"] == "port"


@pytest.mark.parametrize("paths", [["a|b"], ["a,b"], [""], ["/a/../b"], ["/%61"], ["/x"] * 17])
async def test_bad_paths(api: Api, paths: list[str]) -> None:
    body = {"port": 80, "paths": paths}
    assert refusal(await api.http.post(f"{await api.sandbox()}/preview-token", json=body), 400)["field"] == "paths"


async def test_a_link_from_its_making_to_its_end(api: Api) -> None:
    path = await api.sandbox()
    body = {"port": 3000, "ttl_seconds": 10**9, "paths": ["docs"]}
    made = (await api.http.post(f"{path}/preview-token", json=body)).json()
    assert made["url"] == f"http://api/v1/p/{made['token']}/"
    assert (path.endswith(made["sandbox_id"]), made["port"], made["paths"]) == (True, 3000, ["/docs"])
    async with internal_of(api) as internal:
        found = (await route(internal, token=made["token"])).json()
        assert (found["sandbox"], found["port"], found["paths"]) == (made["sandbox_id"], 3000, ["/docs"])
        assert (await route(internal, token="pvt_wrong")).status_code == 401
        (listed,) = (await api.http.get(f"{path}/preview-token")).json()
        assert "token" not in listed
        assert (await api.http.delete(f"{path}/preview-token/{listed['prefix']}")).status_code == 204
        assert (await route(internal, token=made["token"])).status_code == 401
    assert refusal(await api.http.delete(f"{path}/preview-token/{listed['prefix']}"), 404)


async def test_routes_of_private_and_open_sandboxes(api: Api) -> None:
    metadata = {"previews": "private", "port.80.host": "keep", "port.80.origin": "bad\r\nvalue"}
    private = (await api.http.post("/v1/sandboxes", json={"template": "base", "metadata": metadata})).json()["id"]
    plain = (await api.sandbox()).rpartition("/")[2]
    made = (await api.http.post(f"/v1/sandboxes/{private}/preview", json={"port": 80})).json()
    async with internal_of(api) as internal:
        assert (await route(internal, sandbox=plain, port=80)).json()["host"] == "rewrite"
        assert (await route(internal, sandbox=private, port=80)).status_code == 401
        found = (await route(internal, sandbox=private, port=80, token=made["token"])).json()
        assert (found["host"], found["origin"], found["running"]) == ("keep", "keep", True)
        assert (await route(internal, sandbox=private, port=81, token=made["token"])).status_code == 403
        assert (await route(internal, sandbox=private, port=81, checked=True)).status_code == 200
        assert (await route(internal, sandbox="nobody", port=80)).status_code == 404
        assert (await route(internal, sandbox=plain, port=0)).status_code == 400


async def test_wakes_and_use(api: Api) -> None:
    path = await api.sandbox()
    sandbox = path.rpartition("/")[2]
    await api.http.post(f"{path}/hibernate")
    async with internal_of(api) as internal:
        told = {"used": ["nobody"], "connected": [sandbox, "nobody"], "asked": [sandbox, "nobody"]}
        assert (await internal.post("/internal/activity", json=told)).json() == {"running": [], "gone": ["nobody"]}
        assert (await internal.post("/internal/wake", json={"sandbox": sandbox, "waker": "visitor"})).status_code == 200
        told["used"] = [sandbox]
        answer = (await internal.post("/internal/activity", json=told)).json()
        assert answer == {"running": [sandbox], "gone": ["nobody"]}
        assert (
            await internal.post("/internal/wake", json={"sandbox": "nobody", "waker": "visitor"})
        ).status_code == 404
        await api.http.post(f"{path}/pause")
        assert (await internal.post("/internal/wake", json={"sandbox": sandbox, "waker": "member"})).status_code == 409
        assert (await internal.post("/internal/wake", json={"sandbox": sandbox})).status_code == 400


async def test_a_private_workspace_closes_what_its_sandboxes_open(api: Api) -> None:
    body = {"template": "base", "metadata": {"previews": "open"}}
    sandbox = (await api.http.post("/v1/sandboxes", json=body)).json()["id"]
    made = (await api.http.post(f"/v1/sandboxes/{sandbox}/preview", json={"port": 80})).json()
    assert (await api.http.get("/v1/workspace")).json()["previews"] == "open"
    async with internal_of(api) as internal:
        assert (await route(internal, sandbox=sandbox, port=80)).status_code == 200
        changed = await api.http.patch("/v1/workspace", json={"previews": "private"})
        assert (changed.status_code, changed.json()["previews"]) == (200, "private")
        assert (await api.http.patch("/v1/workspace", json={})).json()["previews"] == "private"
        assert (await route(internal, sandbox=sandbox, port=80)).status_code == 401
        assert (await route(internal, sandbox=sandbox, port=80, token=made["token"])).status_code == 200
        await api.http.patch("/v1/workspace", json={"previews": "open"})
        assert (await route(internal, sandbox=sandbox, port=80)).status_code == 200


@pytest.mark.parametrize("value", ["closed", "", 1, ["private"]])
async def test_a_workspace_setting_without_a_meaning(api: Api, value: Any) -> None:
    assert refusal(await api.http.patch("/v1/workspace", json={"previews": value}), 400)["field"] == "previews"
    assert (await api.http.get("/v1/workspace")).json()["previews"] == "open"


async def test_the_template_of_a_sandbox_speaks_first(api: Api) -> None:
    api.engine.preview_defaults = Visibility.PRIVATE, WakePolicy.AUTHED
    silent = (await api.http.post("/v1/sandboxes", json={"template": "base", "metadata": {"a": "b"}})).json()
    assert {"a": "b", "previews": "private", "wake": "authed"}.items() <= silent["metadata"].items()
    body = {"template": "base", "metadata": {"previews": "open", "wake": "any"}}
    said = (await api.http.post("/v1/sandboxes", json=body)).json()
    assert said["metadata"].items() >= body["metadata"].items()  # type: ignore[attr-defined]
    async with internal_of(api) as internal:
        assert (await route(internal, sandbox=silent["id"], port=80)).status_code == 401
        assert (await route(internal, sandbox=said["id"], port=80)).status_code == 200
    forks = (await api.http.post(f"/v1/sandboxes/{said['id']}/fork", json={})).json()
    child = (await api.http.get(f"/v1/sandboxes/{forks['sandbox']['id']}")).json()
    assert child["metadata"].items() >= body["metadata"].items()  # type: ignore[attr-defined]


@pytest.mark.parametrize("metadata", [{"previews": "closed"}, {"wake": "never"}])
async def test_metadata_without_a_meaning(api: Api, metadata: dict[str, str]) -> None:
    field = f"metadata.{next(iter(metadata))}"
    refused = await api.http.post("/v1/sandboxes", json={"template": "base", "metadata": metadata})
    assert refusal(refused, 400)["field"] == field
    path = await api.sandbox()
    await api.http.post(f"{path}/hibernate")
    assert refusal(await api.http.post(f"{path}/fork", json={"metadata": metadata}), 400)["field"] == field
    assert (await api.http.get(path)).json()["status"] == "hibernated"  # refused before it was woken


async def test_whose_requests_wake_a_sandbox(api: Api) -> None:
    async with internal_of(api) as internal:

        async def wakes(sandbox: str, waker: str) -> int:
            await api.http.post(f"/v1/sandboxes/{sandbox}/hibernate")
            return (await internal.post("/internal/wake", json={"sandbox": sandbox, "waker": waker})).status_code

        for policy, expected in {"any": (200, 200, 200), "authed": (503, 200, 200), "off": (503, 503, 200)}.items():
            body = {"template": "base", "metadata": {"wake": policy}}
            sandbox = (await api.http.post("/v1/sandboxes", json=body)).json()["id"]
            assert tuple([await wakes(sandbox, waker) for waker in ("visitor", "bearer", "member")]) == expected
        refused = await internal.post("/internal/wake", json={"sandbox": sandbox, "waker": "bearer"})
        assert refused.status_code == 200  # it runs: the member's wake was the last
        await api.http.post(f"/v1/sandboxes/{sandbox}/hibernate")
        refused = await internal.post("/internal/wake", json={"sandbox": sandbox, "waker": "bearer"})
        assert (refused.json()["code"], refused.json()["detail"]) == ("asleep", {"wake": "off"})


async def test_visitors_wake_a_sandbox_ten_times_a_minute(api: Api) -> None:
    path = await api.sandbox()
    sandbox = path.rpartition("/")[2]
    async with internal_of(api) as internal:
        for _ in range(10):
            await api.http.post(f"{path}/hibernate")
            told = {"sandbox": sandbox, "waker": "visitor"}
            assert (await internal.post("/internal/wake", json=told)).status_code == 200
            assert (await internal.post("/internal/wake", json=told)).status_code == 200  # it runs: no wake
        await api.http.post(f"{path}/hibernate")
        refused = await internal.post("/internal/wake", json=told)
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await api.http.get(path)).json()["status"] == "hibernated"
        assert (await internal.post("/internal/wake", json={**told, "waker": "bearer"})).status_code == 200


async def test_a_token_says_who_asks_for_an_open_preview(api: Api) -> None:
    path, other = await api.sandbox(), await api.sandbox()
    sandbox = path.rpartition("/")[2]
    made = (await api.http.post(f"{path}/preview", json={"port": 80, "paths": ["/docs"]})).json()
    foreign = (await api.http.post(f"{other}/preview", json={"port": 80})).json()
    async with internal_of(api) as internal:
        found = (await route(internal, sandbox=sandbox, port=80, token=made["token"])).json()
        assert (found["waker"], found["paths"], found["expires_at"] is None) == ("bearer", [], False)
        for token in (None, "pvt_wrong", foreign["token"]):
            assert (await route(internal, sandbox=sandbox, port=80, token=token)).json()["waker"] == "visitor"
        assert (await route(internal, token=made["token"])).json()["waker"] == "bearer"
        assert (await route(internal, sandbox=sandbox, port=80, checked=True)).json()["waker"] == "bearer"


async def test_without_a_gateway(api: Api) -> None:
    path = await api.sandbox()
    assert refusal(await api.http.get(f"{path}/proxy/80/x"), 503)["code"] == "unavailable"
    assert refusal(await api.http.get("/v1/p/pvt_x/y"), 503)
    assert refusal(await api.http.get(f"{path}/proxy/0/"), 400)["field"] == "port"
    assert refusal(await api.http.get(f"{UNKNOWN}/proxy/80/"), 404)
    await api.http.post(f"{path}/pause")
    assert "paused" in refusal(await api.http.get(f"{path}/proxy/80/"), 503)["error"]
