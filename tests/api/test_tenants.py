"""Templates, builds and their logs belong to workspaces: what another one has is as if it did not exist."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pandastack.contract.compare import CompareFiles
from pandastack.contract.references import SandboxRef, TemplateRef
from pandastack.services.templates.builds import DockerfileRecipe, recipe_archive
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.api import Api, Serve, refusal

pytestmark = pytest.mark.anyio

BUILDS, TEMPLATES = "/v1/templates/builds", "/v1/templates"
NOBODYS = "00000000-0000-4000-8000-000000000000"
TAR = {"content-type": "application/x-tar"}

Headers = dict[str, str]


@pytest.fixture
async def ours(api: Api) -> Headers:
    return await api.another("acme")


@pytest.fixture
async def theirs(api: Api) -> Headers:
    return await api.another("rival")


async def build(api: Api, headers: Headers, name: str = "app", dockerfile: str = "FROM base", **more: str) -> Any:
    form = {"name": name, "dockerfile": dockerfile, **more}
    return await api.http.post("/v1/templates/build", data=form, headers=headers)


async def built(api: Api, headers: Headers, name: str = "app", **more: str) -> str:
    answer = await build(api, headers, name, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def names(api: Api, headers: Headers) -> list[tuple[str, bool, str | None]]:
    found = (await api.http.get(TEMPLATES, headers=headers)).json()
    return [(each["name"], each["is_global"], each["workspace"]) for each in found]


async def test_globals_are_listed_first_then_the_callers(api: Api, ours: Headers, theirs: Headers) -> None:
    await built(api, ours, "app")
    await built(api, ours, "another")
    await built(api, theirs, "app")
    of_all = ("base", True, None)
    assert await names(api, ours) == [of_all, ("another", False, "acme"), ("app", False, "acme")]
    assert await names(api, theirs) == [of_all, ("app", False, "rival")]
    assert await names(api, {}) == [of_all]


async def test_what_the_operator_builds_is_everybodys(api: Api, ours: Headers) -> None:
    await built(api, {}, "shared")
    assert ("shared", True, None) in await names(api, ours)
    assert (await api.http.get(f"{TEMPLATES}/shared", headers=ours)).json()["is_global"]
    assert (await create(api, ours, "shared")).json()["template"] == "shared"


def without_names(response: httpx.Response, *given: str) -> tuple[int, str]:
    """What a caller learns from an answer, but for what it said itself."""
    text = response.text
    for each in given:
        text = text.replace(each, "?")
    return response.status_code, text


async def test_another_workspaces_template_is_not_found(api: Api, ours: Headers, theirs: Headers) -> None:
    await built(api, theirs, "secret-project")
    for method in ("GET", "DELETE"):
        one, none = [
            await api.http.request(method, f"{TEMPLATES}/{name}", headers=ours) for name in ("secret-project", "nope")
        ]
        refusal(one, 404)
        assert without_names(one, "secret-project") == without_names(none, "nope")
    one, none = [await create(api, ours, name) for name in ("secret-project", "nope")]
    assert refusal(one, 400)["field"] == "template"
    assert without_names(one, "secret-project") == without_names(none, "nope")
    assert api.engine.machines == {}
    assert (await api.http.get(f"{TEMPLATES}/secret-project", headers=theirs)).status_code == 200


async def create(api: Api, headers: Headers, template: str) -> httpx.Response:
    return await api.http.post("/v1/sandboxes", json={"template": template}, headers=headers)


async def test_two_workspaces_have_templates_of_the_same_name(api: Api, ours: Headers, theirs: Headers) -> None:
    for headers in (ours, theirs):
        await built(api, headers, "app")
    asked = []
    for headers in (ours, theirs):
        answer = await create(api, headers, "app")
        assert answer.json()["template"] == "app", "records have the name that callers know"
        asked.append(await since_template(api, headers, answer.json()["id"]))
    assert asked == [TemplateRef("app", "acme"), TemplateRef("app", "rival")]
    assert (await api.http.delete(f"{TEMPLATES}/app", headers=ours)).status_code == 204
    assert await names(api, ours) == [("base", True, None)]
    assert ("app", False, "rival") in await names(api, theirs)


async def since_template(api: Api, headers: Headers, sandbox_id: str) -> Any:
    """What the engine is asked to compare the sandbox with."""
    answer = await api.http.get(f"/v1/sandboxes/{sandbox_id}/diff", params={"from": "template"}, headers=headers)
    assert answer.status_code == 200, answer.text
    last = api.engine.diffs[-1]
    assert isinstance(last, CompareFiles) and last.after == SandboxRef(sandbox_id)
    return last.before


async def test_builds_are_listed_and_found_by_their_workspace_alone(api: Api, ours: Headers, theirs: Headers) -> None:
    mine, other = await built(api, ours), await built(api, theirs)
    operators = await built(api, {}, "shared")
    for headers, expected in ((ours, mine), (theirs, other), ({}, operators)):
        assert [each["id"] for each in (await api.http.get(BUILDS, headers=headers)).json()] == [expected]
    for foreign in (other, operators):
        for method, rest in (("GET", ""), ("GET", "/logs"), ("GET", "/events"), ("POST", "/cancel")):
            one, none = [
                await api.http.request(method, f"{BUILDS}/{each}{rest}", headers=ours) for each in (foreign, NOBODYS)
            ]
            refusal(one, 404)
            assert without_names(one, foreign) == without_names(none, NOBODYS)
    assert (await api.http.post(f"{BUILDS}/{mine}/cancel", headers=ours)).status_code == 202
    assert "RUN true" in (await api.http.get(f"{BUILDS}/{mine}/logs", headers=ours)).text


async def test_a_build_has_its_workspace_also_after_the_servers_restart(serve: Serve) -> None:
    engine = ScriptedEngine()
    async with serve(engine) as api:
        ours, theirs = await api.another("acme"), await api.another("rival")
        mine = await built(api, ours)
        token = api.token
    async with serve(engine, token) as api:
        assert (await api.http.get(f"{BUILDS}/{mine}", headers=ours)).json()["id"] == mine
        refusal(await api.http.get(f"{BUILDS}/{mine}", headers=theirs), 404)
        assert ("app", False, "acme") in await names(api, ours)


async def test_a_global_name_is_not_shadowed(api: Api, ours: Headers) -> None:
    archive = recipe_archive(DockerfileRecipe("base", "FROM base"))
    for answer in (
        await build(api, ours, "base"),
        await build(api, ours, "code-interpreter", replace="true"),
        await api.http.post("/v1/templates/build", content=archive, headers={**ours, **TAR}),
    ):
        assert refusal(answer, 403)["field"] == "name"
    assert api.engine.builds == {}


async def test_a_name_is_taken_only_in_its_workspace(api: Api, ours: Headers, theirs: Headers) -> None:
    await built(api, theirs)
    await built(api, ours)
    assert refusal(await build(api, ours), 409)["field"] == "name"
    await built(api, ours, replace="true")


async def test_shipped_templates_are_built_by_the_operator(api: Api, ours: Headers) -> None:
    for name in ("base", "no-such"):
        answer = await api.http.post("/v1/templates/build", params={"shipped": name}, headers=ours)
        assert refusal(answer, 403)["field"] == "shipped"
    assert api.engine.builds == {}
    assert (await api.http.get("/v1/templates/recipes", headers=ours)).json() == ["base", "code-interpreter"]


async def test_deleting(api: Api, ours: Headers) -> None:
    await built(api, ours)
    assert refusal(await api.http.delete(f"{TEMPLATES}/base", headers=ours), 403)["field"] == "name"
    sandbox = (await create(api, ours, "app")).json()["id"]
    assert (await api.http.delete(f"{TEMPLATES}/app", headers=ours)).status_code == 204
    refusal(await api.http.delete(f"{TEMPLATES}/app", headers=ours), 404)
    refusal(await create(api, ours, "app"), 400)
    assert (await api.http.get(f"/v1/sandboxes/{sandbox}", headers=ours)).json()["status"] == "running"
    await built(api, ours)
    for name in ("..", "%2e%2e", "a%2Fb", "builds"):
        refusal(await api.http.delete(f"{TEMPLATES}/{name}", headers=ours), 404)


async def test_the_operator_deletes_what_is_everybodys_by_its_own_name(api: Api) -> None:
    refusal(await api.http.delete(f"{TEMPLATES}/ubuntu-24.04"), 404)
    assert (await api.http.delete(f"{TEMPLATES}/base")).status_code == 204
    assert await names(api, {}) == []


async def test_agents_see_what_their_workspace_sees(api: Api, ours: Headers, theirs: Headers) -> None:
    await built(api, theirs, "secret-project")
    await built(api, ours, "app")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_templates", "arguments": {}}}
    answer = await api.http.post("/mcp", json=call, headers=ours)
    assert '"app' in answer.text.replace("\\", "")
    assert "secret-project" not in answer.text


async def test_the_health_names_no_workspaces_template(api: Api, theirs: Headers) -> None:
    await built(api, theirs, "secret-project")
    for path in ("/healthz", "/metrics", "/v1/version"):
        assert "secret-project" not in (await api.http.get(path)).text
