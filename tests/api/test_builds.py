"""Template builds over the API: forms and archives, what is refused, and the two kinds of log."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from pandastack.services.templates import builds as services
from tests.support.api import Api, refusal

pytestmark = pytest.mark.anyio

BUILD = "/v1/templates/build"


def tar(dockerfile: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile)
        file.addfile(member, io.BytesIO(dockerfile.encode()))
    return archive.getvalue()


async def ended(api: Api, build: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = (await api.http.get(f"/v1/templates/builds/{build['id']}")).json()
    return answer


async def test_a_form_without_files_is_url_encoded(api: Api) -> None:
    form = {"name": "mine", "dockerfile": "FROM base\nRUN true", "memory_mb": "256"}
    answer = await api.http.post(BUILD, data=form)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "queued"
    assert (await ended(api, answer.json()))["status"] == "done"
    assert api.engine.recipes == ["FROM base\nRUN true"]
    assert [each["id"] for each in (await api.http.get("/v1/templates/builds")).json()] == [answer.json()["id"]]


async def test_a_form_with_files_is_multipart(api: Api) -> None:
    form = {"name": "mine", "dockerfile": "FROM base\nCOPY a /a"}
    answer = await api.http.post(BUILD, data=form, files={"sub/a": ("a", b"content")})
    assert answer.status_code == 202, answer.text


async def test_a_folder_comes_as_an_archive(api: Api) -> None:
    answer = await api.http.post(BUILD, content=tar("FROM base"), headers={"content-type": "application/x-tar"})
    assert answer.status_code == 202, answer.text
    assert api.engine.recipes == ["FROM base"]


async def test_options_reach_the_engine_from_each_kind_of_request(api: Api) -> None:
    form = {"name": "mine", "dockerfile": "FROM base AS one\nFROM base", "target": "one"}
    tarred = {"content-type": "application/x-tar"}
    for answer in (
        await api.http.post(BUILD, data=form),
        await api.http.post(BUILD, params={"target": "1"}, content=tar("FROM base"), headers=tarred),
        await api.http.post(BUILD, params={"shipped": "base", "target": "x"}),
        await api.http.post(BUILD, params={"shipped": "base"}),
        await api.http.post(BUILD, data={**form, "name": "other", "no_cache": "true", "target": ""}),
        await api.http.post(BUILD, params={"no_cache": "1"}, content=tar("FROM base"), headers=tarred),
        await api.http.post(BUILD, params={"shipped": "base", "no_cache": "0"}),
    ):
        assert answer.status_code == 202, answer.text
    expected = [("one", False), ("1", True), ("x", True), ("", True)]  # a form replaces nothing unless it says so
    assert [(each.target, each.replace) for each in api.engine.build_options][:4] == expected
    assert [each.no_cache for each in api.engine.build_options] == [False, False, False, False, True, True, False]


async def test_arguments_and_secrets_reach_the_engine(api: Api) -> None:
    made = await api.http.post("/v1/secrets", json={"name": "STORED", "value": "of the workspace"})
    assert made.status_code == 201, made.text
    given = {
        "build_args": '{"A": "1", "B": ""}',
        "secrets": '{"a": {"value": "x"}, "b": {"base64": "AP8="}, "c": {"secret": "STORED"}}',
    }
    form = {"name": "mine", "dockerfile": "FROM base\nARG A B", "replace": "true", **given}
    files = {"recipe": ("recipe.tar", tar("FROM base"), "application/x-tar")}
    for answer in (
        await api.http.post(BUILD, data=form),
        await api.http.post(BUILD, data=form, files={"recipe": ("recipe", b"a file of the context")}),
        await api.http.post(BUILD, data={**given, "target": "t"}, files=files),
    ):
        assert answer.status_code == 202, answer.text
    options = api.engine.build_options
    assert [each.target for each in options] == ["", "", "t"]
    for each in options:
        assert each.arguments == {"A": "1", "B": ""}
        assert each.secrets == {"a": b"x", "b": b"\0\xff", "c": b"of the workspace"}
    assert api.engine.recipes[-1] == "FROM base"
    assert "of the workspace" not in repr(options)


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"build_args": "A=1"}, 400, "build_args"),
        ({"build_args": '{"A": 1}'}, 400, "build_args.A"),
        ({"secrets": "[]"}, 400, "secrets"),
        ({"secrets": '{"a": "hunter2hunter2"}'}, 400, "secrets.a"),
        ({"secrets": '{"a": {}}'}, 400, "secrets.a"),
        ({"secrets": '{"a": {"value": "hunter2hunter2", "secret": "B"}}'}, 400, "secrets.a"),
        ({"secrets": '{"a": {"base64": "hunter2hunter2!"}}'}, 400, "secrets.a"),
        ({"secrets": '{"a": {"secret": "MISSING"}}'}, 404, None),
        ({"secrets": '{"a": {"secret": "BOUND"}}'}, 400, "secrets"),
    ],
)
async def test_what_is_given_and_refused(api: Api, given: dict[str, str], status: int, field: str | None) -> None:
    bound = {"name": "BOUND", "value": "hunter2hunter2", "hosts": ["api.example.org"]}
    assert (await api.http.post("/v1/secrets", json=bound)).status_code == 201
    answer = await api.http.post(BUILD, data={"name": "mine", "dockerfile": "FROM base", **given})
    assert refusal(answer, status).get("field") == field
    assert "hunter2" not in answer.text
    assert api.engine.builds == {}


async def test_an_image_of_a_registry_is_a_dockerfile_of_one_line(api: Api) -> None:
    """In its full name, so that it is no template of that name."""
    for name in ("base", "r.example:5000/team/x:1"):
        answer = await api.http.post(BUILD, data={"name": "mine", "image_ref": name, "replace": "true"})
        assert answer.status_code == 202, answer.text
    assert api.engine.recipes == ["FROM docker.io/library/base:latest\n", "FROM r.example:5000/team/x:1\n"]


@pytest.mark.parametrize("target", ["a b", "x" * 129, "a/b"])
async def test_a_target_that_no_stage_can_have(api: Api, target: str) -> None:
    form = {"name": "mine", "dockerfile": "FROM base", "target": target}
    assert refusal(await api.http.post(BUILD, data=form), 400)["field"] == "target"
    refusal(await api.http.post(BUILD, params={"shipped": "base", "target": target}), 400)
    refusal(await api.http.post(BUILD, params={"shipped": "base", "no_cache": "perhaps"}), 400)
    assert api.engine.builds == {}


async def test_a_shipped_recipe_is_named(api: Api) -> None:
    assert (await api.http.get("/v1/templates/recipes")).json() == ["base", "code-interpreter"]
    assert (await api.http.post(BUILD, params={"shipped": "base"})).json()["name"] == "base"
    assert refusal(await api.http.post(BUILD, params={"shipped": "other"}), 404)["field"] == "shipped"


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({"dockerfile": "FROM base"}, 400, "name"),
        ({"name": "a b", "dockerfile": "FROM base"}, 400, "name"),
        ({"name": "mine"}, 400, "dockerfile"),
        ({"name": "mine", "dockerfile": "FROM base", "cpu": "65"}, 400, "cpu"),
        ({"name": "mine", "dockerfile": "FROM base", "memory_mb": "x"}, 400, "memory_mb"),
        ({"name": "mine", "dockerfile": "FROM base", "size_mb": "20000"}, 400, "size_mb"),
        ({"name": "mine", "image_ref": "De bian"}, 400, "image_ref"),
        ({"name": "mine", "image_ref": "oci:/srv/images:1"}, 400, "image_ref"),
        ({"name": "mine", "image_ref": "debian\nRUN true"}, 400, "image_ref"),
        ({"name": "mine", "image_ref": "debian", "dockerfile": "FROM base"}, 400, "image_ref"),
        ({"name": "mine", "image_ref": "debian", "target": "one"}, 400, "image_ref"),
        ({"name": "base", "image_ref": "debian"}, 403, "name"),
        ({"name": "base", "dockerfile": "FROM base"}, 403, "name"),
    ],
)
async def test_a_form_that_is_refused(api: Api, form: dict[str, str], status: int, field: str) -> None:
    assert refusal(await api.http.post(BUILD, data=form), status)["field"] == field
    assert api.engine.builds == {}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
async def test_a_file_outside_of_the_context_is_refused(api: Api, name: str) -> None:
    form = {"name": "mine", "dockerfile": "FROM base"}
    assert refusal(await api.http.post(BUILD, data=form, files={name: ("a", b"x")}), 400)["field"] == "files"
    assert api.engine.builds == {}


async def test_a_context_over_the_limit_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "CONTEXT_MAX", 10)
    form = {"name": "mine", "dockerfile": "FROM base"}
    refusal(await api.http.post(BUILD, data=form, files={"a": ("a", b"x" * 11)}), 400)


async def test_the_log_is_text_for_people_and_events_for_programs(api: Api) -> None:
    build = (await api.http.post(BUILD, params={"shipped": "base"})).json()
    text = (await api.http.get(f"/v1/templates/builds/{build['id']}/logs", params={"follow": "1"})).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    assert lines == ["==> RUN true", "    end", "    RUN true: 0.5 s 1 MB", "end"]
    assert text.rstrip().endswith("event: done\ndata: end")
    events = (await api.http.get(f"/v1/templates/builds/{build['id']}/events")).text
    names = [line.removeprefix("event: ") for line in events.splitlines() if line.startswith("event:")]
    assert names == ["step", "line", "step_ended", "ended"]


async def test_a_failed_build_says_why(api: Api) -> None:
    build = (await api.http.post(BUILD, data={"name": "mine", "dockerfile": "FROM base\nRUN FAIL"})).json()
    assert (await ended(api, build))["error"] == "line 1: failed"
    text = (await api.http.get(f"/v1/templates/builds/{build['id']}/logs")).text
    assert "data: error: line 1: failed" in text


async def test_unknown_builds(api: Api) -> None:
    for path in ("no-uuid", "00000000-0000-4000-8000-000000000000"):
        refusal(await api.http.get(f"/v1/templates/builds/{path}"), 404)
        refusal(await api.http.get(f"/v1/templates/builds/{path}/logs"), 404)
        refusal(await api.http.post(f"/v1/templates/builds/{path}/cancel"), 404)
