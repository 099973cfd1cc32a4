"""GitHub over the API: the connection of a workspace, and webhooks as GitHub sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import anyio
import httpx
import pytest

from pandastack.errors import ServerError
from pandastack.services import ControlPlane
from pandastack.services.github.events import Event, Kind, Push
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.api import Api, Serve, refusal
from tests.support.github import TOKEN, FakeGitHub, faking

pytestmark = pytest.mark.anyio

CONNECTION, SERVER_HOOK = "/v1/github/connection", "/v1/webhooks/github"
SECRET = "the operator's"
SHA = "a" * 40
PUSH = {
    "ref": "refs/heads/main",
    "after": SHA,
    "deleted": False,
    "repository": {"id": 5, "full_name": "acme/shop", "default_branch": "main"},
}
EVENT = Push("acme/shop", 5, "main", SHA, "main")


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with faking() as made:
        yield made


@pytest.fixture
async def api(serve: Serve, github: FakeGitHub) -> AsyncIterator[Api]:
    settings = {"github_api_url": github.url, "github_webhook_secret": SECRET}
    async with serve(ScriptedEngine(), settings=settings) as api:
        yield api


def plane_of(api: Api) -> ControlPlane:
    plane: ControlPlane = api.app.state.plane
    return plane


@pytest.fixture
def taken(api: Api) -> list[tuple[Event, str | None]]:
    """What a product has been told of pushes."""
    found: list[tuple[Event, str | None]] = []

    async def take(event: Event, workspace: str | None) -> None:
        found.append((event, workspace))

    plane_of(api).github.hooks.on(Kind.PUSH, take)
    return found


async def connect(api: Api) -> tuple[str, str]:
    """The path and the secret of the workspace's webhook."""
    made = await api.http.put(CONNECTION, json={"token": TOKEN})
    assert made.status_code == 200, made.text
    return urlsplit(made.json()["webhook_url"]).path, made.json()["webhook_secret"]


async def deliver(
    api: Api,
    path: str,
    secret: str,
    payload: Any = PUSH,
    name: str = "push",
    delivery: str = "d-1",
    **headers: str | bytes,
) -> httpx.Response:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    sent = {
        "authorization": "",
        "content-type": "application/json",
        "x-github-event": name,
        "x-github-delivery": delivery,
        "x-hub-signature-256": f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}",
    }
    return await api.http.post(path, content=body, headers={**sent, **headers})


async def test_a_workspace_connects_and_disconnects(api: Api) -> None:
    refusal(await api.http.get(CONNECTION), 404)
    path, secret = await connect(api)
    shown = await api.http.get(CONNECTION)
    assert shown.json()["login"] == "octocat" and secret not in shown.text and TOKEN not in shown.text
    assert urlsplit(shown.json()["webhook_url"]).path == path
    assert (await connect(api)) == (path, secret), "another token, the same webhook"
    assert (await api.http.get(CONNECTION, headers=await api.another("rival"))).status_code == 404
    assert (await api.http.get("/v1/secrets")).json() == {"secrets": []}
    assert (await api.http.delete(CONNECTION)).status_code == 204
    refusal(await api.http.delete(CONNECTION), 404)
    refusal(await deliver(api, path, secret), 404)


@pytest.mark.parametrize("token", ["", "two words", "ü", "x" * 1025, "a\nb", None, 7, "ghp_wrong"])
async def test_a_wrong_token_is_refused_and_not_repeated(api: Api, token: Any) -> None:
    answer = await api.http.put(CONNECTION, json={"token": token})
    assert refusal(answer, 400)["field"] == "token"
    assert not isinstance(token, str) or len(token) < 5 or token not in answer.text
    refusal(await api.http.get(CONNECTION), 404)


async def test_github_that_does_not_answer_is_said(api: Api, github: FakeGitHub) -> None:
    github.replies = [(429, {"retry-after": "9999"}, {"message": "slow down"})]
    answer = await api.http.put(CONNECTION, json={"token": TOKEN})
    assert refusal(answer, 429) and int(answer.headers["retry-after"]) > 3000


async def test_events_reach_who_asked_for_them(api: Api, taken: list[tuple[Event, str | None]]) -> None:
    path, secret = await connect(api)
    answer = await deliver(api, path, secret)
    assert answer.status_code == 200 and answer.json() == {"ok": True}
    assert (await deliver(api, SERVER_HOOK, SECRET)).json() == {"ok": True}
    assert taken == [(EVENT, "default"), (EVENT, None)]


