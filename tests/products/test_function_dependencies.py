"""Which file of a bundle says what to install, and what is read from lock files. Those in ``data/locks`` were written
by uv and Poetry for one project; its ``requirements.txt`` is uv's own conversion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pandastack.errors import BadRequestError
from pandastack.products.functions.bundle import install_of, read_bundle
from pandastack.products.functions.dependencies import MOST_LOCK, chosen_file, requirements_of
from tests.products.archives import of_files

LOCKS = Path(__file__).parent / "data" / "locks"
SOURCE = b"def handler(event, context): pass\n"
PYLOCK = """[[packages]]
name = "idna"
version = "3.10"
wheels = [{ url = "https://x.test/idna-3.10-py3-none-any.whl", hashes = { sha256 = "%s" } }]
""" % ("0" * 64)


@pytest.mark.parametrize(
    ("files", "runtime", "chosen"),
    [
        ("", "python", None),
        ("package.json", "python", None),
        ("pyproject.toml", "python", "pyproject.toml"),
        ("pyproject.toml requirements.txt", "python", "requirements.txt"),
        ("pyproject.toml requirements.txt poetry.lock", "python", "poetry.lock"),
        ("pyproject.toml requirements.txt poetry.lock uv.lock", "python", "uv.lock"),
        ("pyproject.toml requirements.txt poetry.lock uv.lock pylock.toml", "python", "pylock.toml"),
        ("Pipfile.lock requirements.txt", "python", "requirements.txt"),
        ("package.json", "nodejs", "package.json"),
        ("package.json yarn.lock package-lock.json", "nodejs", "package-lock.json"),
        ("package.json npm-shrinkwrap.json", "nodejs", "npm-shrinkwrap.json"),
        ("requirements.txt", "nodejs", None),
    ],
)
def test_which_file_counts(files: str, runtime: str, chosen: str | None) -> None:
    assert chosen_file(files.split(), runtime) == chosen


@pytest.mark.parametrize(
    ("files", "runtime", "named", "hint"),
    [
        ("package.json yarn.lock", "nodejs", "yarn.lock", "package-lock.json"),
        ("package.json pnpm-lock.yaml", "nodejs", "pnpm-lock.yaml", "package-lock.json"),
        ("bun.lockb", "nodejs", "bun.lockb", "package-lock.json"),
        ("Pipfile.lock", "python", "Pipfile.lock", "requirements.txt"),
        ("pdm.lock pyproject.toml", "python", "pdm.lock", "requirements.txt"),
        ("uv.lock", "python", "uv.lock", "both"),
        ("package-lock.json", "nodejs", "package-lock.json", "both"),
    ],
)
def test_a_lock_is_never_ignored(files: str, runtime: str, named: str, hint: str) -> None:
    with pytest.raises(BadRequestError, match=rf"^{re.escape(named)}: ") as raised:
        chosen_file(files.split(), runtime)
    assert raised.value.field == "bundle" and hint in (raised.value.hint or "")


def parsed(text: str) -> set[tuple[str, str, frozenset[str]]]:
    """Name and version, marker, and hashes of each requirement."""
    joined = re.sub(r"#.*", "", text.replace("\\\n", " "))
    lines = [each.split(" --hash=") for each in joined.splitlines() if each.strip()]
    requirements = [(Requirement(line.strip()), frozenset(map(str.strip, hashes))) for line, *hashes in lines]
    return {(f"{each.name}{each.specifier}", str(each.marker), hashes) for each, hashes in requirements}


@pytest.mark.parametrize("name", ["pylock.toml", "poetry.lock"])
def test_a_lock_means_what_other_tools_read_in_it(name: str) -> None:
    expected = parsed((LOCKS / "requirements.txt").read_text())
    assert len(expected) == 3 and {len(hashes) for _, _, hashes in expected} == {2}
    assert parsed(requirements_of(name, (LOCKS / name).read_bytes())) == expected


def test_of_markers_by_group_that_of_the_project_counts() -> None:
    lock = f"""[[package]]
name = "x"
version = "1"
groups = ["main", "dev"]
files = [{{ file = "x-1.tar.gz", hash = "sha256:{"0" * 64}" }}]
markers = {{ main = "os_name == 'nt'", dev = "os_name == 'posix'" }}
"""
    ((named, marker, _),) = parsed(requirements_of("poetry.lock", lock.encode()))
    assert (named, marker) == ("x==1", 'os_name == "nt"')


def test_a_bundle_is_installed_from_its_lock(tmp_path: Path) -> None:
    names = ("pyproject.toml", "poetry.lock")
    files = {"handler.py": SOURCE, **{f"./{name}": (LOCKS / name).read_bytes() for name in names}}
    install = install_of(read_bundle(of_files(files), "handler.py", tmp_path), "python")
    assert install is not None and install.source == "poetry.lock"
    assert b"idna==3.10" in (install.requirements or b"") and "--require-hashes" in install.script


@pytest.mark.parametrize("before", ["name", "version", "marker"])
def test_no_lock_writes_options_of_pip(before: str) -> None:
    lock = PYLOCK + "marker = \"os_name == 'posix'\"\n"
    broken = re.sub(rf'^({before} = ".*)"$', r'\1\\n--index-url=https://x.test"', lock, flags=re.MULTILINE)
    assert broken != lock
    requirements_of("pylock.toml", lock.encode())
    with pytest.raises(BadRequestError, match=r"^pylock\.toml: "):
        requirements_of("pylock.toml", broken.encode())


@pytest.mark.parametrize(
    ("name", "lock", "why"),
    [
        ("pylock.toml", PYLOCK + "marker = \"'dev' in dependency_groups\"\n", "an extra or a group"),
        ("pylock.toml", PYLOCK.replace("sha256", "md5"), "no hashes"),
        ("pylock.toml", PYLOCK + 'vcs = { type = "git", commit-id = "1" }\n', "elsewhere"),
        ("pylock.toml", PYLOCK.replace("version", "other"), "elsewhere"),
        ("pylock.toml", "packages = [1]", "malformed"),
        ("pylock.toml", "x", "malformed"),
        ("pylock.toml", "x = " + "[" * 100_000, "malformed"),
        ("pylock.toml", "#" * (MOST_LOCK + 1), "over"),
        ("poetry.lock", '[[package]]\nname = "idna"\nversion = "3.10"\nfiles = []\n', "development only"),
        ("poetry.lock", '[[package]]\nname = "x"\nversion = "1"\ngroups = ["main"]\nfiles = []\n', "no hashes"),
    ],
)
def test_what_a_lock_must_not_have(name: str, lock: str, why: str) -> None:
    with pytest.raises(BadRequestError, match=rf"^{re.escape(name)}: .*{why}"):
        requirements_of(name, lock.encode())
