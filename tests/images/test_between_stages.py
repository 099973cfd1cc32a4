"""The program that copies from one stage to another, carried out on this host in a mount namespace of its own.

The host's root stands for both stages, so links of the source resolve as anywhere; that they end within another stage's
root is shown with machines (``tests/system/test_multi_stage.py``).
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.images.actions import StageCopyAction
from pandastack.images.between_stages import SCRIPT, arguments
from pandastack.images.copying import Ownership

pytestmark = pytest.mark.root

Copy = Callable[..., subprocess.CompletedProcess[str]]

_MOUNT = 'mount -t ext4 -o ro "$device" "$root"'
_NAMESPACE = """mount -t tmpfs tmpfs /run && exec "$@" """


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "tree/sub").mkdir(parents=True)
    (root / "tree/sub/file").write_text("deep")
    (root / "tree/.hidden").write_text("dot")
    (root / "tree/link").symlink_to("sub/file")
    (root / "tree/out").symlink_to("/etc/passwd")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "to-tool").symlink_to("tool")
    (root / "dangling").symlink_to("nowhere")
    (root / "a b").write_text("space")
    (root / "line\nbreak").write_text("break")
    os.chown(root / "tool", 12, 34)
    (root / "tool").chmod(0o4755)
    (root / "tree").chmod(0o700)
    return root


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Copy:
    assert SCRIPT.count(_MOUNT) == 1
    script = SCRIPT.replace(_MOUNT, 'mount --bind / "$root"')

    def run(*names: str, to: str, owner: Ownership | None = None, mode: int | None = None) -> object:
        names = tuple(f"{source}/{name}" for name in names)
        action = StageCopyAction("", 1, "", 0, names, f"{tmp_path}/{to}", owner, mode)
        argv = [script if word == SCRIPT else word for word in arguments(action)]
        wrapped = ["unshare", "--mount", "sh", "-c", _NAMESPACE, "sh", *argv]
        return subprocess.run(wrapped, capture_output=True, text=True, timeout=60)

    return run  # type: ignore[return-value]


def test_a_folders_contents_are_copied_links_as_links(copy: Copy, tmp_path: Path) -> None:
    done = copy("tree", to="new/place")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "new/place"
    assert sorted(each.name for each in made.iterdir()) == [".hidden", "link", "out", "sub"]
    assert (made / "sub/file").read_text() == "deep"
    assert (made / "out").readlink() == Path("/etc/passwd")
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_there_keeps_its_mode_and_its_other_files(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "there/real").mkdir(parents=True)
    (tmp_path / "there").chmod(0o751)
    (tmp_path / "there/other").write_text("stays")
    (tmp_path / "there/sub").symlink_to("real")  # as /bin is one
    done = copy("tree", to="there")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o751
    assert (tmp_path / "there/other").read_text() == "stays"
    assert (tmp_path / "there/sub").is_symlink() and (tmp_path / "there/real/file").read_text() == "deep"


@pytest.mark.parametrize(
    ("name", "to", "made"),
    [
        ("tool", "x/y", "x/y"),
        ("tool", "x/", "x/tool"),
        ("tool", "source/tree/sub", "source/tree/sub/tool"),
        ("to-tool", "x/", "x/to-tool"),
        ("to*", "x/", "x/to-tool"),
        ("a b", "c d/", "c d/a b"),
        ("line\nbreak", "x/", "x/line\nbreak"),
        ("line?break", "x/", "x/line\nbreak"),
        ("[^a-s]ool", "x/", "x/tool"),
        ("tree/*idden", "x/", "x/.hidden"),
        ("t*/s*/file", "x", "x"),
    ],
)
def test_where_a_file_goes(copy: Copy, tmp_path: Path, name: str, to: str, made: str) -> None:
    done = copy(name, to=to)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / made).is_file() and not (tmp_path / made).is_symlink()


def test_files_keep_owner_and_mode_unless_told_otherwise(copy: Copy, tmp_path: Path) -> None:
    assert copy("tool", to="plain").returncode == 0
    plain = (tmp_path / "plain").stat()
    assert (plain.st_uid, plain.st_gid, plain.st_mode & 0o7777) == (12, 34, 0o4755)
    assert copy("tool", to="owned", owner=Ownership(5, 0, "", "root")).returncode == 0
    owned = (tmp_path / "owned").stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o7777) == (5, 0, 0o4755)
    assert copy("tree", to="changed", owner=Ownership(5, 6), mode=0o750).returncode == 0
    for each in (tmp_path / "changed", tmp_path / "changed/sub", tmp_path / "changed/.hidden"):
        status = each.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (5, 6, 0o750)


def test_a_file_replaces_a_link_and_not_what_it_leads_to(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("same")
    (tmp_path / "target").symlink_to("victim")
    assert copy("a b", to="target").returncode == 0
    assert not (tmp_path / "target").is_symlink() and (tmp_path / "victim").read_text() == "same"


@pytest.mark.parametrize(
    ("names", "to", "words"),
    [
        (("missing",), "x", "missing: no such file in the stage"),
        (("dangling",), "x", "dangling: no such file in the stage"),
        (("z*",), "x/", "z*: no such file in the stage"),
        (("tree/*",), "new", "several sources need a folder"),
        (("tool", "missing"), "x/", "missing: no such file in the stage"),
        (("tool",), "source/a b/", "a b"),
    ],
)
def test_what_is_refused(copy: Copy, tmp_path: Path, names: tuple[str, ...], to: str, words: str) -> None:
    done = copy(*names, to=to)
    assert done.returncode != 0 and words in done.stderr
    assert not (tmp_path / "x").exists() and not (tmp_path / "new").exists()


def test_an_owner_that_the_stage_does_not_know_is_an_error(copy: Copy) -> None:
    for name in ("tree", "tool"):
        done = copy(name, to=f"new-{name}", owner=Ownership(0, 0, "nobody-knows", "root"))
        assert done.returncode != 0 and "nobody-knows" in done.stderr


def test_links_of_a_stage_end_within_its_root(tmp_path: Path) -> None:
    """A root of its own, with the programs of this host."""
    stage = tmp_path / "stage"
    for name in ("usr", "etc", "deep/er"):
        (stage / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (stage / name).symlink_to(f"usr/{name}")
    (stage / "etc/hostname").write_text("of the stage")
    (stage / "absolute").symlink_to("/etc/hostname")
    (stage / "deep/er/climbing").symlink_to("../../../../../../../../etc")
    (stage / "etc/passwd").symlink_to("/../../etc/shadow")
    script = SCRIPT.replace(_MOUNT, f'mount --rbind {stage} "$root"').replace(
        "trap 'umount", "trap 'umount --recursive"
    )
    sources = ("/absolute", "/deep/er/climbing/hostn?me", "/deep/*/climbing/../etc/hostname", "/etc/passwd")
    for number, name in enumerate(sources):
        action = StageCopyAction("", 1, "", 0, (name,), str(tmp_path / f"made/{number}"), None, None)
        argv = [script if word == SCRIPT else word for word in arguments(action)]
        prepared = f"mount --bind /usr {stage}/usr && {_NAMESPACE}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", prepared, "sh", *argv], capture_output=True, text=True, timeout=60
        )
        if name == "/etc/passwd":
            assert done.returncode != 0 and "no such file in the stage" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            assert (tmp_path / f"made/{number}").read_text() == "of the stage"
