"""Declared packages: what may be declared, what a lock may say, and what resolvers answer."""

from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError, BuildError
from pandastack.images.actions import RunAction
from pandastack.images.apt import default_sources
from pandastack.images.bootstrap import plan_debian
from pandastack.images.packages import debian, in_guest, npm, python
from pandastack.images.packages.declared import Packages, parse_packages
from pandastack.images.packages.lock import Deb, Lock, NpmPackage, Wheel, find_lock, parse_lock
from pandastack.images.packages.suggest import suggest, suggest_python
from pandastack.images.plan import plan
from pandastack.images.template import load_template
from pandastack.images.tree import Tree

SHIPPED = Path(__file__).parents[2] / "templates"
GIT = Deb("git", "1:2.39.5-0", "pool/main/g/git/git_2.39.5-0_amd64.deb", "a" * 64, 7)
NUMPY = Wheel("numpy", "2.4.6", "numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", "https://x/numpy.whl", "b" * 64, 9)
TSC = NpmPackage("typescript", "5.4.2", "node_modules/typescript", "https://x/t.tgz", "c" * 128, {"tsc": "bin/tsc"})
LOCK = Lock(Packages(("git",), ("numpy>=2",), ("typescript@5",)), "amd64", (GIT,), (NUMPY,), (TSC,))


