"""What GitHub publishes of its API and webhooks is understood, and our stand-in for its API answers as it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pandastack.services.github.actions import Actions
from pandastack.services.github.client import open_client
from pandastack.services.github.events import Kind, PullRequest, Push, WorkflowJob, parse_event
from tests.conformance import official
from tests.support.github import REPOSITORY, TOKEN, FakeGitHub, faking

pytestmark = [pytest.mark.network, pytest.mark.anyio]

RUNNERS = "/repos/{owner}/{repo}/actions/runners"
RUNS = "/repos/{owner}/{repo}/actions/runs"


@pytest.fixture(scope="module")
def documents() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("this host has no npm")
    return official.github_documents()


@pytest.fixture(scope="module")
def openapi(documents: Path) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads((documents / "openapi.json").read_bytes())
    return document


@pytest.fixture(scope="module")
def examples(documents: Path) -> Mapping[str, list[dict[str, Any]]]:
    return {each["name"]: each["examples"] for each in json.loads((documents / "webhooks.json").read_bytes())}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with faking() as made:
        yield made


def content(openapi: Mapping[str, Any], method: str, path: str, status: str) -> Any:
    """What the document says of an answer: schema and examples."""
    answer = openapi["paths"][path][method]["responses"][status]
    if "$ref" in answer:
        answer = openapi["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer["content"]["application/json"]


def example(openapi: Mapping[str, Any], method: str, path: str, status: str) -> Any:
    (first, *_) = content(openapi, method, path, status)["examples"].values()
    return (
        openapi["components"]["examples"][first["$ref"].rpartition("/")[2]]["value"]
        if "$ref" in first
        else first["value"]
    )


def check(openapi: Mapping[str, Any], method: str, path: str, status: int, value: Any) -> None:
    """Compare an answer with the document's schema."""
    schema = content(openapi, method, path, str(status))["schema"]
    components = {"schemas": _nullable(openapi["components"]["schemas"])}
    faults = Draft202012Validator({**_nullable(schema), "components": components}).iter_errors(value)
    assert [f"{each.json_path}: {each.message[:200]}" for each in faults] == []


def _nullable(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 as one of JSON Schema."""
    if isinstance(schema, list):
        return [_nullable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: _nullable(value) for key, value in schema.items()}
    if parts.pop("nullable", None) is True and isinstance(parts.get("type"), str):
        parts["type"] = [parts["type"], "null"]
    return parts


async def test_the_stand_in_answers_as_the_document_says(openapi: Mapping[str, Any], github: FakeGitHub) -> None:
    body = {"name": "r", "runner_group_id": 1, "labels": ["self-hosted", "linux"], "work_folder": "_work"}
    path = f"/repos/{REPOSITORY}/actions/runners"
    status, _, made = github.answer("POST", f"{path}/generate-jitconfig", body)
    check(openapi, "post", f"{RUNNERS}/generate-jitconfig", status, made)
    status, _, listed = github.answer("GET", path, None)
    check(openapi, "get", RUNNERS, status, listed)
    assert len(listed["runners"]) == 1
    responses = openapi["paths"][RUNNERS + "/{runner_id}"]["delete"]["responses"]
    github.runners[made["runner"]["id"]]["busy"] = True
    for expected in (422, 204):
        status, _, _ = github.answer("DELETE", f"{path}/{made['runner']['id']}", None)
        assert status == expected and str(status) in responses
        for runner in github.runners.values():
            runner["busy"] = False
    again = openapi["paths"][f"{RUNNERS}/generate-jitconfig"]["post"]["responses"]
    assert {"409", "422"} <= set(again)


async def test_what_we_send_is_what_the_document_asks_for(openapi: Mapping[str, Any], github: FakeGitHub) -> None:
    wanted = openapi["paths"][f"{RUNNERS}/generate-jitconfig"]["post"]["requestBody"]["content"]["application/json"]
    sent: list[Any] = []
    answer = github.answer

    def watched(method: str, target: str, body: Any) -> Any:
        sent.append(body)
        return answer(method, target, body)

    github.answer = watched  # type: ignore[method-assign]
    async with open_client(github.url) as client:
        await Actions(client).generate_jit_config(TOKEN, REPOSITORY, "r", ["linux"])
    assert list(Draft202012Validator(wanted["schema"]).iter_errors(sent[0])) == []


async def test_published_answers_are_understood(openapi: Mapping[str, Any], github: FakeGitHub) -> None:
    async with open_client(github.url) as client:
        actions = Actions(client)
        made = example(openapi, "post", f"{RUNNERS}/generate-jitconfig", "201")
        github.replies = [(201, {}, made)]
        config = await actions.generate_jit_config(TOKEN, REPOSITORY, "New runner", ["linux"])
        assert (config.runner_id, config.encoded) == (made["runner"]["id"], made["encoded_jit_config"])
        listed = example(openapi, "get", RUNNERS, "200")
        github.replies = [(200, {}, listed)]
        found = await actions.list_runners(TOKEN, REPOSITORY)
        assert [(each.id, each.name, each.busy) for each in found] == [
            (each["id"], each["name"], each["busy"]) for each in listed["runners"]
        ]
        runs, jobs = example(openapi, "get", RUNS, "200"), example(openapi, "get", RUNS + "/{run_id}/jobs", "200")
        waiting = {**jobs, "jobs": [{**each, "status": "queued"} for each in jobs["jobs"]]}
        github.replies = [(200, {}, runs), (200, {}, waiting), (200, {}, {**runs, "workflow_runs": []})]
        queued = await actions.list_queued_jobs(TOKEN, REPOSITORY)
        assert [each.id for each in queued] == [each["id"] for each in jobs["jobs"]]
        assert f"/actions/runs/{runs['workflow_runs'][0]['id']}/jobs" in github.asked[3][1]


def test_published_webhooks_are_understood(examples: Mapping[str, list[dict[str, Any]]]) -> None:
    for payload in examples[Kind.WORKFLOW_JOB]:
        event, job = parse_event(Kind.WORKFLOW_JOB, payload), payload["workflow_job"]
        assert isinstance(event, WorkflowJob)
        assert (event.action, event.id, event.run_id) == (payload["action"], job["id"], job["run_id"])
        assert list(event.labels) == [each.lower() for each in job["labels"]]
        assert event.runner_id == (job["runner_id"] or None) and event.runner_name == (job["runner_name"] or None)
    pushes = [parse_event(Kind.PUSH, each) for each in examples[Kind.PUSH]]
    expected = [each["ref"].startswith("refs/heads/") and not each["deleted"] for each in examples[Kind.PUSH]]
    assert [isinstance(each, Push) for each in pushes] == expected and any(expected)
    for payload in examples[Kind.PULL_REQUEST]:
        pull = parse_event(Kind.PULL_REQUEST, payload)
        assert isinstance(pull, PullRequest) and pull.number == payload["number"]


def test_no_other_published_webhook_is_taken_for_one(examples: Mapping[str, list[dict[str, Any]]]) -> None:
    others = [name for name in examples if name not in tuple(Kind)]
    assert len(others) > 40
    assert [name for name in others for each in examples[name] if parse_event(name, each) is not None] == []
