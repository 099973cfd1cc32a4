"""Wheels and npm tarballs unpacked without running them, the hostile ones refused."""

import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.images.packages import npm, wheels
from pandastack.images.packages.lock import NpmPackage
from pandastack.images.packages.unpack import Unpacking, unpack_wheels
from pandastack.images.packages.wheels import PYTHON, unpack_wheel

INFO = "pkg-1.0.dist-info"
META = {
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
}
LIBRARY = PYTHON.library.lstrip("/")


def wheel(folder: Path, files: Mapping[str | zipfile.ZipInfo, str]) -> Path:
    path = folder / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**META, **files}.items():
            archive.writestr(name, text)
        names = [name if isinstance(name, str) else name.filename for name in [*META, *files]]
        archive.writestr(f"{INFO}/RECORD", "".join(f"{name},,\n" for name in [*names, f"{INFO}/RECORD"]))
    return path


def unpacked(folder: Path, files: Mapping[str | zipfile.ZipInfo, str]) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    unpack_wheel(wheel(folder, files), tree, requested=True)
    return tree


def test_a_wheel_is_installed_as_pip_would(tmp_path: Path) -> None:
    program = zipfile.ZipInfo("pkg-1.0.data/scripts/tool")
    program.external_attr = (stat.S_IFREG | 0o755) << 16
    tree = unpacked(
        tmp_path,
        {
            "pkg/__init__.py": "def main(): print('ran')\n",
            "pkg/tests/test_x.py": "",
            f"{INFO}/entry_points.txt": "[console_scripts]\npkg = pkg:main\n",
            program: "#!python\nprint(1)\n",
            "pkg-1.0.data/data/share/pkg.txt": "data",
        },
    )
    assert (tree / "usr/local/share/pkg.txt").read_text() == "data"
    assert (tree / "usr/local/bin/tool").read_text().startswith("#!/usr/bin/python3\n")
    assert os.access(tree / "usr/local/bin/pkg", os.X_OK) and os.access(tree / "usr/local/bin/tool", os.X_OK)
    info = tree / LIBRARY / INFO
    assert (info / "INSTALLER").read_text() == "pandastack\n" and (info / "REQUESTED").exists()
    assert "pkg/__init__.py,sha256=" in (info / "RECORD").read_text()
    ran = [sys.executable, tree / "usr/local/bin/pkg"]
    assert subprocess.check_output(ran, env={"PYTHONPATH": str(tree / LIBRARY)}, text=True) == "ran\n"


@pytest.mark.skipif(not PYTHON.compiles_here, reason="this interpreter makes no bytecode for the guest's")
def test_bytecode_is_that_of_the_installed_source(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, {"pkg/__init__.py": "def f(): pass\n", "pkg/tests/test_x.py": "x = 1\n"})
    compiled = [path.name for path in tree.rglob("*.pyc")]
    assert compiled == ["__init__.cpython-311.pyc"], "tests are not compiled"
    code = (tree / LIBRARY / "pkg/__pycache__/__init__.cpython-311.pyc").read_bytes()
    assert int.from_bytes(code[8:12], "little") == int((tree / LIBRARY / "pkg/__init__.py").stat().st_mtime)
    assert f"/{LIBRARY}/pkg/__init__.py".encode() in code and str(tmp_path).encode() not in code


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "pkg/../../evil",
        "pkg//x",
        "a\\b",
        "./x",
        "x" * 2000,
        "pkg-1.0.data/scripts/../../../evil",
        "pkg-1.0.data/nonsense/x",
        "pkg-1.0.data",
        "pkg-1.0.data/scripts",
        "other-1.0.dist-info/x",
    ],
)
def test_a_hostile_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError, match="cannot be unpacked"):
        unpacked(tmp_path, {name: "x"})
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="neither a file nor a directory"):
        unpacked(tmp_path, {link("pkg/link"): "/etc/passwd"})


def test_a_script_outside_its_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        unpacked(tmp_path, {f"{INFO}/entry_points.txt": "[console_scripts]\n../../../evil = os:getcwd\n"})