def test_packages_are_declared_by_kind() -> None:
    declared = {
        "debian": ["git", "g++=4:12.2.0-3"],
        "python": ["pandas[excel]>=2,<4"],
        "npm": ["@types/node@^20", "left-pad"],
    }
    assert parse_packages("packages", declared) == Packages(*map(tuple, declared.values()))


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ([], "packages"),
        ({"ruby": ["rails"]}, "packages.ruby"),
        ({"debian": "git"}, "packages.debian"),
        ({"debian": ["git", 1]}, "packages.debian[1]"),
        ({"debian": ["git", "-o=x"]}, "packages.debian[1]"),
        ({"debian": ["git", "git=1.0"]}, "packages.debian[1]"),
        ({"debian": ["git\n"]}, "packages.debian[0]"),
        ({"debian": ["?essential"]}, "packages.debian[0]"),
        ({"python": ["numpy >"]}, "packages.python[0]"),
        ({"python": ["--index-url=http://x"]}, "packages.python[0]"),
        ({"python": ["x @ https://example.com/x.whl"]}, "packages.python[0]"),
        ({"python": ["Zope.Interface", "zope-interface"]}, "packages.python[1]"),
        ({"npm": ["https://example.com/x.tgz"]}, "packages.npm[0]"),
        ({"npm": ["x@file:../y"]}, "packages.npm[0]"),
        ({"npm": ["--global"]}, "packages.npm[0]"),
        ({"python": ["a" * 201]}, "packages.python[0]"),
        ({"python": [f"a{index}" for index in range(501)]}, "packages.python"),
    ],
)
def test_errors_name_the_entry(table: object, field: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_packages("packages", table)
    assert caught.value.field == field


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert parse_lock(LOCK.render().encode()) == LOCK
    assert sum(GIT.sha256 in line for line in LOCK.render().splitlines()) == 1, "a package is one line"
    assert find_lock(tmp_path) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": 1,', '"version": 2,'),
        (GIT.path, "pool/../../etc/x.deb"),
        (GIT.path, "/pool/x.deb"),
        (GIT.sha256, "0" * 63),
        (NUMPY.file, "a/b.whl"),
        (NUMPY.url, "file:///etc/passwd"),
        (TSC.place, "node_modules/../../x"),
        ("bin/tsc", "../tsc"),
        ('"size": 7', '"size": "7"'),
        ('"size": 7', '"siz": 7'),
        ('"name": "git"', '"name": "git\\n"'),
    ],
)
def test_a_hostile_lock_is_refused(old: str, new: str) -> None:
    text = LOCK.render()
    assert old in text
    with pytest.raises(BadRequestError, match=r"packages\.lock"):
        parse_lock(text.replace(old, new, 1).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_text_that_is_no_lock_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_lock(text)


def test_a_lock_for_other_packages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\n")
    (tmp_path / "template.toml").write_text('[packages]\ndebian = ["git"]\n')
    (tmp_path / "packages.lock").write_text(LOCK.render())
    with pytest.raises(BadRequestError, match="for other packages") as caught:
        load_template(tmp_path)
    assert "template lock" in str(caught.value.hint)
    assert load_template(tmp_path, with_lock=False).lock is None


@pytest.mark.parametrize("name", ["base", "code-interpreter"])
def test_the_shipped_recipes_are_locked(name: str) -> None:
    recipe = load_template(SHIPPED / name)
    assert recipe.settings.packages and recipe.lock
    assert not recipe.trusted, "only a caller that knows where the folder comes from says so"


def test_a_tree_takes_the_lock_of_the_uppermost_recipe() -> None:
    below = Tree(plan_debian()).with_packages(LOCK)
    newer = replace(NUMPY, version="2.5.0", sha256="d" * 64)
    above = below.with_packages(Lock(Packages(python=("numpy",)), "amd64", python=(newer,)))
    assert above.wheels == (newer,) and above.debian == below.debian and above.npm == (TSC,)
    assert "git" in above.debian.include and above.requested == ("numpy",)
    assert len({below.key, above.key, above.with_directories(["/workspace"]).key}) == 3


def test_a_changed_version_of_the_mirror_is_told_and_a_changed_file_refused() -> None:
    newer = replace(GIT, version="1:2.39.5-1", sha256="e" * 64)
    assert debian.replaced((GIT,), (newer,)) == {"git": "1:2.39.5-0 → 1:2.39.5-1"}
    assert debian.replaced((GIT,), (GIT, replace(GIT, name="new"))) == {}
    with pytest.raises(BuildError, match="not the locked file"):
        debian.replaced((GIT,), (replace(GIT, sha256="e" * 64),))


def test_files_of_the_security_archive_are_asked_for_there_first() -> None:
    security = replace(GIT, path="pool/updates/main/g/git/git_1+b1_amd64.deb")
    main, updates = debian.downloads([GIT, security], default_sources())
    assert main.urls[0] == "http://deb.debian.org/debian/pool/main/g/git/git_2.39.5-0_amd64.deb"
    assert updates.urls[0] == "http://deb.debian.org/debian-security/pool/updates/main/g/git/git_1%2bb1_amd64.deb"


def test_apt_prints_what_it_would_install() -> None:
    printed = "'http://d/pool/g/git_2.39_amd64.deb' git_1%3a2.39_amd64.deb 7 SHA256:aa\nW: noise\n"
    assert debian.parse_uris(printed) == {"git": "1:2.39"}


def test_pip_reports_wheels() -> None:
    def item(url: str) -> dict[str, object]:
        return {
            "metadata": {"name": "Zope.Interface", "version": "7.0"},
            "download_info": {"url": url, "archive_info": {"hashes": {"sha256": "b" * 64}}},
        }

    report = {"install": [item("https://me:secret@x/y/zope%2Binterface-7.0.whl#frag")]}
    assert python.parse_report(report) == (
        Wheel("zope-interface", "7.0", "zope+interface-7.0.whl", "https://x/y/zope%2Binterface-7.0.whl", "b" * 64, 0),
    )
    assert python.parse_report({"install": [item("file:///opt/x-1.whl")]})[0].url == ""


def test_platforms_of_the_newest_version_are_named() -> None:
    files = ["x-1.0-py3-none-any.whl", "x-2.0-cp312-cp312-win_amd64.whl", "x-2.0.tar.gz", "junk.whl"]
    assert python.describe_platforms(files) == "2.0 for cp312 win_amd64"
    assert python.describe_platforms(["x-2.0.tar.gz"]) == ""


def test_npm_packages_of_other_systems_are_left_out() -> None:
    def entry(**more: object) -> dict[str, object]:
        return {"version": "1.0.0", "resolved": "https://x/a.tgz", "integrity": "sha512-" + "A" * 86 + "==", **more}

    lock = {
        "packages": {
            "": {},
            "node_modules/a": entry(bin={"a": "./cli.js"}),
            "node_modules/a/node_modules/b": entry(bin={"b": "b.js"}),
            "node_modules/mac": entry(os=["darwin"]),
            "node_modules/musl": entry(libc=["musl"]),
            "node_modules/not-windows": entry(os=["!win32"]),
        }
    }
    found = {package.place: package for package in npm.parse_lock(lock, "amd64")}
    assert sorted(found) == ["node_modules/a", "node_modules/a/node_modules/b", "node_modules/not-windows"]
    assert found["node_modules/a"].bin == {"a": "cli.js"} and not found["node_modules/a/node_modules/b"].bin
    with pytest.raises(BadRequestError, match="sha512"):
        npm.parse_lock({"packages": {"node_modules/a": entry(resolved="git+ssh://x")}}, "amd64")


def test_what_an_author_may_have_meant() -> None:
    assert suggest("pyton3", ["python3", "perl"]) == "did you mean python3?"
    assert suggest_python("sklearn") == "the package that brings sklearn is scikit-learn"
    assert suggest_python("nunpy") == "did you mean numpy?"
    assert suggest_python("qqqqqq") is None


def test_an_uploaded_recipe_installs_its_packages_in_its_machine() -> None:
    steps = in_guest.instructions(LOCK.declared, LOCK, "app")
    recipe = load_template(SHIPPED / "base")
    stage = replace(recipe.dockerfile.stages[-1], steps=steps)
    planned = plan(recipe.dockerfile, recipe.context, parent_key="p", stage=stage)
    runs = [action for action in planned.actions if isinstance(action, RunAction)]
    assert [run.user for run in runs] == ["root"] * 3 and planned.config.user == "app"
    assert f"numpy==2.4.6 --hash=sha256:{NUMPY.sha256}" in runs[1].argv[-1]
    assert in_guest.instructions(Packages(), None, "app") == ()
