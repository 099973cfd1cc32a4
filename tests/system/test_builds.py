"""Builds by a running server: followed, cancelled, cut off by a killed server; the same for API and command line."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from pandastack import Client
from pandastack.errors import TemplateBuildError
from tests.support.installation import Install, Server, eventually


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
    machines = set(server.installation.machines())
    started = client.templates.start_build(recipe(tmp_path / "endless-test", "RUN echo begun; sleep 3600"))
    for event in client.templates.events(started.id):
        if event.data.get("text") == "begun":
            client.templates.cancel_build(started.id)
    build = client.templates.get_build(started.id)
    assert (build.status, build.error) == ("failed", "the build was cancelled")
    assert not [pid for pid in set(server.installation.machines()) - machines if _builds(pid)]


def _builds(pid: int) -> bool:
    try:
        return b"-build-" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_the_command_line_is_a_client_of_the_running_server(server: Server, client: Client) -> None:
    before = {each.id for each in client.templates.builds()}
    assert [each["name"] for each in server.installation.json("template", "build", "base")] == ["base"]
    made = [each for each in client.templates.builds() if each.id not in before]
    assert [(each.name, each.status) for each in made] == [("base", "done")]


def test_a_build_is_cut_off_by_a_killed_server(install: Install, tmp_path: Path) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="0")
    with place.serving() as server, Client(server.url, server.token, timeout=60) as client:
        started = client.templates.start_build(recipe(tmp_path / "killed-test", "RUN sleep 3600"))
        eventually(lambda: client.templates.get_build(started.id).status == "running", 60, "the build runs")
        server.kill()
    with place.serving() as server, Client(server.url, server.token, timeout=60) as client:
        build = client.templates.get_build(started.id)
        assert (build.status, build.error) == ("failed", "the engine was stopped before the build had ended")


def test_a_form_with_files_is_built(http: httpx.Client) -> None:
    """As the official SDKs send it."""
    form = {"name": "form-test", "dockerfile": "FROM base\nCOPY sub/a /a\n", "memory_mb": "256", "size_mb": "512"}
    answer = http.post("/templates/build", params={"replace": "true"}, data=form, files={"sub/a": ("a", b"content")})
    assert answer.status_code == 202, answer.text
    path = f"/templates/builds/{answer.json()['id']}"
    log = http.get(f"{path}/logs", params={"follow": "1"}, timeout=300).text
    assert log.rstrip().endswith("event: done\ndata: end")
    assert http.get(path).json()["status"] == "done", log