@pytest.mark.parametrize(
    "points",
    [
        "[console_scripts]\na = b:c" + " " * 100_000 + "x\n",
        "[DEFAULT]\n"
        + "".join(f"a{n} = {f'%(a{n + 1})s' * 9}\n" for n in range(9))
        + "a9 = x\n[console_scripts]\nb = %(a0)s\n",
        "[console_scripts]\n" + "\n".join(f"tool{n} = pkg:main" for n in range(20_000)),
    ],
    ids=["white space", "interpolation", "length"],
)
def test_metadata_that_takes_long_to_parse_is_refused(tmp_path: Path, points: str) -> None:
    with pytest.raises(BuildError, match=r"entry_points\.txt is implausible"):
        unpacked(tmp_path, {f"{INFO}/entry_points.txt": points})


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="exists"):
        unpacked(tmp_path, {"pkg/a.py": "", "pkg-1.0.data/purelib/pkg/a.py": ""})


def test_a_small_wheel_does_not_unpack_to_hundreds_of_times_its_size(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("pkg/zeros")
    member.compress_type = zipfile.ZIP_DEFLATED
    with pytest.raises(BuildError, match="implausibly large"):
        unpacked(tmp_path, {member: "0" * (wheels.EXPANSION_MAX + 1) * 1024**2})


async def test_processes_share_the_wheels_and_make_equal_trees(tmp_path: Path) -> None:
    source = {"pkg/__init__.py": "def f(x): return x in {'a', 'b', 'Ø'}\n", "pkg/b.py": "Ø = 'Ø'\n"}
    path = wheel(tmp_path, source)
    await unpack_wheels([Unpacking(path, tmp_path / f"tree-{index}", False) for index in range(5)])

    def content(tree: Path) -> dict[str, tuple[float, bytes]]:
        """Times of bytecode are set with those of directories, when it is copied."""
        return {
            str(file.relative_to(tree)): (file.suffix != ".pyc" and file.stat().st_mtime, file.read_bytes())
            for file in tree.rglob("*")
            if file.is_file()
        }

    trees = [content(tmp_path / f"tree-{index}") for index in range(5)]
    assert f"{LIBRARY}/pkg/b.py" in trees[0] and all(tree == trees[0] for tree in trees)


async def test_a_process_names_the_wheel_that_it_refuses(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"../evil": ""})
    with pytest.raises(BuildError, match=f"{path.name} cannot be unpacked: the name '../evil' leaves the tree"):
        await unpack_wheels([Unpacking(path, tmp_path / "tree", False)])


def test_a_wheel_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "UNPACKED_MAX", 1000)
    with pytest.raises(BuildError, match="implausibly large"):
        unpacked(tmp_path, {"pkg/big": "0" * 2000})


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip at all"])
def test_what_is_not_a_wheel_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pkg-1.0-py3-none-any.whl"
    path.write_bytes(data)
    with pytest.raises(BuildError, match="cannot be unpacked"):
        unpack_wheel(path, tmp_path)


PACKAGE = NpmPackage("a", "1.0.0", "node_modules/a", "https://x/a.tgz", "0" * 128, {"a": "cli.js"})


def tarball(folder: Path, *members: tarfile.TarInfo) -> Path:
    path = folder / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = 1 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"x"))
    return path


def test_an_npm_package_is_unpacked_and_its_command_linked(tmp_path: Path) -> None:
    npm.unpack(PACKAGE, tarball(tmp_path, tarfile.TarInfo("package/cli.js")), tmp_path / "tree")
    assert (tmp_path / "tree/usr/local/lib/node_modules/a/cli.js").read_text() == "x"
    command = tmp_path / "tree/usr/local/bin/a"
    assert str(command.readlink()) == "../lib/node_modules/a/cli.js" and os.access(command, os.X_OK)


@pytest.mark.parametrize(("name", "kind"), [("package/../../x", tarfile.REGTYPE), ("package/l", tarfile.SYMTYPE)])
def test_a_hostile_npm_package_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc"
    with pytest.raises(BuildError, match="cannot be unpacked"):
        npm.unpack(PACKAGE, tarball(tmp_path, member), tmp_path / "tree")
