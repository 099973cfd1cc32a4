"""The list of what differs from the template: through the real agent on a real file system, and hostile lists."""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, ConflictError, GuestError
from pandastack.guest import Changed, Channel, Listing, changes
from pandastack.guest.frames import encode_fields, u32, u64
from pandastack.host.processes.run import run
from pandastack.images.ext4 import make_ext4
from tests.support.guests import agent_on

LISTED_S = 30.0


@dataclass
class Root:
    """A root file system as guests have it, and its device. It is filled, remembered by an agent, and changed."""

    path: Path
    device: str


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Root]:
    image, path = tmp_path / "image", tmp_path / "root"
    await make_ext4(image, 256)
    attached = await run(["losetup", "--find", "--show", image], check=False)
    if attached.returncode:
        pytest.skip(f"this host gives no loop device: {attached.stderr.decode().strip()}")
    device = attached.text.strip()
    try:
        path.mkdir()
        await run(["mount", "-o", "noatime", device, path])
        yield Root(path, device)
    finally:
        await run(["umount", "--quiet", path], check=False)
        await run(["losetup", "--detach", device])


@asynccontextmanager
async def remembering(root: Root, binary: Path) -> AsyncIterator[Channel]:
    """An agent that remembers what ``root`` has now."""
    async with agent_on(binary, "--root", str(root.path), root.device) as channel:
        await channel.remember_files()
        yield channel


async def listed(channel: Channel) -> Listing:
    found = await channel.changes(LISTED_S)
    assert await channel.changes(LISTED_S) == found
    return found


def fill(root: Root, *names: str) -> None:
    for name in names:
        (root.path / name).parent.mkdir(parents=True, exist_ok=True)
        (root.path / name).write_text("old")


def gone(found: Listing) -> list[str]:
    return sorted(os.fsdecode(path) for path, each in found.items() if each.now is None)


def there(found: Listing) -> list[str]:
    return sorted(os.fsdecode(path) for path, each in found.items() if each.now is not None)


async def test_what_is_new_changed_and_deleted(root: Root, agent_binary: Path) -> None:
    fill(root, "kept", "changed", "deleted", "dir/deep/kept", "dir/deep/deleted", "tree/a/b", "tree/c", "far/away/kept")
    top = root.path
    async with remembering(root, agent_binary) as channel:
        assert await listed(channel) == {}
        (top / "changed").write_text("newer")
        (top / "deleted").unlink()
        (top / "dir/deep/deleted").unlink()
        (top / "new").mkdir(mode=0o700)
        (top / "new/link").symlink_to("../kept")
        os.mkfifo(top / "new/fifo")
        (top / os.fsdecode(b"bad\xff\n")).touch()
        shutil.rmtree(top / "tree")
        found = await listed(channel)
    assert gone(found) == ["/deleted", "/dir/deep/deleted", "/tree"]
    assert there(found) == sorted(
        ["/" + os.fsdecode(b"bad\xff\n"), "/changed", "/dir/deep", "/new", "/new/fifo", "/new/link"]
    )
    changed = found[b"/changed"]
    assert changed.now is not None and changed.template is not None
    assert (changed.now.kind, changed.now.size, changed.template.size) == ("-", 5, 3)
    real = (top / "changed").stat()
    assert (changed.now.mtime_ns, changed.now.uid, changed.now.mode) == (real.st_mtime_ns, real.st_uid, real.st_mode)
    assert changed.now.ctime_ns > 0 and changed.now.inode > 0
    link, fifo, new = (found[path].now for path in (b"/new/link", b"/new/fifo", b"/new"))
    assert link is not None and fifo is not None and new is not None
    assert (link.kind, link.target, fifo.kind, stat.S_IMODE(new.mode)) == ("l", b"../kept", "p", 0o700)
    assert found[b"/new"].template is None
    tree = found[b"/tree"].template
    assert tree is not None and tree.kind == "d"


async def test_what_a_directory_in_the_place_of_another_has_not_is_deleted(root: Root, agent_binary: Path) -> None:
    fill(root, "tree/stays", "tree/goes", "tree/sub/goes", "tree/sub/comes-back", "tree/whole/x", "file")
    top = root.path
    async with remembering(root, agent_binary) as channel:
        (top / "tree").rename(top / "aside")
        (top / "tree/sub").mkdir(parents=True)
        (top / "tree/stays").write_text("again")
        (top / "tree/sub/comes-back").write_text("again")
        (top / "file").unlink()
        (top / "file").mkdir()
        found = await listed(channel)
    assert gone(found) == ["/tree/goes", "/tree/sub/goes", "/tree/whole"]
    moved = [f"/aside{name}" for name in ("", "/goes", "/stays", "/sub", "/sub/comes-back", "/sub/goes", "/whole")]
    placed = ["/file", "/tree", "/tree/stays", "/tree/sub", "/tree/sub/comes-back"]
    assert there(found) == sorted([*moved, "/aside/whole/x", *placed])
    replaced = found[b"/file"]
    assert replaced.now is not None and replaced.template is not None
    assert (replaced.now.kind, replaced.template.kind) == ("d", "-")


