"""A creating request that is sent again with the same ``Idempotency-Key``."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import text

from pandastack.errors import CapacityError, ServerError
from pandastack.services.access import idempotency
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.api import SETTINGS, Api, Serve, refusal

pytestmark = pytest.mark.anyio

BUILD = "/v1/templates/build"
HERMETIC_BUILD = "/v1/builds"
"""Takes a form: ``test_hermetic_builds.py`` repeats it."""
DATABASES = {"/v1/databases", "/v1/databases/{database_id}/clone", "/v1/databases/{database_id}/backups"}
"""Need a server of databases in their guest: ``test_databases.py`` repeats them."""
RUNNERS = {"/v1/jobs", "/v1/jobs/{job_id}/retry", "/v1/runner-pools/{name}/sandboxes"}
"""Need a pool that is prepared: ``test_runners.py`` repeats them."""
WEBHOOKS = "/v1/webhooks"
"""Its secret is shown once: ``test_webhooks.py`` repeats it."""
NOT_CREATING = ("/mcp", "/cancel", "/wake", "/reset", "/invoke", "/refresh", "/test", "/redeliver")
"""They have something done to what there is."""
WITHOUT_KEY = {"/v1/secrets", "/v1/databases/{database_id}/proxy/v1/databases"}
"""They create, and ignore the header. Of a secret a digest would be stored, by which the value could be guessed; the
query broker knows no API token. Sent again, the request is refused, because the name exists."""
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINjHUQa/AVhZIgnNc6AVnh1yuX6t+TYh4bid5OXqiZ5A mine"
BODY = {"template": "base", "metadata": {"name": "one"}}


async def post(api: Api, path: str, body: object = None, key: str = "k-1", **headers: str) -> httpx.Response:
    return await api.http.post(path, json=body or {}, headers={"idempotency-key": key, **headers})


async def creates(api: Api) -> int:
    return len([call for call in api.engine.calls if call.startswith("create")])


async def forget_answers(api: Api) -> None:
    """The state after a server is killed between finishing the work and storing its answer."""
    async with api.app.state.plane.store.write() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET status = NULL, answer = NULL"))


async def rows(api: Api) -> int:
    async with api.app.state.plane.store.read() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM idempotency_keys"))).scalar_one())


def kernels(asked: dict[str, Any]) -> list[bytes]:
    session = {"id": asked.get("id"), "language": "python", "created_at": 1.0, "cells": 0}
    return [json.dumps(session).encode() + b"\n"]


async def checkpoint_of(api: Api, path: str) -> str:
    return str((await api.http.post(f"{path}/checkpoints")).json()["id"])


async def creating(api: Api) -> dict[str, tuple[str, dict[str, Any]]]:
    """What creates something: the route, and what is sent. Processes need a guest: ``tests/system``."""
    api.engine.kernels = kernels
    sandbox = await api.sandbox()
    return {
        "/v1/sandboxes": ("/v1/sandboxes", BODY),
        "/v1/sandboxes/{sandbox_id}/fork": (f"{sandbox}/fork", {}),
        "/v1/sandboxes/{sandbox_id}/fork-tree": (f"{sandbox}/fork-tree", {"count": 2}),
        "/v1/sandboxes/{sandbox_id}/snapshots": (f"{sandbox}/snapshots", {"label": "a"}),
        "/v1/sandboxes/{sandbox_id}/checkpoints": (f"{sandbox}/checkpoints", {"label": "a"}),
        "/v1/sandboxes/{sandbox_id}/checkpoints/{checkpoint_id}/fork": (
            f"{sandbox}/checkpoints/{await checkpoint_of(api, sandbox)}/fork",
            {},
        ),
        "/v1/sandboxes/{sandbox_id}/repl/sessions": (f"{sandbox}/repl/sessions", {}),
        "/v1/sandboxes/{sandbox_id}/ports": (f"{sandbox}/ports", {"port": 8000, "label": "web"}),
        "/v1/ssh-keys": ("/v1/ssh-keys", {"public_key": PUBLIC_KEY}),
        "/v1/me/tokens": ("/v1/me/tokens", {"name": "ci"}),
        "/v1/volumes": ("/v1/volumes", {"name": "data"}),
    }


async def test_every_creating_route_takes_a_key(api: Api) -> None:
    """A route that answers 201 and does not is found by the document that lists it."""
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    takes = {
        path: [each["name"] for each in operations["post"].get("parameters", ()) if each["in"] == "header"]
        for path, operations in paths.items()
        if {"201", "202"} & set(operations.get("post", {}).get("responses", {})) and not path.endswith(NOT_CREATING)
    }
    assert {path for path, names in takes.items() if names != ["Idempotency-Key"]} == WITHOUT_KEY
    assert set(takes) == {
        *await creating(api),
        "/v1/sandboxes/{sandbox_id}/processes",
        BUILD,
        HERMETIC_BUILD,
        *DATABASES,
        *RUNNERS,
        WEBHOOKS,
        *WITHOUT_KEY,
    }


async def test_the_same_request_is_done_once(api: Api) -> None:
    for index, (path, body) in enumerate((await creating(api)).values()):
        first = await post(api, path, body, f"key-{index}")
        assert (first.status_code, "idempotency-replayed" in first.headers) == (201, False), first.text
        calls = list(api.engine.calls)
        second = await post(api, path, body, f"key-{index}")
        if path == "/v1/me/tokens":
            continue  # below: a token's text is shown once
        assert (second.status_code, second.content) == (201, first.content)
        assert second.headers["idempotency-replayed"] == "true"
        assert second.headers["content-type"] == "application/json"
        assert api.engine.calls == calls


async def test_a_build_is_begun_once(api: Api) -> None:
    """Whose body is not read for it: a form is told from another by its length."""

    def form(dockerfile: str, boundary: str) -> dict[str, Any]:
        parts = {"name": "mine", "dockerfile": dockerfile}
        lines = [f'--{boundary}\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}' for k, v in parts.items()]
        kind = {"content-type": f"multipart/form-data; boundary={boundary}", "idempotency-key": "b"}
        return {"content": "\r\n".join([*lines, f"--{boundary}--\r\n"]).encode(), "headers": kind}

    first = await api.http.post(BUILD, **form("FROM a", "one"))
    assert first.status_code == 202, first.text
    second = await api.http.post(BUILD, **form("FROM a", "two"))
    assert (second.status_code, second.content, second.headers["idempotency-replayed"]) == (202, first.content, "true")
    assert refusal(await api.http.post(BUILD, **form("FROM other", "one")), 409)["code"] == "idempotency_key_reused"
    assert len((await api.http.get("/v1/templates/builds")).json()) == 1


async def test_the_text_of_a_token_is_not_kept(api: Api) -> None:
    first = (await post(api, "/v1/me/tokens", {"name": "ci"})).json()
    assert refusal(await post(api, "/v1/me/tokens", {"name": "ci"}), 409)["code"] == "idempotency_answer_lost"
    assert len((await api.http.get("/v1/me/tokens")).json()) == 2
    async with api.app.state.plane.store.read() as connection:
        kept = (await connection.execute(text("SELECT * FROM idempotency_keys"))).all()
    assert first["token"] not in repr(kept)


async def test_no_digest_of_a_secret_is_kept(api: Api) -> None:
    body = {"name": "TOKEN", "value": "a-long-value", "hosts": ["api.example.com"]}
    assert (await post(api, "/v1/secrets", body)).status_code == 201
    assert refusal(await post(api, "/v1/secrets", body), 409)["field"] == "name"
    assert await rows(api) == 0


async def test_no_digest_of_a_password_is_kept(api: Api) -> None:
    key = {"idempotency-key": "k"}
    body = {"username": "me", "password": "a-long-value"}
    assert (await api.http.put("/v1/registries/r.example", json=body, headers=key)).status_code == 200
    assert await rows(api) == 0


async def test_a_key_of_another_request_is_refused(api: Api) -> None:
    await post(api, "/v1/sandboxes", BODY)
    before = list(api.engine.calls)
    for path, body in (("/v1/sandboxes", {"template": "base"}), ("/v1/me/tokens", BODY), ("/v1/sandboxes?x=1", BODY)):
        assert refusal(await post(api, path, body), 409)["code"] == "idempotency_key_reused"
    assert api.engine.calls == before


async def test_two_tokens_may_have_the_same_key(api: Api) -> None:
    other = (await api.http.post("/v1/me/tokens")).json()["token"]
    ids = {
        (await post(api, "/v1/sandboxes", BODY, authorization=f"Bearer {token}")).json()["id"]
        for token in (api.token, other)
    }
    assert len(ids) == 2


async def test_a_second_request_while_the_first_is_answered_is_told_to_come_again(api: Api) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def hold(_sandbox_id: str) -> None:
        begun.set()
        await go_on.wait()

    api.engine.before_answer = hold
    answers: list[httpx.Response] = []

    async def first() -> None:
        answers.append(await post(api, "/v1/sandboxes", BODY))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await begun.wait()
        busy = await post(api, "/v1/sandboxes", BODY)
        assert refusal(busy, 409)["code"] == "idempotency_key_in_use"
        assert busy.headers["retry-after"] == "1"
        assert refusal(await post(api, "/v1/sandboxes", {"template": "x"}), 409)["code"] == "idempotency_key_reused"
        go_on.set()
    assert (await post(api, "/v1/sandboxes", BODY)).content == answers[0].content
    assert await creates(api) == 1


@pytest.mark.parametrize(
    ("body", "error", "status"),
    [
        ({"template": ""}, None, 400),
        (BODY, CapacityError("full"), 503),
        (BODY, ServerError("boot failed"), 500),
    ],
)
async def test_a_refusal_is_not_kept(api: Api, body: dict[str, Any], error: ServerError | None, status: int) -> None:
    if error:
        api.engine.refusals["create"] = error
    for _ in range(2):
        answer = await post(api, "/v1/sandboxes", body)
        refusal(answer, status)
        assert "idempotency-replayed" not in answer.headers
    assert await rows(api) == 0
    api.engine.refusals.clear()
    assert (await post(api, "/v1/sandboxes", BODY)).status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "caf\xe9", "a\tb"])
async def test_a_key_that_is_not_short_visible_ascii_is_refused(api: Api, key: str) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    answer = refusal(await api.http.post("/v1/sandboxes", json=BODY, headers=headers), 400)
    assert answer["field"] == "Idempotency-Key"
    assert api.engine.calls == []


async def test_a_route_that_creates_nothing_ignores_it(api: Api) -> None:
    path = await api.sandbox()
    for _ in range(2):
        assert (await post(api, f"{path}/pause")).status_code == 204
        assert (await post(api, f"{path}/resume")).status_code == 204
    assert await rows(api) == 0


async def test_the_body_has_its_limit_with_a_key_too(api: Api) -> None:
    refusal(await post(api, "/v1/sandboxes", {"x": "x" * SETTINGS.max_json_bytes}), 413)
    assert await rows(api) == 0


async def test_answers_outlive_the_server(serve: Serve) -> None:
    engine = ScriptedEngine()
    async with serve(engine) as api:
        first = await post(api, "/v1/sandboxes", BODY)
    async with serve(engine, api.token) as api:
        second = await post(api, "/v1/sandboxes", BODY)
    assert (second.content, second.headers["idempotency-replayed"]) == (first.content, "true")
    assert await creates(api) == 1


async def test_what_a_killed_server_made_is_found_again(serve: Serve) -> None:
    """Killed after the work and before the answer is stored: the object has the id that the key stands for."""
    engine = ScriptedEngine()
    async with serve(engine) as api:
        sandbox = await api.sandbox()
        checkpoint = await checkpoint_of(api, sandbox)
        wanted: dict[str, dict[str, Any]] = {
            "/v1/sandboxes": BODY,
            f"{sandbox}/snapshots": {"label": "a"},
            f"{sandbox}/checkpoints": {"label": "a"},
            f"{sandbox}/checkpoints/{checkpoint}/fork": {},
        }
        made = {path: (await post(api, path, body, path[-10:])).json()["id"] for path, body in wanted.items()}
        await forget_answers(api)
    calls = len(engine.calls)
    async with serve(engine, api.token) as api:
        for path, body in wanted.items():
            again = await post(api, path, body, path[-10:])
            assert (again.status_code, again.json()["id"]) == (201, made[path])
            assert (await post(api, path, body, path[-10:])).headers["idempotency-replayed"] == "true"
    assert [call for call in engine.calls[calls:] if call.startswith(("create", "snapshot"))] == []


async def test_what_a_killed_server_did_not_make_is_made(serve: Serve) -> None:
    """Killed before: the start deletes the half-made sandbox, and the same key makes it. A refusal in between does not
    free the key: it does not say that the first attempt made nothing."""
    engine = ScriptedEngine()
    async with serve(engine) as api:
        first = (await post(api, "/v1/sandboxes", BODY)).json()["id"]
        await forget_answers(api)
        await api.http.delete(f"/v1/sandboxes/{first}")
    async with serve(engine, api.token) as api:
        engine.refusals["create"] = CapacityError("full")
        refusal(await post(api, "/v1/sandboxes", BODY), 503)
        engine.refusals.clear()
        assert (await post(api, "/v1/sandboxes", BODY)).json()["id"] == first
        assert len((await api.http.get("/v1/sandboxes")).json()) == 1


@pytest.mark.parametrize("route", ["fork", "fork-tree"])
async def test_a_fork_that_a_kill_cut_off_is_not_made_twice(serve: Serve, route: str) -> None:
    engine = ScriptedEngine()
    async with serve(engine) as api:
        sandbox = await api.sandbox()
        await post(api, f"{sandbox}/{route}")
        await forget_answers(api)
    async with serve(engine, api.token) as api:
        for _ in range(2):
            answer = refusal(await post(api, f"{sandbox}/{route}"), 409)
            assert (answer["code"], bool(answer["hint"])) == ("idempotency_answer_lost", True)
    assert len([call for call in engine.calls if call.startswith("fork")]) == 1


async def test_a_key_is_free_again_after_a_day(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (await post(api, "/v1/sandboxes", BODY)).json()["id"]
    monkeypatch.setattr(idempotency, "KEPT_SECONDS", -1.0)
    assert (await post(api, "/v1/sandboxes", BODY)).json()["id"] != first


async def test_old_keys_are_swept(serve: Serve) -> None:
    engine = ScriptedEngine()
    async with serve(engine) as api:
        await post(api, "/v1/sandboxes", BODY, "old")
        async with api.app.state.plane.store.write() as connection:
            await connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - 86401"))
        await post(api, "/v1/sandboxes", BODY, "new")
    async with serve(engine, api.token) as api:
        assert await rows(api) == 1


async def test_a_token_has_a_bounded_number_of_keys(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST_KEYS", 10)
    ids = [(await post(api, "/v1/sandboxes", BODY, f"key-{index}")).json()["id"] for index in range(11)]
    assert await rows(api) == 9
    assert (await post(api, "/v1/sandboxes", BODY, "key-10")).json()["id"] == ids[10]
    assert (await post(api, "/v1/sandboxes", BODY, "key-0")).json()["id"] != ids[0]


async def test_a_large_answer_is_not_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST_ANSWER_BYTES", 100)
    assert (await post(api, "/v1/sandboxes", BODY)).status_code == 201
    assert refusal(await post(api, "/v1/sandboxes", BODY), 409)["code"] == "idempotency_answer_lost"
    assert await creates(api) == 1
