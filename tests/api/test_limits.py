"""How often and how much at once: per token, per peer, per sandbox; and from which web pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from pandastack.api import allowance
from pandastack.api.allowance import Allowance
from pandastack.api.origin import check_origin
from pandastack.errors import ForbiddenError
from pandastack.model.forwarded import parse_networks
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.settings import Settings
from tests.support.api import Api, refusal

pytestmark = pytest.mark.anyio

WRONG = {"authorization": "Bearer pds_wrong"}


def standing(per_minute: int) -> Allowance:
    """Nothing grows back."""
    return Allowance(per_minute, lambda: 0.0)


async def test_a_token_makes_so_many_requests_and_no_more(api: Api) -> None:
    other = {"authorization": f"Bearer {(await api.http.post('/v1/me/tokens')).json()['token']}"}
    api.app.state.requests = standing(3)
    assert [(await api.http.get("/v1/me")).status_code for _ in range(3)] == [200] * 3
    answer = await api.http.get("/v1/me")
    assert refusal(answer, 429)["code"] == "rate_limited"
    assert answer.headers["retry-after"] == "20"
    assert (await api.http.get("/v1/me", headers=other)).status_code == 200
    assert (await api.http.get("/healthz")).status_code == 200


async def test_a_peer_that_guesses_tokens_is_refused_and_those_with_one_are_not(api: Api) -> None:
    fresh = {"authorization": f"Bearer {(await api.http.post('/v1/me/tokens')).json()['token']}"}
    assert (await api.http.get("/v1/me", headers=fresh)).status_code == 200
    api.app.state.failed_logins = standing(2)
    for _ in range(2):
        refusal(await api.http.get("/v1/me", headers=WRONG), 401)
    answer = await api.http.get("/v1/me", headers=WRONG)
    assert refusal(answer, 429)["code"] == "rate_limited" and answer.headers["retry-after"] == "30"
    for headers in ({}, fresh):  # both have been seen to be valid
        assert (await api.http.get("/v1/me", headers=headers)).status_code == 200


@pytest.fixture
async def proxied(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``api`` at 127.0.0.1."""
    transport = httpx.ASGITransport(api.app, client=("127.0.0.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=api.http.headers) as http:
        yield http


def trust(api: Api, networks: str) -> None:
    plane = api.app.state.plane
    object.__setattr__(plane, "settings", replace(plane.settings, trusted_proxies=parse_networks(networks)))


async def test_guesses_are_those_of_a_trusted_proxys_client(api: Api, proxied: httpx.AsyncClient) -> None:
    api.app.state.failed_logins = standing(1)

    async def guess(client: str) -> int:
        return (await proxied.get("/v1/me", headers={**WRONG, "x-forwarded-for": client})).status_code

    trust(api, "127.0.0.0/8")
    assert [await guess(client) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")] == [401, 429, 401]
    assert await guess("192.0.2.3, 192.0.2.1") == 429  # the first one is the client's own claim
    trust(api, "")
    assert [await guess(client) for client in ("192.0.2.4", "192.0.2.5")] == [401, 429]


async def test_links_have_the_scheme_that_a_trusted_proxy_names(api: Api, proxied: httpx.AsyncClient) -> None:
    path = await api.sandbox()
    for networks, scheme in (("", "http"), ("127.0.0.1", "https"), ("127.0.0.2", "http")):
        trust(api, networks)
        answer = await proxied.post(f"{path}/preview-token", json={"port": 80}, headers={"x-forwarded-proto": "https"})
        assert answer.json()["url"].startswith(f"{scheme}://")


@pytest.mark.parametrize("what", ["logs", "events", "fs/watch"])
async def test_followers_count_as_open_on_their_sandbox(api: Api, what: str) -> None:
    path = await api.sandbox()
    quota = StreamQuota(Settings(max_streams=1))
    object.__setattr__(api.app.state.plane, "streams", quota)
    url, params = f"{path}/{what}", {"follow": "1", "path": "/tmp"}
    async with AsyncExitStack() as stack:
        stack.enter_context(quota.hold(path.rpartition("/")[2]))
        refused = refusal(await api.http.get(url, params=params), 429)
        assert refused["code"] == "quota_exceeded"
    if what != "fs/watch":  # which needs a guest
        with anyio.fail_after(20):
            async with api.http.stream("GET", url, params=params) as following:
                assert following.status_code == 200
                refusal(await api.http.get(url, params=params), 429)


async def test_the_tools_of_one_sandbox_have_a_limit_too(api: Api) -> None:
    one, other = await api.sandbox(), await api.sandbox()
    api.app.state.sandbox_tool_calls = standing(2)
    params: dict[str, Any] = {"name": "read_file", "arguments": {"path": "/etc/hostname"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    for _ in range(2):
        assert "result" in (await api.http.post(f"{one}/mcp", json=call)).json()
    assert (await api.http.post(f"{one}/mcp", json=call)).json()["error"]["code"] == -32000
    assert "result" in (await api.http.post(f"{other}/mcp", json=call)).json()


def test_an_allowance_remembers_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MOST_KEYS", 3)
    clock = [0.0]
    tried = Allowance(60, lambda: clock[0])
    for number in range(10):
        clock[0] = number / 100
        tried.take(str(number))
    assert set(tried._left) == {"7", "8", "9"}
    clock[0] = 100.0  # all have grown back
    tried.take("new")
    assert set(tried._left) == {"new"}


def scope(path: str, origin: str | None, host: str, server: str, kind: str = "http") -> dict[str, Any]:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    return {"type": kind, "path": path, "headers": headers, "server": (server, 8080)}


@pytest.mark.parametrize("path", ["/mcp", "/v1/mcp", "/v1/sandboxes/x/mcp", "socket"])
@pytest.mark.parametrize(
    ("origin", "host", "server", "foreign"),
    [
        ("https://evil.test", "localhost:8080", "127.0.0.1", True),
        ("http://evil.test:8080", "evil.test:8080", "127.0.0.1", True),  # its name was pointed here
        ("http://evil.test", "[::1]:8080", "::1", True),
        ("null", "127.0.0.1", "127.0.0.1", True),
        ("http://[", "127.0.0.1", "127.0.0.1", True),
        ("http://localhost.evil.test", "127.0.0.1", "127.0.0.1", True),
        (None, "localhost:8080", "127.0.0.1", False),
        ("http://localhost:3000", "localhost:8080", "127.0.0.1", False),
        ("http://app.localhost", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://[::1]:1", "127.0.0.1:8080", "127.0.0.1", False),
        ("https://known.test", "localhost:8080", "127.0.0.1", False),
        ("https://evil.test", "api.example.com", "192.0.2.1", False),
    ],
)
def test_a_foreign_page_does_not_reach_a_server_on_loopback(
    path: str, origin: str | None, host: str, server: str, foreign: bool
) -> None:
    kind, where = ("websocket", "/v1/sandboxes/x/ssh") if path == "socket" else ("http", path)
    asked = scope(where, origin, host, server, kind)
    if foreign:
        with pytest.raises(ForbiddenError):
            check_origin(asked, "https://known.test, https://other.test")
    else:
        check_origin(asked, "https://known.test, https://other.test")


def test_other_routes_take_any_origin() -> None:
    check_origin(scope("/v1/sandboxes", "https://evil.test", "localhost", "127.0.0.1"), "")


async def test_the_refusal_of_a_page_comes_before_the_token(api: Api) -> None:
    headers = {"origin": "https://evil.test", "host": "localhost", **WRONG}
    assert refusal(await api.http.post("/mcp", json={}, headers=headers), 403)["code"] == "forbidden"
