"""Templates made from a folder: every command of theirs runs in a microVM, and a failure leaves nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

from pandastack import Client, config
from tests.support.installation import Installation, Server

CUSTOM = """
FROM base
ENV LOGBOOK=/opt/logbook PATH=/opt/tools:$PATH
COPY --chmod=755 tools/ /opt/tools/
COPY notes*.txt "/opt/with space/"
WORKDIR /opt/place
RUN echo "$(id -un) $(pwd) $LOGBOOK" > "$LOGBOOK" && uname -r > kernel && useradd --create-home worker
USER worker
RUN id -un > /home/worker/who && pwd >> /home/worker/who
"""


@pytest.fixture(scope="module")
def custom(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A template built while the server runs. Its content never changes, so a warm cache has it."""
    folder = tmp_path_factory.mktemp("recipes") / "custom-test"
    (folder / "tools").mkdir(parents=True)
    (folder / "Dockerfile").write_text(CUSTOM)
    (folder / "template.toml").write_text('memory_mb = 256\ndisk_mb = 512\ndescription = "made by a test"\n')
    (folder / "tools" / "greet").write_text("#!/bin/sh\necho greetings\n")
    (folder / "notes.txt").write_text("a note\n")
    (folder / "not-copied").write_text("")
    server.installation.build(str(folder))
    return "custom-test"


def test_what_a_recipe_made_is_there(client: Client, custom: str) -> None:
    assert client.templates.get(custom).base == "base"
    with client.sandboxes.create(custom) as sandbox:
        assert sandbox.memory_mb == 256
        assert sandbox.exec("greet; cat /opt/with*/notes.txt", check=True).stdout == "greetings\na note\n"
        assert sandbox.exec("cat $LOGBOOK", check=True).stdout == "root /opt/place /opt/logbook\n"
        assert sandbox.exec("cat /home/worker/who", check=True).stdout == "worker\n/opt/place\n"
        assert sandbox.exec("ls -d /opt/not-copied").exit_code == 2
        assert sandbox.exec("stat -c %U /home/worker/who /opt/tools/greet").stdout == "worker\nroot\n"
        release = sandbox.exec("uname -r; cat /opt/place/kernel", check=True).stdout.split()
        assert release[0] == release[1]


def test_what_the_host_lent_the_build_is_not_in_the_template(client: Client, custom: str) -> None:
    with client.sandboxes.create(custom) as sandbox:
        assert sandbox.exec("ls /run/pandastack").stdout == "generation\n"
        assert sandbox.exec("env | grep -i -e APT_CONFIG -e SSL_CERT_FILE -e proxy").stdout == ""


def cached() -> set[Path]:
    """What the cache holds of builds, locks aside."""
    root = config.cache_dir()
    kinds = ("images", "layers", "baked", "work")
    return {path for kind in kinds for path in (root / kind).glob("*") if not path.name.endswith(".lock")}


def failing_recipe(folder: Path, *lines: str) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(["FROM base", *lines]))
    return str(folder)


@pytest.mark.alone  # other builds add to the cache
def test_a_failing_build_shows_its_last_lines_and_leaves_nothing(
    server: Server, built: Installation, tmp_path: Path
) -> None:
    """They also show where a recipe's commands run: not on this host."""
    before, left = cached(), set(built.left_behind())
    recipe = failing_recipe(
        tmp_path / "failing", "RUN seq 100; uname -nr; cat /proc/1/comm; echo last words >&2; false"
    )
    done = built.cli("template", "build", recipe)
    assert done.returncode == 1
    lines = [each.strip() for each in done.stderr[done.stderr.index("error: ") :].splitlines()]
    assert re.match(r"error: line 2: RUN seq 100;.* failed: exit code 1", lines[0])
    assert lines[-2:] == ["init", "last words"]
    name, release = lines[-3].split()
    assert name != platform.node()
    assert release == built.json("template", "show", "base")["meta"]["kernel_release"]
    assert "99" in lines and "1" not in lines
    assert cached() == before
    assert {each for each in built.left_behind() if "-build" in each} <= left
    assert "failing" not in [each["name"] for each in built.json("template", "list")]


@pytest.mark.alone  # other builds add to the cache
@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["COPY missing /x"], "missing"),
        (["FROM Alpine"], "FROM"),
        (["COPY ../../etc/passwd /x"], "leaves the build context"),
        (["JUMP high"], "JUMP"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_at_once(
    built: Installation, tmp_path: Path, lines: list[str], word: str
) -> None:
    before = cached()
    done = built.cli("template", "build", failing_recipe(tmp_path / "wrong", *lines))
    assert done.returncode == 1
    assert word in done.stderr and "Traceback" not in done.stderr
    assert cached() == before


@pytest.mark.alone  # other builds add to the cache
def test_building_again_builds_nothing(built: Installation) -> None:
    before = cached()
    assert [each["name"] for each in built.json("template", "build", "base")] == ["base"]
    assert cached() == before


def test_a_folder_that_is_none(built: Installation) -> None:
    done = built.cli("template", "build", "no-such")
    assert done.returncode == 1
    assert "no template recipe 'no-such'" in done.stderr and "Traceback" not in done.stderr


def test_the_interpreter_imports_without_an_install(client: Client) -> None:
    """The promise of the shipped template: everything is there, and there is no network to get it from."""
    program = "import numpy, pandas, matplotlib, IPython, ipykernel; print(pandas.DataFrame({'a': [1, 2]}).a.sum())"
    with client.sandboxes.create("code-interpreter") as sandbox:
        assert (sandbox.cpu, sandbox.memory_mb) == (2, 2048)
        assert sandbox.exec(f'python3 -c "{program}"', timeout_seconds=60, check=True).stdout == "3\n"


def test_the_cache_is_not_this_installations_own(built: Installation) -> None:
    assert not str(config.cache_dir()).startswith(str(built.home.parent))
    assert os.environ.get("PANDASTACK_CACHE_DIR", str(config.cache_dir())) == str(config.cache_dir())