async def test_a_form_is_as_good_as_json(api: Api, taken: list[tuple[Event, str | None]]) -> None:
    form = urlencode({"payload": json.dumps(PUSH)}).encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert (await deliver(api, SERVER_HOOK, SECRET, form, **kind)).status_code == 200
    assert taken == [(EVENT, None)]


async def test_a_delivery_is_handled_once_also_after_a_restart(serve: Serve) -> None:
    settings, found = {"github_webhook_secret": SECRET}, list[Event]()

    async def take(event: Event, workspace: str | None) -> None:
        found.append(event)

    token = ""
    for _ in range(2):
        async with serve(ScriptedEngine(), token, settings=settings) as api:
            plane_of(api).github.hooks.on(Kind.PUSH, take)
            for _ in range(2):
                assert (await deliver(api, SERVER_HOOK, SECRET)).status_code == 200
            assert (await deliver(api, SERVER_HOOK, SECRET, delivery="another-id")).status_code == 200
            token = api.token
    assert len(found) == 1, "neither a redelivery nor a replay under another id, which nobody signs, counts"


async def test_two_copies_at_once_are_handled_once(api: Api) -> None:
    count, first, both = 0, anyio.Event(), anyio.Event()

    async def take(event: Event, workspace: str | None) -> None:
        nonlocal count
        count += 1
        first.set()
        await both.wait()

    plane_of(api).github.hooks.on(Kind.PUSH, take)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deliver, api, SERVER_HOOK, SECRET)
        await first.wait()
        assert (await deliver(api, SERVER_HOOK, SECRET)).status_code == 200
        both.set()
    assert count == 1


async def test_what_could_not_be_handled_is_taken_again(api: Api) -> None:
    tries = 0

    async def fail_once(event: Event, workspace: str | None) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ServerError("not now")

    plane_of(api).github.hooks.on(Kind.PUSH, fail_once)
    refusal(await deliver(api, SERVER_HOOK, SECRET), 500)
    assert (await deliver(api, SERVER_HOOK, SECRET)).status_code == 200 and tries == 2


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("ping", {"zen": "Keep it logically awesome."}),
        ("workflow_job", {"action": "queued", "workflow_job": None}),
        ("push", {**PUSH, "ref": "refs/tags/v1"}),
        ("push", b"not json"),
        ("", {}),
        ("no_such_event", {}),
    ],
)
async def test_what_cannot_be_used_is_acknowledged(
    api: Api, taken: list[tuple[Event, str | None]], name: str, payload: Any
) -> None:
    assert (await deliver(api, SERVER_HOOK, SECRET, payload, name)).json() == {"ok": True}
    assert taken == []


async def test_a_wrong_signature_is_refused_before_anything_else(
    api: Api, taken: list[tuple[Event, str | None]]
) -> None:
    path, secret = await connect(api)
    refusal(await deliver(api, path, SECRET), 401)  # the other webhook's
    refusal(await deliver(api, SERVER_HOOK, secret), 401)
    for wrong in (b"", b"sha256=", b"sha1=" + b"0" * 40, b"sha256=" + b"0" * 64, b"sha256=" + b"\xe9" * 64):
        refusal(await deliver(api, path, secret, **{"x-hub-signature-256": wrong}), 401)
    refusal(await deliver(api, path, secret, delivery=""), 400)
    refusal(await deliver(api, path, secret, delivery="x" * 65), 400)
    refusal(await deliver(api, "/v1/github/hooks/unknown", secret), 404)
    assert taken == []


async def test_who_guesses_signatures_must_wait(api: Api) -> None:
    statuses = [(await deliver(api, SERVER_HOOK, "guess")).status_code for _ in range(61)]
    assert statuses == [401] * 60 + [429]


async def test_a_body_over_the_limit_is_refused(api: Api) -> None:
    refusal(await deliver(api, SERVER_HOOK, SECRET, b" " * (5 * 1024 * 1024 + 1)), 413)
    assert (await deliver(api, SERVER_HOOK, SECRET, b" " * (5 * 1024 * 1024))).status_code == 200


async def test_a_server_without_a_webhook_says_so(serve: Serve) -> None:
    async with serve(ScriptedEngine()) as api:
        assert "PANDASTACK_GITHUB_WEBHOOK_SECRET" in refusal(await deliver(api, SERVER_HOOK, ""), 503)["hint"]


async def test_other_methods_of_its_path_need_a_token(api: Api) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        refusal(await api.http.request(method, SERVER_HOOK, headers={"authorization": ""}), 401)
        refusal(await api.http.request(method, SERVER_HOOK), 404)
    refusal(await api.http.get(f"{SERVER_HOOK}/deliveries", headers={"authorization": ""}), 401)
