"""The programs that make the mounts of a RUN and take them away, on this host in a mount namespace of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.images import mount_programs
from pandastack.images.mounts import MemoryMount, Mount, SecretMount

pytestmark = pytest.mark.root

Run = Callable[..., subprocess.CompletedProcess[str]]


def secret(target: str, mode: int = 0o400, uid: int = 0) -> SecretMount:
    return SecretMount("s", target, "", mode, uid, 0, False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command between mounting and unmounting; ``kill`` is left out, which would end this host."""

    def here(text: str) -> str:
        return text.replace("/run/pandastack", f"{tmp_path}/run").replace("kill -9 -1", ":")

    def make(command: str, *mounts: Mount) -> subprocess.CompletedProcess[str]:
        values = Path(here(mount_programs.VALUES))
        values.mkdir(parents=True)
        for number, each in enumerate(mounts):
            if isinstance(each, SecretMount):
                (values / str(number)).write_text(f"value {number}\n")
        before, after = (
            [here(word) for word in make(mounts)] for make in (mount_programs.mounting, mount_programs.unmounting)
        )
        script = 'set -e; eval "$1"; eval "$2" || true; eval "$3"'
        quoted = [subprocess.list2cmdline([]) or " ".join(map(_quoted, each)) for each in (before, after)]
        argv = ["unshare", "--mount", "sh", "-c", script, "test", quoted[0], command, quoted[1]]
        return subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=30)

    return make


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_a_secret_is_there_for_one_command_and_leaves_no_trace(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/.npmrc").write_text("of the image")
    names = [f"{tmp_path}/{name}" for name in ("deep/er/a", "there/.npmrc", "there/with space")]
    mounts = [secret(names[0]), secret(names[1], 0o440, uid=7), secret(names[2])]
    done = run('cat deep/er/a there/.npmrc "there/with space"; stat -c "%a %u" deep/er/a there/.npmrc', *mounts)
    assert done.stdout.splitlines() == ["value 0", "value 1", "value 2", "400 0", "440 7"], done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["there"]
    assert [each.name for each in (tmp_path / "there").iterdir()] == [".npmrc"]
    assert (tmp_path / "there/.npmrc").read_text() == "of the image"


def test_what_a_command_made_beside_its_secret_stays(run: Run, tmp_path: Path) -> None:
    done = run("echo made > deep/file", secret(f"{tmp_path}/deep/er/a"))
    assert done.returncode == 0, done.stderr
    assert [str(each.relative_to(tmp_path / "deep")) for each in (tmp_path / "deep").rglob("*")] == ["file"]


def test_a_file_system_in_memory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    mounts = [MemoryMount(f"{tmp_path}/kept", 1 << 20), MemoryMount(f"{tmp_path}/new", 0)]
    done = run("ls kept; echo x > kept/x; echo y > new/y; stat -f -c %T kept new; stat -c %a new", *mounts)
    assert done.stdout.splitlines() == ["tmpfs", "tmpfs", "1777"], done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["kept"] and not list((tmp_path / "kept").iterdir())


def test_a_folder_is_no_target(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = run("true", secret(f"{tmp_path}/folder"))
    assert done.returncode != 0 and "is a folder" in done.stderr


def test_without_targets_there_is_nothing_to_do() -> None:
    only_variable = SecretMount("s", "", "S", 0o400, 0, 0, False)
    assert len(mount_programs.mounting([only_variable])) == len(mount_programs.unmounting([only_variable])) == 4
