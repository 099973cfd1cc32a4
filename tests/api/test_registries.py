"""Credentials for registries over the API: written, listed without passwords, used by builds of their workspace."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack.model.registries import RegistryCredential
from pandastack.services.secrets.registries import MOST_BYTES
from tests.support.api import Api, refusal

pytestmark = pytest.mark.anyio

BODY = {"username": "me", "password": "pass:word-ü"}
BUILD = "/v1/templates/build"
ONE = "/v1/registries/r.example:5000"


async def test_credentials_are_put_listed_and_deleted(api: Api) -> None:
    made = await api.http.put(ONE, json=BODY)
    assert made.status_code == 200 and made.json()["host"] == "r.example:5000" and made.json()["username"] == "me"
    changed = await api.http.put("/v1/registries/R.Example:5000", json={"username": "you", "password": "other-word"})
    assert changed.json()["created_at"] == made.json()["created_at"]
    assert (await api.http.put("/v1/registries/index.docker.io", json=BODY)).json()["host"] == "docker.io"
    listed = await api.http.get("/v1/registries")
    assert [(each["host"], each["username"]) for each in listed.json()["registries"]] == [
        *(("docker.io", "me"), ("r.example:5000", "you"))
    ]
    assert not any("word" in each.text for each in (made, changed, listed))
    assert (await api.http.get("/v1/secrets")).json() == {"secrets": []}, "they are no secrets of sandboxes"
    assert (await api.http.delete(ONE)).status_code == 204
    refusal(await api.http.delete(ONE), 404)
    assert len((await api.http.get("/v1/registries")).json()["registries"]) == 1


@pytest.mark.parametrize(
    ("host", "change", "field"),
    [
        ("a_b", {}, "host"),
        ("r.example:0", {}, "host"),
        ("-x", {}, "host"),
        ("r.example", {"username": ""}, "username"),
        ("r.example", {"username": "a:b"}, "username"),
        ("r.example", {"username": "a\nb"}, "username"),
        ("r.example", {"username": None}, "username"),
        ("r.example", {"password": ""}, "password"),
        ("r.example", {"password": "x" * 8193}, "password"),
        ("r.example", {"password": "secret\0word"}, "password"),
        ("r.example", {"password": 7}, "password"),
    ],
)
async def test_bad_input_names_its_field_and_does_not_repeat_the_password(
    api: Api, host: str, change: dict[str, Any], field: str
) -> None:
    answer = await api.http.put(f"/v1/registries/{host}", json={**BODY, **change})
    assert refusal(answer, 400)["field"] == field
    assert "word" not in answer.text.replace("password", "")
    assert (await api.http.get("/v1/registries")).json() == {"registries": []}


async def test_a_workspace_has_a_bounded_number(api: Api) -> None:
    for number in range(20):
        assert (await api.http.put(f"/v1/registries/r{number}.example", json=BODY)).status_code == 200
    assert "20 registries" in refusal(await api.http.put("/v1/registries/more.example", json=BODY), 429)["error"]
    assert (await api.http.put("/v1/registries/r1.example", json=BODY)).status_code == 200
    large = {"username": "me", "password": "x" * (MOST_BYTES // 2)}
    assert (await api.http.put("/v1/registries/r1.example", json=large)).status_code == 200
    assert "KiB together" in refusal(await api.http.put("/v1/registries/r2.example", json=large), 429)["error"]


async def test_builds_get_the_credentials_of_their_workspace_and_no_record_has_them(api: Api) -> None:
    form = {"name": "mine", "dockerfile": "FROM r.example:5000/x"}
    await api.http.post(BUILD, data=form)
    awkward = {"username": "me", "password": "\n\t\"'\\ü" * 1000}
    await api.http.put(ONE, json=awkward)
    answers = [
        await api.http.post(BUILD, data={**form, "replace": "true"}),
        await api.http.post(BUILD, data={"name": "image", "image_ref": "r.example:5000/x"}),
        await api.http.get("/v1/templates/builds"),
    ]
    credential = RegistryCredential("r.example:5000", "me", awkward["password"])
    assert [each.credentials for each in api.engine.build_options] == [(), (credential,), (credential,)]
    assert awkward["password"] not in repr(api.engine.build_options)
    assert not any("'" in each.text for each in answers)


async def test_credentials_survive_a_new_key(api: Api) -> None:
    await api.http.put(ONE, json=BODY)
    await api.http.post("/v1/secrets/rotate-key")
    await api.http.post(BUILD, data={"name": "mine", "dockerfile": "FROM base"})
    assert [each.credentials for each in api.engine.build_options] == [(RegistryCredential("r.example:5000", **BODY),)]


async def test_another_workspace_sees_and_uses_none(api: Api) -> None:
    await api.http.put(ONE, json=BODY)
    plane = api.app.state.plane
    assert await plane.registries.credentials("another") == ()