async def test_a_directory_that_was_renamed_and_renamed_back_has_not_changed(root: Root, agent_binary: Path) -> None:
    fill(root, "tree/a", "tree/sub/b", "other/c")
    top = root.path
    async with remembering(root, agent_binary) as channel:
        (top / "tree").rename(top / "other/tree")
        assert there(await listed(channel)) == ["/", "/other", "/other/tree"][1:] + [
            f"/other/tree/{name}" for name in ("a", "sub", "sub/b")
        ]
        (top / "other/tree").rename(top / "tree")
        assert set(there(await listed(channel))) == {"/other", "/tree"}


async def test_every_name_of_a_file_is_listed(root: Root, agent_binary: Path) -> None:
    """A file with many names changes under all of them; one that gets or loses a name is the same file."""
    fill(root, "one/a", "three/x")
    top = root.path
    for name in ("two", "three/deep"):
        (top / name).mkdir()
        (top / name / "b").hardlink_to(top / "one/a")
    async with remembering(root, agent_binary) as channel:
        (top / "two/b").write_text("new")
        found = await listed(channel)
        assert there(found) == ["/one/a", "/three/deep/b", "/two/b"]
        assert len({each.now.inode for each in found.values() if each.now}) == 1
        (top / "one/c").hardlink_to(top / "three/x")
        (top / "two/b").unlink()
        found = await listed(channel)
    assert gone(found) == ["/two/b"]
    assert there(found) == ["/one", "/one/a", "/one/c", "/three/deep/b", "/three/x", "/two"]


async def test_owners_modes_attributes_and_targets(root: Root, agent_binary: Path) -> None:
    fill(root, "owner", "mode", "attribute", "clock", "kept")
    top = root.path
    (top / "link").symlink_to("kept")
    (top / "far").symlink_to("x" * 200)
    (top / "device").parent.mkdir(exist_ok=True)
    os.mknod(top / "device", stat.S_IFCHR | 0o600, os.makedev(300, 70000))
    async with remembering(root, agent_binary) as channel:
        os.chown(top / "owner", 70000, 70001)
        (top / "mode").chmod(0o4755)
        os.setxattr(top / "attribute", "user.large", b"x" * 2000)
        os.utime(top / "clock", ns=(1, 5_000_000_000 * 10**9 + 7))
        for name in ("link", "far", "device"):
            (top / name).rename(top / f"moved-{name}")
        found = await listed(channel)
    assert gone(found) == ["/device", "/far", "/link"]
    then = {path.decode(): each.template for path, each in found.items() if each.template}
    assert then["/link"].target == b"kept" and then["/far"].target == b"x" * 200
    assert (then["/device"].kind, then["/device"].device) == ("c", os.makedev(300, 70000))
    now = {path.decode(): each.now for path, each in found.items() if each.now}
    assert set(now) == {
        *("/owner", "/mode", "/attribute", "/clock", "/moved-link", "/moved-far", "/moved-device"),
    }
    assert (now["/owner"].uid, now["/owner"].gid, then["/owner"].uid) == (70000, 70001, os.getuid())
    assert (now["/mode"].mode, then["/mode"].mode) == (stat.S_IFREG | 0o4755, stat.S_IFREG | 0o644)
    assert now["/clock"].mtime_ns == 5_000_000_000 * 10**9 + 7
    assert now["/moved-device"].device == os.makedev(300, 70000) and now["/moved-far"].target == b"x" * 200


