"""GitHub's API and its runners, against a server on loopback that answers as GitHub does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import pytest

from pandastack.errors import BadRequestError, ConflictError, RateLimitError, ServerError, UnavailableError
from pandastack.services import ControlPlane
from pandastack.services.github import client as client_module
from pandastack.services.github import runners as runners_module
from pandastack.services.github import supply
from pandastack.services.github.actions import Actions
from pandastack.services.github.client import GitHubClient, Refused, open_client
from pandastack.services.github.events import WorkflowJob
from pandastack.services.github.supply import ActionsPool
from pandastack.store import github as table
from pandastack.store import open_store
from pandastack.store.github import Phase, RunnerRecord
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.github import ORGANIZATION, REPOSITORY, TOKEN, FakeGitHub, faking
from tests.support.plane import CALLER, OUTSIDER, QUICK, WORKSPACE, add_workspace, running

pytestmark = pytest.mark.anyio

POOL = ActionsPool("0a1b2c3d-aaaa-4bbb-8ccc-ddddeeeeffff", WORKSPACE, REPOSITORY, ("self-hosted", "linux"), most=2)


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with faking() as made:
        yield made


@pytest.fixture
async def client(github: FakeGitHub) -> AsyncIterator[GitHubClient]:
    async with open_client(github.url) as made:
        yield made


@asynccontextmanager
async def connected(engine: ScriptedEngine, url: str, github: FakeGitHub) -> AsyncIterator[ControlPlane]:
    async with running(engine, url, replace(QUICK, github_api_url=github.url)) as plane:
        if await plane.github.connections.find(WORKSPACE) is None:
            await plane.github.connect(CALLER, TOKEN)
        yield plane


@dataclass
class Machines:
    """Machines whose runner ends when a test says so. ``error`` is raised before one starts."""

    github: FakeGitHub
    running: dict[str, anyio.Event] = field(default_factory=dict)
    configs: list[str] = field(default_factory=list)
    error: Exception | None = None
    ended: list[str] = field(default_factory=list)

    async def run(self, pool: str, name: str, jit_config: str, started: Callable[[], Awaitable[None]]) -> None:
        self.configs.append(jit_config)
        if self.error is not None:
            raise self.error
        done = self.running[name] = anyio.Event()
        try:
            await started()
            await done.wait()
        finally:
            del self.running[name]
            self.ended.append(name)

    async def until(self, count: int) -> list[str]:
        """Wait until so many run."""
        await self.github.until(lambda _: len(self.running) == count)
        return list(self.running)


def told(action: str, job_id: int = 1, name: str | None = None, *labels: str) -> WorkflowJob:
    return WorkflowJob(action, REPOSITORY, job_id, 7, labels or ("self-hosted", "linux"), None, name)


async def until_phase(plane: ControlPlane, phase: Phase) -> RunnerRecord:
    with anyio.fail_after(30):
        while True:
            found = plane.github.runners.state(POOL.id).runners
            if found and found[0].phase is phase:
                return found[0]
            await anyio.sleep(0.01)


async def until_none(plane: ControlPlane) -> None:
    with anyio.fail_after(30):
        while True:
            if not plane.github.runners.state(POOL.id).runners:
                return
            await anyio.sleep(0.01)


async def stored(url: str) -> list[RunnerRecord]:
    async with open_store(url) as store, store.read() as connection:
        return await table.load_runners(connection)


async def until_none_stored(url: str) -> None:
    """Wait until no runner has a record: it goes once its runner has gone at GitHub."""
    with anyio.fail_after(30):
        while True:
            if not await stored(url):
                return
            await anyio.sleep(0.01)


async def test_the_operations(client: GitHubClient, github: FakeGitHub) -> None:
    actions = Actions(client)
    for scope in (REPOSITORY, ORGANIZATION):
        made = await actions.generate_jit_config(TOKEN, scope, f"r-{len(scope)}", ["linux"])
        assert made.encoded not in repr(made)
        with pytest.raises(ConflictError):
            await actions.generate_jit_config(TOKEN, scope, f"r-{len(scope)}", ["linux"])
        assert [each.id for each in await actions.list_runners(TOKEN, scope, f"r-{len(scope)}")] == [made.runner_id]
        github.runners[made.runner_id]["busy"] = True
        assert not await actions.delete_runner(TOKEN, scope, made.runner_id)
        github.runners[made.runner_id]["busy"] = False
        assert await actions.delete_runner(TOKEN, scope, made.runner_id)
        assert await actions.delete_runner(TOKEN, scope, made.runner_id), "one that is gone is fine"
    github.queue(1, "Linux")
    github.jobs.append({"id": 2, "run_id": 7, "status": "in_progress", "labels": []})
    found = await actions.list_queued_jobs(TOKEN, REPOSITORY)
    assert [(each.id, each.labels) for each in found] == [(1, ("linux",))]


async def test_long_lists_come_in_pages(client: GitHubClient, github: FakeGitHub) -> None:
    for number in range(230):
        github.runners[number + 1] = {"id": number + 1, "name": f"r{number}", "busy": False}
    assert len(await Actions(client).list_runners(TOKEN, REPOSITORY)) == 230


async def test_asking_again_costs_nothing_while_nothing_has_changed(client: GitHubClient, github: FakeGitHub) -> None:
    actions = Actions(client)
    github.queue(1, "linux")
    first = await actions.list_queued_jobs(TOKEN, REPOSITORY)
    assert github.tagged == 0 and await actions.list_queued_jobs(TOKEN, REPOSITORY) == first
    assert github.tagged == 3
    github.queue(2, "linux")
    assert len(await actions.list_queued_jobs(TOKEN, REPOSITORY)) == 2


async def test_a_limit_is_kept_without_asking_again(client: GitHubClient, github: FakeGitHub) -> None:
    github.replies = [(403, {"retry-after": "600"}, {"message": "You have exceeded a secondary rate limit"})]
    for _ in range(3):
        with pytest.raises(RateLimitError) as caught:
            await client.ask(TOKEN, "GET", "/user")
        assert 590 < caught.value.retry_after <= 601
    assert len(github.asked) == 1
    other = await _refusal(client, "other")  # a budget belongs to a token
    assert other.refusal == 401


async def _refusal(client: GitHubClient, token: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await client.ask(token, "GET", "/user")
    return caught.value


async def test_broken_connections_are_tried_again_where_that_is_safe(
    client: GitHubClient, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.replies = [(0, {}, None), (502, {}, b"<html>")]
    assert (await client.ask(TOKEN, "GET", "/user"))["login"] == "octocat"
    github.replies = [(0, {}, None)]
    with pytest.raises(UnavailableError):
        await Actions(client).generate_jit_config(TOKEN, REPOSITORY, "r", ["linux"])
    assert github.count("POST", "jitconfig") == 1
    monkeypatch.setattr(client_module, "_TRIES", 1)
    for reply in ((0, {}, None), (500, {}, None)):
        github.replies = [reply]
        with pytest.raises(UnavailableError):
            await client.ask(TOKEN, "GET", "/user")


@pytest.mark.parametrize(
    "value",
    [b"{", b"", [], {"runners": None}, {"runners": [{"id": "1"}]}, {"runners": [{"id": True, "name": "", "busy": 0}]}],
)
async def test_answers_that_make_no_sense_are_refused(client: GitHubClient, github: FakeGitHub, value: object) -> None:
    github.replies = [(200, {}, value)]
    with pytest.raises(Refused):
        await Actions(client).list_runners(TOKEN, REPOSITORY)


async def test_a_long_answer_and_a_redirect_are_refused(
    client: GitHubClient, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MOST_BYTES", 1000)
    github.replies = [(200, {}, {"login": "x" * 2000}), (302, {"location": "http://127.0.0.1:1/"}, None)]
    assert "too long" in (await _refusal(client, TOKEN)).message
    assert (await _refusal(client, TOKEN)).refusal == 302


async def test_a_token_is_stored_encrypted_if_github_takes_it(
    engine: ScriptedEngine, url: str, github: FakeGitHub
) -> None:
    async with connected(engine, url, github) as plane:
        first = await plane.github.connections.get(CALLER)
        with pytest.raises(BadRequestError, match="does not accept") as caught:
            await plane.github.connect(CALLER, "ghp_wrong")
        assert caught.value.field == "token"
        again = await plane.github.connect(CALLER, TOKEN)
        assert (again.id, again.hook_secret, again.login) == (first.id, first.hook_secret, "octocat")
        assert TOKEN not in repr(again) and first.hook_secret not in repr(again)
        assert await plane.github.connections.find(OUTSIDER.workspace) is None
    async with connected(engine, url, github) as plane:
        assert await plane.github.connections.find_by_id(first.id) == again


async def test_a_job_gets_a_runner_which_is_gone_afterwards(
    engine: ScriptedEngine, url: str, github: FakeGitHub
) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        await runners.handle(told("queued"), WORKSPACE)
        (name,) = await machines.until(1)
        await runners.handle(told("queued"), WORKSPACE)  # told twice
        listening = await until_phase(plane, Phase.LISTENING)
        assert (listening.name, listening.runner_id, github.names()) == (name, 21, [name])
        assert await _journal(plane) == [name]
        await runners.handle(told("in_progress", 1, name), WORKSPACE)
        assert (await until_phase(plane, Phase.BUSY)).job_id == 1
        await runners.handle(told("completed", 1, name), WORKSPACE)
        await until_phase(plane, Phase.FINISHING)
        machines.running[name].set()
        await until_none(plane)
        assert github.names() == [] and await _journal(plane) == [] and len(machines.configs) == 1
        assert runners.state(POOL.id).error is None


async def _journal(plane: ControlPlane) -> list[str]:
    async with plane.store.read() as connection:
        return [each.name for each in await table.load_runners(connection)]


async def test_events_in_any_order_do_no_harm(engine: ScriptedEngine, url: str, github: FakeGitHub) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        await runners.handle(told("completed", 1), WORKSPACE)  # cancelled before it was queued
        await runners.handle(told("waiting", 2), WORKSPACE)
        await runners.handle(told("queued", 3, None, "linux", "gpu"), WORKSPACE)  # nobody has such labels
        await runners.handle(told("queued", 4), WORKSPACE)
        (name,) = await machines.until(1)
        await runners.handle(told("completed", 4, name), WORKSPACE)
        await runners.handle(told("in_progress", 4, name), WORKSPACE)
        await until_phase(plane, Phase.FINISHING)
        machines.running[name].set()
        await until_none(plane)
        assert len(machines.configs) == 1


async def test_a_pool_has_no_more_runners_than_it_may(engine: ScriptedEngine, url: str, github: FakeGitHub) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        plane.github.runners.offer(POOL, machines)
        for number in range(1, 6):
            await plane.github.runners.handle(told("queued", number), WORKSPACE)
        first, second = await machines.until(2)
        assert plane.github.runners.state(POOL.id).waiting == 5
        for number, name in ((1, first), (2, second)):
            await plane.github.runners.handle(told("in_progress", number, name), WORKSPACE)
        assert len(machines.running) == 2
        machines.running[first].set()
        await github.until(lambda _: len(machines.configs) == 3)


async def test_a_sweep_finds_what_webhooks_have_lost(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners_module, "_TRUSTED_SECONDS", 0.0)
    machines = Machines(github)
    github.queue(1, "self-hosted", "linux")
    async with connected(engine, url, github) as plane:
        plane.github.runners.offer(POOL, machines)
        (name,) = await machines.until(1)
        github.jobs.clear()  # it runs, and nobody told us
        github.runners[21]["busy"] = True
        await plane.github.runners.sweep()
        await until_phase(plane, Phase.BUSY)
        assert plane.github.runners.state(POOL.id).waiting == 0
        github.runners[21]["busy"] = False
        machines.running[name].set()
        await until_none(plane)


async def test_an_event_of_another_workspace_starts_nothing_here(
    engine: ScriptedEngine, url: str, github: FakeGitHub
) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        await add_workspace(plane, OUTSIDER.workspace)
        runners = plane.github.runners
        runners.offer(POOL, machines)
        runners.offer(replace(POOL, id="theirs", workspace=OUTSIDER.workspace), machines)
        await runners.handle(told("queued", 1), WORKSPACE)
        (name,) = await machines.until(1)
        await runners.handle(told("in_progress", 1, name), OUTSIDER.workspace)
        await runners.handle(told("completed", 1, name), OUTSIDER.workspace)
        assert runners.state(POOL.id).runners[0].phase is Phase.LISTENING and runners.state(POOL.id).waiting == 1
        await runners.handle(told("in_progress", 1, name), None)  # the server's own webhook serves all
        await until_phase(plane, Phase.BUSY)


async def test_a_start_that_fails_is_said_and_tried_again(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "_FIRST_PAUSE", 0.05)
    machines = Machines(github, error=ServerError("no room"))
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        await runners.handle(told("queued"), WORKSPACE)
        await github.until(lambda _: len(machines.configs) >= 2)
        assert runners.state(POOL.id).error == "registered: no room"
        machines.error = None
        (name,) = await machines.until(1)
        await until_phase(plane, Phase.LISTENING)
        assert runners.state(POOL.id).error is None and github.names() == [name], "what failed is gone at GitHub"


async def test_a_refusal_of_github_is_the_pools_error(engine: ScriptedEngine, url: str, github: FakeGitHub) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(replace(POOL, scope="acme/unknown"), machines)
        await github.until(lambda _: runners.state(POOL.id).error is not None)
        assert "looking for jobs" in str(runners.state(POOL.id).error) and "404" in str(runners.state(POOL.id).error)


@pytest.mark.parametrize("answer", ["lost", "registered"])
async def test_what_a_killed_server_has_registered_is_removed_by_the_next(
    engine: ScriptedEngine, url: str, github: FakeGitHub, answer: str
) -> None:
    """Its id is in the journal, or GitHub's answer was lost, and it is found by its name."""
    async with connected(engine, url, github) as plane, plane.store.write() as connection:
        phase, known = (Phase.LISTENING, 30) if answer == "registered" else (Phase.PLANNED, None)
        left = RunnerRecord("pandastack-x-1", WORKSPACE, "gone", REPOSITORY, phase, 1.0, 1.0, known)
        await table.add_runner(connection, left)
    github.runners[30] = {"id": 30, "name": "pandastack-x-1", "busy": False}
    github.runners[31] = {"id": 31, "name": "somebody-elses", "busy": False}
    async with connected(engine, url, github):
        await github.until(lambda _: github.names() == ["somebody-elses"])
        await until_none_stored(url)


