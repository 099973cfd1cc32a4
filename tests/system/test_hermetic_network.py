"""Hermetic builds that fetch: by the ordinary clients, recorded, and replayed without a network."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from pandastack import BuildFailedError, Client
from pandastack.errors import BadRequestError
from tests.support.installation import Server

pytestmark = pytest.mark.network

PYPROJECT = """[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[project]
name = "greet"
version = "1.0"
description = "Greets"
"""
PACKAGE = {"name": "greet", "version": "1.0.0", "files": ["dist"], "dependencies": {"is-odd": "3.0.1"}}
INDEX = "https://pypi.org/simple/flit-core/"


@pytest.fixture(scope="module")
def agent(server: Server) -> str:
    """The template with pip and Node."""
    server.installation.build("agent")
    return "agent"


BACKEND = "python3 -m pip install -q --no-cache-dir -t $TMPDIR/deps flit_core && "


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(f"{BACKEND}PYTHONPATH=$TMPDIR/deps python3 -m flit_core.wheel --outdir $OUT", id="backend"),
        pytest.param("python3 -m pip wheel --no-deps --no-cache-dir -w $OUT .", id="pip", marks=pytest.mark.slow),
    ],
)
def test_a_wheel_is_built_with_what_pip_fetches_and_again_without_a_network(
    server: Server, client: Client, agent: str, tmp_path: Path, command: str
) -> None:
    """Verified: the second machine has the lock, another clock and other paths, and its proxy has no network."""
    source, lock = tmp_path / "src", tmp_path / "build.lock"
    (source / "greet").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "greet/__init__.py").write_text("GREETING = 'hello'\n")
    options = ("--template", agent, "--lock", str(lock), "--verify")
    done = server.installation.cli(
        "build", str(source), "-o", str(tmp_path / "out"), *options, "--", command, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "both builds are the same" in done.stdout
    (wheel,) = (tmp_path / "out").glob("greet-1.0-*-none-any.whl")
    assert "greet/__init__.py" in zipfile.ZipFile(wheel).namelist()
    named = [line.split()[1] for line in lock.read_text().splitlines()[1:]]
    assert INDEX in named
    assert any(url.endswith(".whl") for url in named)
    statement = json.loads((tmp_path / "out/provenance.json").read_text())["predicate"]["buildDefinition"]
    materials = [each["uri"] for each in statement["resolvedDependencies"] if "annotations" in each]
    assert sorted(materials) == named
    assert statement["internalParameters"]["network"] == "record"
    assert [each for each in client.sandboxes.list() if "build" in each.metadata] == []


def test_a_build_is_held_to_its_lock(client: Client, tmp_path: Path) -> None:
    source, lock = tmp_path / "src", tmp_path / "build.lock"
    source.mkdir()
    (source / "a").write_text("1")
    fetch = f"curl -fsS {INDEX} -o $OUT/index"
    recorded = client.builds.run(source, fetch, tmp_path / "one", lock_file=lock)
    text = lock.read_text()
    assert (recorded.network, recorded.refused) == ("record", ())
    replayed = client.builds.run(source, fetch, tmp_path / "two", lock_file=lock)
    assert (replayed.network, replayed.lock_sha256) == ("replay", recorded.lock_sha256)
    assert replayed.artifacts == recorded.artifacts
    assert client.builds.lock(replayed.id) == text == lock.read_text()
    elsewhere = f"{INDEX}?other"
    with pytest.raises(BuildFailedError, match="the lock does not name") as failed:
        client.builds.run(source, f"curl -fsS {elsewhere}", tmp_path / "three", lock_file=lock)
    build = failed.value.build
    assert (build.reason, build.exit_code) == ("lock", 22)  # type: ignore[attr-defined]
    assert [(each.method, each.url) for each in build.refused] == [("GET", elsewhere)]  # type: ignore[attr-defined]


def test_a_lock_whose_bodies_are_not_stored_is_refused_before_a_machine_exists(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a").write_text("1")
    lock = f"# pandastack build lock, version 1\nGET {INDEX} 200 1 {'0' * 64}\n"
    with pytest.raises(BadRequestError, match="1 body that it names is not stored here") as refused:
        client.builds.start(source, "true", lock=lock)
    assert (refused.value.field, "refetch" in (refused.value.hint or "")) == ("lock", True)
    started = client.builds.start(source, "true", lock=lock, refetch=True)
    assert "".join(client.builds.logs(started.id)) == ""
    build = client.builds.get(started.id)
    assert (build.status, build.reason) == ("failed", "lock")
    assert f"GET {INDEX}: what is there now has another hash" in (build.error or "")


@pytest.mark.slow
def test_an_npm_package_is_made_with_what_npm_fetches_and_again_without_a_network(
    client: Client, agent: str, tmp_path: Path
) -> None:
    source, lock = tmp_path / "src", tmp_path / "build.lock"
    source.mkdir()
    (source / "package.json").write_text(json.dumps(PACKAGE))
    (source / "index.js").write_text("console.log(require('is-odd')(3))\n")
    # npm pack keeps the files' modes, and the two machines differ in the umask.
    install = "umask 022 && npm install --package-lock-only && mkdir dist"
    bundle = "npm ci && cat node_modules/is-odd/index.js index.js > dist/all.js && npm pack --pack-destination $OUT"
    build = client.builds.run(
        source, f"{install} && {bundle}", tmp_path / "out", template=agent, lock_file=lock, verify=True
    )
    assert (build.status, build.reproducible) == ("done", True)
    assert [each.path for each in build.artifacts] == ["greet-1.0.0.tgz"]
    assert "https://registry.npmjs.org/is-odd/-/is-odd-3.0.1.tgz 200" in lock.read_text()


@pytest.mark.slow
def test_debian_packages_are_installed_from_what_apt_fetches_and_again_without_a_network(
    client: Client, tmp_path: Path
) -> None:
    source, lock = tmp_path / "src", tmp_path / "build.lock"
    source.mkdir()
    (source / "sum").write_text("1 + 2\n")
    command = "apt-get update && apt-get install -y --no-install-recommends bc && bc < sum > $OUT/result"
    build = client.builds.run(source, command, tmp_path / "out", lock_file=lock, verify=True)
    assert (build.status, build.reproducible) == ("done", True)
    assert (tmp_path / "out/result").read_text() == "3\n"
    assert "/main/b/bc/bc_" in lock.read_text()


@pytest.mark.slow
def test_diffoscope_says_what_differs(server: Server, client: Client, tmp_path: Path) -> None:
    recipe = tmp_path / "diffoscope"
    recipe.mkdir()
    (recipe / "Dockerfile").write_text("FROM base\n")
    (recipe / "template.toml").write_text('[packages]\ndebian = ["diffoscope-minimal"]\n')
    server.installation.build(str(recipe))
    source = tmp_path / "src"
    source.mkdir()
    (source / "a").write_text("same\n")
    command = "cat a > $OUT/text; date -u +built.in.%Y >> $OUT/text"
    build = client.builds.run(source, command, tmp_path / "out", verify=True, explain="diffoscope")
    assert build.status == "differs"
    report = client.builds.report(build.id)
    assert "first/text" in report
    assert any(line.startswith("│ -built.in.") for line in report.splitlines()), report