async def test_what_the_template_has_is_told_to_the_nanosecond(root: Root, agent_binary: Path) -> None:
    fill(root, "file")
    os.utime(root.path / "file", ns=(1, -(10**9) * 1000 + 5))
    before = (root.path / "file").stat()
    async with remembering(root, agent_binary) as channel:
        (root.path / "file").unlink()
        then = (await listed(channel))[b"/file"].template
    assert then is not None
    assert (then.size, then.mtime_ns, then.ctime_ns) == (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    assert (then.inode, then.mode, then.uid) == (before.st_ino, before.st_mode, before.st_uid)


async def test_what_is_mounted_over_a_directory_is_not_in_the_list(root: Root, agent_binary: Path) -> None:
    fill(root, "place/below")
    async with remembering(root, agent_binary) as channel:
        (root.path / "place/below").write_text("new")
        await run(["mount", "-t", "tmpfs", "none", root.path / "place"])
        try:
            (root.path / "place/over").touch()
            assert there(await listed(channel)) == ["/place/below"]
        finally:
            await run(["umount", root.path / "place"])


async def test_a_file_system_that_grows_keeps_its_changes(root: Root, agent_binary: Path) -> None:
    fill(root, "kept", "dir/changed")
    async with remembering(root, agent_binary) as channel:
        with (root.path.parent / "image").open("r+b") as file:
            file.truncate(2 * 1024**3)
        await run(["losetup", "--set-capacity", root.device])
        grown = await run(["resize2fs", root.device], check=False)
        if grown.returncode:
            pytest.skip(f"a mounted file system cannot grow here: {grown.stderr.decode().strip()}")
        (root.path / "dir/changed").write_text("new")
        for number in range(40):
            (root.path / f"new-{number}").mkdir()
        assert set(there(await listed(channel))) == {"/dir/changed", *(f"/new-{number}" for number in range(40))}


async def test_large_directories_are_read_whole(root: Root, agent_binary: Path) -> None:
    fill(root, *(f"big/{number:05}-{'n' * 60}" for number in range(3000)))
    async with remembering(root, agent_binary) as channel:
        (root.path / "big/new").touch()
        names = sorted(path.name for path in (root.path / "big").iterdir())
        for name in names[::3]:
            (root.path / "big" / name).unlink()
        found = await listed(channel)
    assert gone(found) == [f"/big/{name}" for name in names[::3] if name != "new"]
    assert "/big" in there(found) and len(there(found)) == (2 if "new" not in names[::3] else 1)


async def test_a_list_longer_than_the_window(root: Root, agent_binary: Path) -> None:
    async with remembering(root, agent_binary) as channel:
        names = {f"/dir/{number:04}-{'n' * 200}" for number in range(3000)}
        (root.path / "dir").mkdir()
        for name in names:
            (root.path / name[1:]).touch()
        assert set(there(await listed(channel))) == names | {"/dir"}


async def test_a_tree_too_deep_is_an_error_and_not_a_part_of_a_list(root: Root, agent_binary: Path) -> None:
    async with remembering(root, agent_binary) as channel:
        root.path.joinpath(*["d"] * 130).mkdir(parents=True)
        with pytest.raises(BadRequestError, match="nested too deeply"):
            await listed(channel)


async def test_too_many_changes_are_refused(root: Root, agent_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with remembering(root, agent_binary) as channel:
        for number in range(20):
            (root.path / str(number)).touch()
        monkeypatch.setattr(changes, "ENTRIES_MAX", 19)
        with pytest.raises(BadRequestError, match="more than 19"):
            await listed(channel)


@pytest.mark.parametrize("seed", range(12))
async def test_random_changes_are_the_ones_listed(root: Root, agent_binary: Path, seed: int) -> None:
    """Whatever was done, template and list together give the tree that is there."""
    rng = random.Random(seed)
    grow(rng, root.path, 40)
    before = tree(root.path)
    async with remembering(root, agent_binary) as channel:
        for _ in range(60):
            mutate(rng, root.path)
        after = tree(root.path)
        assert applied(before, await listed(channel)) == after


async def test_a_tree_that_changes_while_it_is_walked(root: Root, agent_binary: Path) -> None:
    """What is moved, replaced or deleted in the middle is listed or not; what stays is, and the agent lives."""
    grow(random.Random(1), root.path, 60)
    over = threading.Event()

    def disturb() -> None:
        rng = random.Random(2)
        while not over.is_set():
            with suppress(OSError):
                mutate(rng, root.path / "moving")
            with suppress(OSError):
                (root.path / "moving/a").rename(root.path / "moving/g")

    async with remembering(root, agent_binary) as channel:
        (root.path / "stays").write_text("here")
        (root.path / "moving").mkdir()
        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            for _ in range(100):
                assert b"/stays" in await channel.changes(LISTED_S)
        finally:
            over.set()
            disturber.join()


def names(rng: random.Random, root: Path, what: str) -> list[Path]:
    found = [path for path in sorted(root.rglob("*")) if what == "any" or path.is_dir() == (what == "dir")]
    return [rng.choice(found)] if found else []


def grow(rng: random.Random, root: Path, count: int) -> None:
    for _ in range(count):
        (parent,) = names(rng, root, "dir") or [root]
        path = (parent if rng.random() < 0.8 else root) / rng.choice("abcdef")
        if not path.exists():
            path.mkdir() if rng.random() < 0.5 else path.write_text(str(rng.random()))


def mutate(rng: random.Random, root: Path) -> None:
    action = rng.random()
    if action < 0.4:
        grow(rng, root, 1)
    elif action < 0.7:
        for path in names(rng, root, "any"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif action < 0.8:
        for path in names(rng, root, "file"):
            path.write_text(str(rng.random()))
    elif action < 0.9:
        for path in names(rng, root, "dir"):
            shutil.rmtree(path)
            path.mkdir()
            grow(rng, path, 3)
    elif action < 0.95:
        for path, place in zip(names(rng, root, "any"), names(rng, root, "dir") or [root], strict=False):
            if not place.is_relative_to(path) and not (place / "moved").exists():
                path.rename(place / "moved")
    else:
        for path in names(rng, root, "any"):
            path.chmod(0o700 + rng.randrange(8))


def tree(root: Path) -> dict[bytes, tuple[str, int, int]]:
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind = "d" if stat.S_ISDIR(status.st_mode) else "-"
        size = 0 if kind == "d" else status.st_size
        found[b"/" + os.fsencode(path.relative_to(root))] = (kind, status.st_mode, size)
    return found


def applied(before: dict[bytes, tuple[str, int, int]], found: Listing) -> dict[bytes, tuple[str, int, int]]:
    after = dict(before)
    for path, each in found.items():
        if each.now is None or each.now.kind != "d":
            for known in [known for known in after if known.startswith(path + b"/")]:
                del after[known]
        if each.now is None:
            del after[path]
        else:
            after[path] = (each.now.kind, each.now.mode, 0 if each.now.kind == "d" else each.now.size)
    return after


async def test_a_guest_that_remembers_nothing_says_so(agent_binary: Path) -> None:
    async with agent_on(agent_binary) as channel:
        with pytest.raises(ConflictError, match="changes"):
            await channel.changes(LISTED_S)
        await channel.ping()


NODE = [(2, b"-"), (3, u64(5)), (4, u32(stat.S_IFREG | 0o644))]


def entry(*items: tuple[int, bytes]) -> bytes:
    return encode_fields([(11, encode_fields(items))])


def parsed(payload: bytes) -> dict[bytes, Changed]:
    found: dict[bytes, Changed] = {}
    changes.add(found, payload)
    return found


def test_an_entry_becomes_what_it_says() -> None:
    found = parsed(entry((1, b"etc/x"), *NODE, (14, encode_fields([(2, b"d")]))))
    assert list(found) == [b"/etc/x"]
    (each,) = found.values()
    assert each.now is not None and each.template is not None
    assert (each.now.kind, each.now.size, each.template.kind) == ("-", 5, "d")


def test_a_path_that_moved_during_the_walk_counts_once_but_is_counted_twice() -> None:
    found: dict[bytes, Changed] = {}
    assert changes.add(found, entry((1, b"a"), *NODE) + entry((1, b"a"), (2, b"d"))) == 2
    assert [each.now.kind for each in found.values() if each.now] == ["d"]


@pytest.mark.parametrize(
    "payload",
    [
        *(
            entry((1, path), *NODE)
            for path in (b"", b"/a", b"a/", b"a//b", b"..", b"a/../b", b".", b"a\0b", b"a" * 4096)
        ),
        entry(*NODE),
        entry((1, b"a"), (1, b"b"), *NODE),
        entry((1, b"a")),
        entry((1, b"a"), (2, b"")),
        entry((1, b"a"), (2, b"-d")),
        entry((1, b"a"), (2, b"?")),
        entry((1, b"a"), (2, b"\xff")),
        entry((1, b"a"), (2, b"x")),
        entry((1, b"a"), (2, b"-"), (3, bytes(9))),
        entry((1, b"a"), (2, b"l"), (11, b"t" * 4097)),
        entry((1, b"a"), *NODE, (14, encode_fields([(2, b"x")]))),
        entry((1, b"a"), *NODE, (14, b"junk")),
        encode_fields([(11, b"junk")]),
    ],
)
def test_what_no_agent_lists_is_refused(payload: bytes) -> None:
    with pytest.raises(GuestError):
        parsed(payload)


pieces = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4, 11, 13, 14, 99]), st.one_of(st.binary(max_size=12), st.just(b"-"))),
    max_size=8,
)


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(pieces, max_size=4).map(lambda found: b"".join(entry(*i) for i in found))
    )
)
def test_garbage_is_a_guest_error_or_a_list_of_possible_files(payload: bytes) -> None:
    try:
        found = parsed(payload)
    except GuestError:
        return
    for path, each in found.items():
        assert path.startswith(b"/") and os.path.normpath(path) == path and b"\0" not in path
        assert each.now is not None or each.template is not None
