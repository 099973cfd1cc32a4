"""Nothing that is served of the contract goes without an official client, and nothing is left out in silence."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.routing import Match, Mount, Route

from pandastack.api import create_app
from pandastack.cluster import EngineClient, Engines
from tests.cluster.scripted_engine import ScriptedEngine
from tests.conformance.contract import (
    CHECKLIST_NOT_BUILT,
    METHODS_NOT_SERVED,
    NOT_SERVED,
    PLAIN,
    SECTIONS,
    S,
    routes,
)
from tests.conformance.official import Official

CONTRACT = frozenset().union(*SECTIONS.values())
UNSERVED = frozenset().union(*NOT_SERVED.values())


def served(app: FastAPI | None = None) -> frozenset[str]:
    """The routes of the contract that the server's application has."""
    app = app or create_app(Engines.local(EngineClient.in_process(ScriptedEngine().app)), "sqlite+aiosqlite://")
    paths = {re.sub(r"{[^}]*}", "{}", path): methods for path, methods in app.openapi()["paths"].items()}
    documented = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    return frozenset(route for route in CONTRACT if route in documented or _is_undocumented(app, route))


def _is_undocumented(app: FastAPI, written: str) -> bool:
    """Whether a route is there that no schema lists: a WebSocket, or an application of its own."""
    method, _, path = written.replace("{}", "x").partition(" ")
    kind = "websocket" if method == "WS" else "http"
    scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": []}
    candidates = [route for route in app.routes if kind == "websocket" or isinstance(route, Mount | Route)]
    return any(route.matches(dict(scope))[0] == Match.FULL for route in candidates)


def test_what_the_server_serves_of_the_contract_is_what_we_say() -> None:
    """Fails when a route of :data:`NOT_SERVED` is served, or one is missing that is not there."""
    assert sorted(UNSERVED & served()) == [], "served now: drive it with an official client, take it out of NOT_SERVED"
    assert sorted(CONTRACT - served() - UNSERVED) == [], "not served, and nobody says why"
    assert sorted(UNSERVED - CONTRACT) == []


def test_every_route_that_is_served_is_driven(python_sdk: Official, typescript_sdk: Official) -> None:
    """Both SDKs run all their scenarios; what they sent and what plain HTTP is for must be everything."""
    plain = {next(iter(routes(route))) for route in PLAIN}
    patterns = {route: _pattern(route) for route in CONTRACT & served() - plain}
    with ThreadPoolExecutor(2) as pool:
        for sdk, sent in zip((python_sdk, typescript_sdk), pool.map(_sent, (python_sdk, typescript_sdk)), strict=True):
            assert [each for each in sorted(patterns) if not any(map(patterns[each].fullmatch, sent))] == [], sdk.name
    assert sorted(set(PLAIN.values()) - _tests("test_plain_http", "test_checklist", "test_go_cli")) == []


def _sent(sdk: Official) -> list[str]:
    return [request for name in sdk.scenarios() for request in sdk.run(name).requests]


def _tests(*modules: str) -> set[str]:
    """The names of the tests in modules of this directory."""
    texts = [Path(__file__).with_name(f"{module}.py").read_text() for module in modules]
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile("[^/ ]+".join(re.escape(part) for part in route.split("{}")))


def test_every_method_of_the_sdk_is_called(sdk: Official) -> None:
    """But for those that wait for a route that is not served."""
    surface = set(sdk.run("run.surface").value)
    called = {method for name in sdk.scenarios() for method in sdk.run(name).calls}
    waiting = {method for method in surface if any(map(method.startswith, METHODS_NOT_SERVED))}
    assert sorted(surface - called - waiting) == []
    assert sorted(called & waiting) == []
    assert {next(iter(routes(route))) for route in METHODS_NOT_SERVED.values()} <= UNSERVED


def test_the_drivers_use_the_official_sdk(python_sdk: Official) -> None:
    """Not ours, which has the same name."""
    where = python_sdk.run("run.where").value
    assert where["version"] == "0.10.0"
    assert "official-sdk-0.10.0" in where["file"]


def test_every_item_of_the_checklist_is_tested_or_has_a_reason() -> None:
    tested = {int(found[1]) for name in _tests("test_checklist") if (found := re.match(r"test_(\d\d)_", name))}
    assert tested | set(CHECKLIST_NOT_BUILT) == set(range(1, 16))
    assert tested & set(CHECKLIST_NOT_BUILT) == set()
    assert set(CHECKLIST_NOT_BUILT.values()) <= set(NOT_SERVED)


@pytest.mark.parametrize(("route", "path"), [(f"GET {S}/fs", "GET /v1/sandboxes/1-2/fs"), ("GET /v1/me", "GET /v1/me")])
def test_a_route_is_found_in_what_was_sent(route: str, path: str) -> None:
    assert _pattern(route).fullmatch(path)
    assert not _pattern(route).fullmatch(path + "/more")


def test_routes_that_no_schema_lists_are_found() -> None:
    app, router = FastAPI(), APIRouter(prefix="/v1/sandboxes/{sandbox_id}")

    @router.websocket("/ssh")
    async def ssh(socket: WebSocket) -> None:
        """Never called."""

    async def endpoint(_request: Request) -> None:
        """Never called."""

    app.include_router(router)
    app.add_route("/mcp", endpoint, methods=["POST"])
    app.mount("/v1/apps", FastAPI())
    assert served(app) >= {f"WS {S}/ssh", "POST /mcp", "GET /v1/apps/{}"}
    assert not served(app) & {f"WS {S}/exec/ws", f"POST {S}/mcp", "GET /v1/schedules"}