async def test_runners_that_nobody_knows_are_removed_and_those_of_others_stay(
    engine: ScriptedEngine, url: str, github: FakeGitHub
) -> None:
    ours = supply.prefix_of(POOL.id)
    for number, (name, busy) in enumerate([(f"{ours}1", False), (f"{ours}2", True), ("pandastack-other-3", False)]):
        github.runners[number + 1] = {"id": number + 1, "name": name, "busy": busy}
    async with connected(engine, url, github) as plane:
        plane.github.runners.offer(POOL, Machines(github))
        await github.until(lambda _: github.names() == [f"{ours}2", "pandastack-other-3"])


async def test_an_idle_runner_ends_only_if_github_gives_it_no_job(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "LISTEN_SECONDS", 0.05)
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        await runners.handle(told("queued", 1), WORKSPACE)
        (name,) = await machines.until(1)
        await runners.handle(told("completed", 1), WORKSPACE)  # another runner did it
        await until_none(plane)
        assert machines.ended == [name] and github.names() == [] and runners.state(POOL.id).error is None


async def test_a_runner_that_github_has_given_a_job_is_kept(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        await runners.handle(told("queued", 1), WORKSPACE)
        (name,) = await machines.until(1)
        github.runners[21]["busy"] = True  # the event is lost
        monkeypatch.setattr(supply, "LISTEN_SECONDS", 0.01)
        await runners.handle(told("waiting", 9), WORKSPACE)  # it looks at the time
        await until_phase(plane, Phase.BUSY)
        assert list(machines.running) == [name]


async def test_a_runner_that_does_not_start_in_time_is_ended(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "START_SECONDS", 0.05)

    class Slow(Machines):
        async def run(self, pool: str, name: str, jit_config: str, started: Callable[[], Awaitable[None]]) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.ended.append(name)

    machines = Slow(github)
    async with connected(engine, url, github) as plane:
        plane.github.runners.offer(POOL, machines)
        await plane.github.runners.handle(told("queued", 1), WORKSPACE)
        await github.until(lambda _: bool(machines.ended))
        await until_none(plane)
        assert plane.github.runners.state(POOL.id).error == "registered: it took too long"
        assert len(machines.ended) == 1 and github.names() == []


async def test_a_pool_that_is_withdrawn_has_no_machine_any_more(
    engine: ScriptedEngine, url: str, github: FakeGitHub
) -> None:
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        runners = plane.github.runners
        runners.offer(POOL, machines)
        for number in (1, 2):
            await runners.handle(told("queued", number), WORKSPACE)
        await machines.until(2)
        await runners.withdraw(POOL.id)
        assert machines.running == {} and runners.state(POOL.id).runners == () and github.names() == []


async def test_a_stopping_server_leaves_nothing_at_github(
    engine: ScriptedEngine, url: str, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners_module, "SWEEP_SECONDS", 3600.0)
    machines = Machines(github)
    async with connected(engine, url, github) as plane:
        plane.github.runners.offer(POOL, machines)
        await plane.github.runners.handle(told("queued", 1), WORKSPACE)
        await machines.until(1)
        await until_phase(plane, Phase.LISTENING)
    assert machines.running == {} and github.names() == [] and await stored(url) == []
