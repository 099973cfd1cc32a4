"""Builds by a running server: followed, cancelled, cut off by a killed server; the same for API and command line."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from pandastack import Client
from pandastack.engine.machines.journal import read
from pandastack.engine.work import owner_lives
from pandastack.errors import BadRequestError, NotFoundError, TemplateBuildError
from tests.support.installation import Install, Installation, Server, eventually
from tests.support.tenants import tenant


def recipe(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(["FROM base", *lines]))
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    return folder


def test_followers_read_the_same_build(client: Client, tmp_path: Path) -> None:
    """The content never changes, so a warm cache has it."""
    folder = recipe(tmp_path / "followed-test", "RUN echo built > /made")
    started = client.templates.start_build(folder)
    assert (started.name, started.status) == ("followed-test", "queued")
    seen: list[list[str]] = [[], []]

    def follow(into: list[str]) -> None:
        into.extend(f"{each.name} {each.data.get('title', '')}" for each in client.templates.events(started.id))

    threads = [threading.Thread(target=follow, args=[into]) for into in seen]
    for each in threads:
        each.start()
    for each in threads:
        each.join(300)
    assert seen[0] == seen[1]
    assert seen[0][-1].startswith("ended")
    assert any("capture followed-test" in each or "install followed-test" in each for each in seen[0])
    assert client.templates.get_build(started.id).status == "done"
    with client.sandboxes.create("followed-test") as sandbox:
        assert sandbox.exec("cat /made", check=True).stdout == "built\n"


def test_a_failed_step_fails_the_build_with_its_output(client: Client, tmp_path: Path) -> None:
    folder = recipe(tmp_path / "failing-test", "RUN echo last words; false")
    with pytest.raises(TemplateBuildError, match="last words") as failed:
        client.templates.build(folder)
    assert "exit code 1" in str(failed.value)
    assert "failing-test" not in [each.name for each in client.templates.list()]


def test_a_cancelled_build_leaves_nothing(server: Server, client: Client, tmp_path: Path) -> None:
    started = client.templates.start_build(recipe(tmp_path / "endless-test", "RUN echo begun; sleep 3600"))
    for event in client.templates.events(started.id):
        if event.data.get("text") == "begun":
            assert len(server.building()) == 1
            client.templates.cancel_build(started.id)
    build = client.templates.get_build(started.id)
    assert (build.status, build.error) == ("failed", "the build was cancelled")
    assert server.building() == []


def test_the_command_line_is_a_client_of_the_running_server(server: Server, client: Client) -> None:
    before = {each.id for each in client.templates.builds()}
    assert [each["name"] for each in server.installation.json("template", "build", "base")] == ["base"]
    made = [each for each in client.templates.builds() if each.id not in before]
    assert [(each.name, each.status) for each in made] == [("base", "done")]


def test_workspaces_have_templates_of_their_own(server: Server, client: Client, tmp_path: Path) -> None:
    """The contents never change, so a warm cache has them."""
    app = recipe(tmp_path / "tenants-app", "COPY whose /whose", "RUN cat /whose > /made", "ENV FROM_APP=1")
    child = recipe(tmp_path / "tenants-child")
    (child / "Dockerfile").write_text("FROM tenants-app\nENV CHILD=1\n")
    with tenant(server, "acme") as acme, tenant(server, "rival") as rival:
        builds = {}
        for who, name in ((acme, "acme"), (rival, "rival")):
            (app / "whose").write_text(name)
            builds[name] = who.templates.build(app)
            assert who.templates.get("tenants-app").workspace == name
        assert builds["acme"].version != builds["rival"].version
        for stranger in (rival, client):
            with pytest.raises(NotFoundError):
                stranger.templates.get_build(builds["acme"].id)
            with pytest.raises(NotFoundError):
                list(stranger.templates.events(builds["acme"].id))
        acme.templates.build(child)
        with acme.sandboxes.create("tenants-child") as sandbox:
            assert sandbox.template == "tenants-child"
            assert sandbox.exec("cat /made; echo $FROM_APP$CHILD", check=True).stdout == "acme11\n"
        with rival.sandboxes.create("tenants-app") as sandbox:
            acme.templates.delete("tenants-app")
            with pytest.raises(BadRequestError, match="unknown template 'tenants-app'"):
                acme.sandboxes.create("tenants-app")
            rival.templates.delete("tenants-app")
            assert sandbox.exec("cat /made", check=True).stdout == "rival", "what runs has its version"
    eventually(lambda: "tenants-app" not in _templates_of_machines(server), 60, "those made ahead have ended")


def _templates_of_machines(server: Server) -> list[str]:
    journals = (server.installation.layout.engine / "pool" / "machines").glob("*/journal.json")
    return [entry.template for each in journals if (entry := read(each.parent))]


FIRST = "RUN echo $NONCE > /first"


def begun(client: Client, build_id: str) -> None:
    """Follow the build until its endless RUN has begun."""
    for event in client.templates.events(build_id):
        if event.data.get("text") == "begun":
            return
    raise AssertionError(client.templates.get_build(build_id).error)


def titles(client: Client, build_id: str) -> list[str]:
    return [str(each.data["title"]) for each in client.templates.events(build_id) if each.name == "step"]


def left_of_builds(place: Installation) -> list[str]:
    """What is left of builds whose processes are gone: unfinished work, control groups; and of all else."""
    work = place.layout.cache / "work"
    scratch = [each.name for each in work.iterdir() if not owner_lives(each.name)] if work.exists() else []
    groups = [str(each) for each in Path("/sys/fs/cgroup").rglob(f"{place.layout.cgroup}/pandastack-work-*")]
    return [*scratch, *groups, *place.left_behind()]


def test_a_build_that_was_killed_leaves_nothing_and_continues_from_its_last_layer(
    install: Install, tmp_path: Path
) -> None:
    place, nonce = install("base", PANDASTACK_READY_MACHINES="0"), {"NONCE": str(time.time_ns())}
    endless = recipe(tmp_path / "killed-test", "ARG NONCE", FIRST, "RUN echo begun; sleep 3600")
    ending = recipe(tmp_path / "ending-test", "ARG NONCE", FIRST, "RUN echo second > /second")
    with place.serving() as server, tenant(server, "acme") as client:
        started = client.templates.start_build(endless, build_args=nonce)
        begun(client, started.id)
        assert len(server.building()) == 1
        server.kill()
        killed = server
    with place.serving() as server, tenant(server, "acme") as client:
        build = client.templates.get_build(started.id)
        assert (build.status, build.error) == ("failed", "the engine was stopped before the build had ended")
        assert killed.building() == []
        with tenant(server, "rival") as rival, pytest.raises(NotFoundError):
            rival.templates.get_build(started.id)
        again = client.templates.start_build(endless, build_args=nonce)
        begun(client, again.id)
        (vmm,) = server.building()
        os.kill(vmm, signal.SIGKILL)
        made = titles(client, again.id)
        assert FIRST not in made and "RUN echo begun; sleep 3600" in made
        failed = client.templates.get_build(again.id)
        assert failed.status == "failed" and failed.error
        assert server.building() == []
        last = client.templates.build(ending, build_args=nonce)
        assert FIRST not in titles(client, last.id)
        with client.sandboxes.create("ending-test") as sandbox:
            assert sandbox.exec("cat /first /second", check=True).stdout == f"{nonce['NONCE']}\nsecond\n"
    assert left_of_builds(place) == []


def test_an_owner_that_the_image_does_not_know_fails_the_build(client: Client, tmp_path: Path) -> None:
    folder = recipe(tmp_path / "owner-test", "COPY --chown=nobody file /known", "COPY --chown=who:root file /x")
    (folder / "file").write_text("content")
    with pytest.raises(TemplateBuildError, match="no such user: who"):
        client.templates.build(folder)


def test_a_form_with_files_is_built(http: httpx.Client) -> None:
    """As the official SDKs send it."""
    form = {"name": "form-test", "dockerfile": "FROM base\nCOPY sub/a /a\n", "memory_mb": "256", "size_mb": "512"}
    answer = http.post("/templates/build", params={"replace": "true"}, data=form, files={"sub/a": ("a", b"content")})
    assert answer.status_code == 202, answer.text
    path = f"/templates/builds/{answer.json()['id']}"
    log = http.get(f"{path}/logs", params={"follow": "1"}, timeout=300).text
    assert log.rstrip().endswith("event: done\ndata: end")
    assert http.get(path).json()["status"] == "done", log
