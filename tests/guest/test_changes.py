"""The list of what differs from the template: through the real agent on a real overlay, and hostile lists."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio.abc import UNIXSocketStream
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, ConflictError, GuestError
from pandastack.guest import Changed, Channel, Identity, Listing, changes
from pandastack.guest.frames import encode_fields, u32, u64

IDENTITY = Identity(hostname="box", machine_id="0" * 32)
LISTED_S = 30.0


@dataclass
class Overlay:
    """``lower`` is filled by a test, then mounted and changed at ``root``."""

    base: Path

    @property
    def lower(self) -> Path:
        return self.base / "lower"

    @property
    def root(self) -> Path:
        return self.base / "root"

    def mount(self) -> None:
        words = f"lowerdir={self.lower},upperdir={self.base}/upper,workdir={self.base}/work"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, self.root], capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount an overlay here: {done.stderr.decode().strip()}")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    """On a file system of its own: the host's may be an overlay itself, which cannot be an upper directory."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    made = Overlay(tmp_path)
    try:
        for name in ("lower", "upper", "work", "root"):
            (tmp_path / name).mkdir()
        yield made
    finally:
        subprocess.run(["umount", "--quiet", made.root], check=False)
        subprocess.run(["umount", tmp_path], check=True)


@asynccontextmanager
async def agent_on(binary: Path, *options: str) -> AsyncIterator[Channel]:
    ours, theirs = socket.socketpair()
    argv = [str(binary), "--fd", str(theirs.fileno()), "--no-identity", *options]
    async with await anyio.open_process(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        async with Channel(await UNIXSocketStream.from_socket(ours)) as channel:
            await channel.hello(10)
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
            yield channel
    assert process.returncode == 0


async def listed(overlay: Overlay, binary: Path) -> Listing:
    async with agent_on(binary, "--overlay", str(overlay.base / "upper"), str(overlay.lower)) as channel:
        found = await channel.changes(LISTED_S)
        assert await channel.changes(LISTED_S) == found
    return found


def gone(found: Listing) -> list[str]:
    return sorted(os.fsdecode(path) for path, each in found.items() if each.now is None)


def there(found: Listing) -> list[str]:
    return sorted(os.fsdecode(path) for path, each in found.items() if each.now is not None)


async def test_what_is_new_changed_and_deleted(overlay: Overlay, agent_binary: Path) -> None:
    for name in ("kept", "changed", "deleted", "dir/deep/kept", "dir/deep/deleted", "tree/a/b", "tree/c"):
        (overlay.lower / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay.lower / name).write_text("old")
    overlay.mount()
    root = overlay.root
    (root / "changed").write_text("newer")
    (root / "deleted").unlink()
    (root / "dir/deep/deleted").unlink()
    (root / "new").mkdir(mode=0o700)
    (root / "new/link").symlink_to("../kept")
    os.mkfifo(root / "new/fifo")
    (root / os.fsdecode(b"bad\xff\n")).touch()
    shutil.rmtree(root / "tree")
    found = await listed(overlay, agent_binary)
    assert gone(found) == ["/deleted", "/dir/deep/deleted", "/tree"]
    assert there(found) == sorted(
        ["/" + os.fsdecode(b"bad\xff\n"), "/changed", "/dir", "/dir/deep", "/new", "/new/fifo", "/new/link"]
    )
    changed = found[b"/changed"]
    assert changed.now is not None and changed.template is not None
    assert (changed.now.kind, changed.now.size, changed.template.size) == ("-", 5, 3)
    real = (root / "changed").stat()
    assert (changed.now.mtime_ns, changed.now.uid, changed.now.mode) == (real.st_mtime_ns, real.st_uid, real.st_mode)
    assert changed.now.ctime_ns > 0 and changed.now.inode > 0
    link, fifo, new = (found[path].now for path in (b"/new/link", b"/new/fifo", b"/new"))
    assert link is not None and fifo is not None and new is not None
    assert (link.kind, link.target, fifo.kind, stat.S_IMODE(new.mode)) == ("l", b"../kept", "p", 0o700)
    assert found[b"/new"].template is None
    tree = found[b"/tree"].template
    assert tree is not None and tree.kind == "d"


async def test_what_a_new_directory_hides_is_deleted(overlay: Overlay, agent_binary: Path) -> None:
    for name in ("tree/stays", "tree/goes", "tree/sub/goes", "tree/sub/comes-back", "tree/whole/x", "file"):
        (overlay.lower / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay.lower / name).write_text("old")
    overlay.mount()
    root = overlay.root
    shutil.rmtree(root / "tree")
    (root / "tree/sub").mkdir(parents=True)
    (root / "tree/stays").write_text("again")
    (root / "tree/sub/comes-back").write_text("again")
    (root / "file").unlink()
    (root / "file").mkdir()
    found = await listed(overlay, agent_binary)
    assert gone(found) == ["/tree/goes", "/tree/sub/goes", "/tree/whole"]
    assert there(found) == ["/file", "/tree", "/tree/stays", "/tree/sub", "/tree/sub/comes-back"]
    assert found[b"/tree"].opaque
    replaced = found[b"/file"]
    assert replaced.now is not None and replaced.template is not None
    assert (replaced.now.kind, replaced.template.kind) == ("d", "-")


async def test_a_list_longer_than_the_window(overlay: Overlay, agent_binary: Path) -> None:
    overlay.mount()
    names = {f"/dir/{number:04}-{'n' * 200}" for number in range(3000)}
    (overlay.root / "dir").mkdir()
    for name in names:
        (overlay.root / name[1:]).touch()
    assert set(there(await listed(overlay, agent_binary))) == names | {"/dir"}


async def test_a_tree_too_deep_is_an_error_and_not_a_part_of_a_list(overlay: Overlay, agent_binary: Path) -> None:
    overlay.mount()
    deep = overlay.root.joinpath(*["d"] * 130)
    deep.mkdir(parents=True)
    with pytest.raises(BadRequestError, match="nested too deeply"):
        await listed(overlay, agent_binary)


async def test_too_many_changes_are_refused(
    overlay: Overlay, agent_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay.mount()
    for number in range(20):
        (overlay.root / str(number)).touch()
    monkeypatch.setattr(changes, "ENTRIES_MAX", 19)
    with pytest.raises(BadRequestError, match="more than 19"):
        await listed(overlay, agent_binary)


@pytest.mark.parametrize("seed", range(8))
async def test_random_changes_are_the_ones_listed(overlay: Overlay, agent_binary: Path, seed: int) -> None:
    """Whatever was done, template and list together give the tree that is there."""
    rng = random.Random(seed)
    grow(rng, overlay.lower, 40)
    before = tree(overlay.lower)
    overlay.mount()
    for _ in range(60):
        mutate(rng, overlay.root)
    after = tree(overlay.root)
    assert applied(before, await listed(overlay, agent_binary)) == after


async def test_a_tree_that_changes_while_it_is_walked(overlay: Overlay, agent_binary: Path) -> None:
    """What is moved, replaced or deleted in the middle is listed or not; what stays is, and the agent lives."""
    grow(random.Random(1), overlay.lower, 60)
    overlay.mount()
    (overlay.root / "stays").write_text("here")
    over = threading.Event()

    def disturb() -> None:
        rng = random.Random(2)
        while not over.is_set():
            with suppress(OSError):
                mutate(rng, overlay.root / "moving")
            with suppress(OSError):
                (overlay.root / "moving/a").rename(overlay.root / "moving/g")

    (overlay.root / "moving").mkdir()
    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        async with agent_on(agent_binary, "--overlay", str(overlay.base / "upper"), str(overlay.lower)) as channel:
            for _ in range(100):
                assert b"/stays" in await channel.changes(LISTED_S)
    finally:
        over.set()
        disturber.join()


def names(rng: random.Random, root: Path, what: str) -> list[Path]:
    found = [path for path in root.rglob("*") if what == "any" or path.is_dir() == (what == "dir")]
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
        if each.now is None or each.opaque or each.now.kind != "d":
            for known in list(after):
                if (known == path or known.startswith(path + b"/")) and known not in found:
                    assert known == path or each.now is None or each.now.kind != "d" or not_direct(known, path)
                    del after[known]
            after.pop(path, None)
    for path, each in found.items():
        if each.now is not None:
            after[path] = (each.now.kind, each.now.mode, 0 if each.now.kind == "d" else each.now.size)
        else:
            after.pop(path, None)
    return after


def not_direct(known: bytes, path: bytes) -> bool:
    """What an opaque directory itself hides is listed; below that it is hidden by what is listed."""
    return b"/" in known[len(path) + 1 :]


async def test_a_guest_without_an_overlay_says_so(agent_binary: Path) -> None:
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
    assert (each.now.kind, each.now.size, each.template.kind, each.opaque) == ("-", 5, "d", False)


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
