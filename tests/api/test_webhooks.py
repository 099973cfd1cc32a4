"""Webhooks over the API: made, listed without secrets, rotated, with a log of deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from standardwebhooks.webhooks import Webhook

from tests.support.api import Api, refusal
from tests.support.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio

HOOKS = "/v1/webhooks"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


async def made(api: Api, url: str, **more: Any) -> tuple[str, str]:
    """The path of a new webhook, and its secret."""
    answer = await api.http.post(HOOKS, json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    return f"{HOOKS}/{answer.json()['id']}", answer.json()["secret"]


async def until(api: Api, path: str, state: str) -> dict[str, Any]:
    """The newest delivery, once it is in this state."""
    with anyio.fail_after(30):
        while True:
            found = (await api.http.get(f"{path}/deliveries")).json()["deliveries"]
            if found and found[0]["state"] == state:
                return dict(found[0])
            await anyio.sleep(0.02)


async def test_a_webhook_is_made_listed_changed_and_deleted(api: Api) -> None:
    path, secret = await made(api, "https://x.example/hook", events=["build.*"], description="builds")
    assert secret.startswith("whsec_")
    shown = (await api.http.get(path)).json()
    assert shown["events"] == ["build.*"] and shown["description"] == "builds" and shown["enabled"] is True
    listed = await api.http.get(HOOKS)
    assert listed.json() == {"webhooks": [shown]} and secret not in listed.text
    changed = await api.http.patch(path, json={"url": "https://y.example/", "events": ["*"], "enabled": False})
    assert (changed.json()["url"], changed.json()["events"], changed.json()["enabled"]) == (
        *("https://y.example/", ["*"]),
        False,
    )
    assert (await api.http.patch(path, json={})).json() == changed.json() == (await api.http.get(path)).json()
    assert (await api.http.delete(path)).status_code == 204
    refusal(await api.http.get(path), 404)
    refusal(await api.http.delete(path), 404)


async def test_the_types_of_events_are_listed(api: Api) -> None:
    types = [each["type"] for each in (await api.http.get(f"{HOOKS}/events")).json()["events"]]
    assert "sandbox.failed" in types and "build.ended" in types


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "ftp://x.example"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "http://8.8.8.8/"}, "url"),
        ({"url": None}, "url"),
        ({"url": 7}, "url"),
        ({"events": ["no.such"]}, "events"),
        ({"events": "build.ended"}, "events"),
        ({"description": "x" * 257}, "description"),
        ({"enabled": "yes"}, "enabled"),
    ],
)
async def test_bad_input_names_its_field_and_makes_nothing(api: Api, change: dict[str, Any], field: str) -> None:
    answer = await api.http.post(HOOKS, json={"url": "https://x.example", **change})
    assert refusal(answer, 400)["field"] == field
    assert (await api.http.get(HOOKS)).json() == {"webhooks": []}
    path, _ = await made(api, "https://x.example")
    before = (await api.http.get(path)).json()
    if change.get(field) is not None:  # null leaves a value
        assert refusal(await api.http.patch(path, json=change), 400)["field"] == field
    assert (await api.http.get(path)).json() == before


async def test_a_workspace_has_a_bounded_number(api: Api) -> None:
    for _ in range(20):
        await made(api, "https://x.example")
    assert "at most 20" in refusal(await api.http.post(HOOKS, json={"url": "https://x.example"}), 429)["error"]


async def test_a_secret_is_not_stored_with_an_idempotency_key(api: Api) -> None:
    headers = {"idempotency-key": "once"}
    first = await api.http.post(HOOKS, json={"url": "https://x.example"}, headers=headers)
    assert first.status_code == 201
    refusal(await api.http.post(HOOKS, json={"url": "https://x.example"}, headers=headers), 409)
    assert len((await api.http.get(HOOKS)).json()["webhooks"]) == 1


async def test_another_workspace_finds_nothing(api: Api) -> None:
    path, _ = await made(api, "https://x.example")
    theirs = await api.another("rival")
    assert (await api.http.get(HOOKS, headers=theirs)).json() == {"webhooks": []}
    for method, route in (
        *(("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate-secret")),
        *(("GET", "/deliveries"), ("GET", "/deliveries/x"), ("POST", "/deliveries/x/redeliver")),
    ):
        refusal(await api.http.request(method, path + route, headers=theirs), 404)


async def test_a_test_event_is_delivered_logged_and_delivered_again(api: Api, receiver: Receiver) -> None:
    path, secret = await made(api, receiver.url, events=["build.ended"])
    sent = await api.http.post(f"{path}/test")
    assert sent.status_code == 202 and sent.json()["state"] == "pending"
    (first,) = await receiver.until(1)
    assert Webhook(secret).verify(first.body, first.headers)["type"] == "webhook.test"
    found = await until(api, path, "delivered")
    assert (found["id"], found["status"], found["attempts"]) == (sent.json()["id"], 204, 1)
    assert found["event_id"] == first.id and found["message"]["data"] == {"id": path.rpartition("/")[2]}
    again = await api.http.post(f"{path}/deliveries/{found['id']}/redeliver")
    assert again.status_code == 202 and again.json()["id"] == found["id"]
    assert (await receiver.until(2))[1].id == first.id
    one = await until(api, path, "delivered")
    assert (await api.http.get(f"{path}/deliveries/{found['id']}")).json() == one
    assert (await api.http.get(f"{path}/deliveries?state=failed")).json() == {"deliveries": []}
    refusal(await api.http.get(f"{path}/deliveries/nothing"), 404)
    assert refusal(await api.http.get(f"{path}/deliveries?limit=0"), 400)["field"] == "limit"
    assert refusal(await api.http.get(f"{path}/deliveries?state=lost"), 400)["field"] == "state"
    await api.http.patch(path, json={"enabled": False})
    refusal(await api.http.post(f"{path}/test"), 409)
    refusal(await api.http.post(f"{path}/deliveries/{found['id']}/redeliver"), 409)


async def test_a_rotated_secret_and_the_former_one_both_count(api: Api, receiver: Receiver) -> None:
    path, former = await made(api, receiver.url)
    rotated = await api.http.post(f"{path}/rotate-secret")
    secret = rotated.json()["secret"]
    assert rotated.status_code == 200 and secret != former
    await api.http.post(f"{path}/test")
    (first,) = await receiver.until(1)
    assert Webhook(former).verify(first.body, first.headers) == Webhook(secret).verify(first.body, first.headers)
    last = (await api.http.post(f"{path}/rotate-secret", json={"overlap_seconds": 0})).json()["secret"]
    await api.http.post(f"{path}/test")
    second = (await receiver.until(2))[1]
    assert second.headers["webhook-signature"].count("v1,") == 1 and Webhook(last).verify(second.body, second.headers)
    for wrong in (-1, 1e9, "long", True):
        answer = await api.http.post(f"{path}/rotate-secret", json={"overlap_seconds": wrong})
        assert refusal(answer, 400)["field"] == "overlap_seconds"


async def test_secrets_survive_a_new_key(api: Api, receiver: Receiver) -> None:
    path, secret = await made(api, receiver.url)
    await api.http.post("/v1/secrets/rotate-key")
    await api.http.post(f"{path}/test")
    (first,) = await receiver.until(1)
    assert Webhook(secret).verify(first.body, first.headers)
    assert (await api.http.get("/v1/secrets")).json() == {"secrets": []}


async def test_ends_of_template_builds_are_told(api: Api, receiver: Receiver) -> None:
    _, secret = await made(api, receiver.url, events=["build.ended"])
    for name, dockerfile in (("good", "FROM base"), ("bad", "FROM base\nRUN FAIL")):
        await api.http.post("/v1/templates/build", data={"name": name, "dockerfile": dockerfile})
    received = await receiver.until(2)
    told = [Webhook(secret).verify(each.body, each.headers)["data"] for each in received]
    found = {each["template"]: (each["kind"], each["status"], each["error"]) for each in told}
    assert found == {"good": ("template", "done", None), "bad": ("template", "failed", "line 1: failed")}
