"""What differs between real guests, through the engine itself."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import anyio
import pytest

from pandastack.engine.compare.diff import Budget, Change, Point
from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.settings import Settings
from pandastack.errors import BadRequestError, NotFoundError
from tests.support.installation import Installation
from tests.support.machines import opened, run, spec

pytestmark = pytest.mark.anyio

TEMPLATE = Point(template="base")


@pytest.fixture
async def engine(place: Installation) -> AsyncIterator[Engine]:
    async with open_engine(place.layout, Settings(ready_machines=1)) as engine:
        yield engine


@pytest.fixture
async def lone(place: Installation) -> AsyncIterator[Engine]:
    async with opened(place) as engine:
        yield engine


def told(found: list[Change]) -> dict[str, tuple[str, ...]]:
    return {each.difference.path.decode(): (each.difference.change, *each.difference.what) for each in found}


async def snapshot(engine: Engine, sandbox_id: str) -> Point:
    name = str(uuid.uuid4())
    await engine.copies.snapshot(sandbox_id, name)
    return Point(snapshot=name)


async def test_nothing_has_changed_in_a_new_sandbox(engine: Engine) -> None:
    """Neither a restore nor an identity, nor being looked at, leaves a trace on the disk."""
    sandbox = await engine.sandboxes.create(spec(), "base")
    assert await engine.diffs.between(TEMPLATE, Point(sandbox=sandbox.id)) == []
    taken = await snapshot(engine, sandbox.id)
    assert await engine.diffs.between(taken, Point(sandbox=sandbox.id)) == []
    assert await engine.diffs.between(taken, TEMPLATE) == []


async def test_every_kind_of_change_between_two_snapshots(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    await run(sandbox, "mkdir /d; cd /d; echo aaaa > same-size; echo a > longer; touch gone mode; ln -s old link; sync")
    await run(sandbox, "cd /d; echo untouched > untouched; echo touched > touched; chmod 600 /etc/motd; rm /etc/issue")
    one = await snapshot(engine, sandbox.id)
    await run(sandbox, "cd /d; echo bbbb > same-size; echo ab > longer; rm gone; chmod 700 mode; ln -sfn new link")
    await run(
        sandbox, "cd /d; touch touched; mkdir -p new/deep; echo x > new/deep/file; rm -r /etc/apt; chown 5 /etc/motd"
    )
    two = await snapshot(engine, sandbox.id)
    await run(sandbox, "rm -r /d")
    found = await engine.diffs.between(one, two, patches=True)
    assert told(found) == {
        "/d/gone": ("removed",),
        "/d/link": ("changed", "target"),
        "/d/longer": ("changed", "content"),
        "/d/mode": ("changed", "mode"),
        "/d/new": ("added",),
        "/d/new/deep": ("added",),
        "/d/new/deep/file": ("added",),
        "/d/same-size": ("changed", "content"),
        "/etc/apt": ("removed",),
        "/etc/motd": ("changed", "owner"),
    }
    patches = {each.difference.path: each.patch for each in found}
    assert patches[b"/d/same-size"] == "--- a/d/same-size\n+++ b/d/same-size\n@@ -1 +1 @@\n-aaaa\n+bbbb\n"
    assert patches[b"/d/new/deep/file"] == "--- /dev/null\n+++ b/d/new/deep/file\n@@ -0,0 +1 @@\n+x\n"
    assert patches[b"/d/mode"] is None
    back = await engine.diffs.between(two, Point(sandbox=sandbox.id))
    assert told(back)["/d"] == ("removed",) and told(back)["/d/new/deep/file"] == ("removed",)
    since = told(await engine.diffs.between(TEMPLATE, Point(sandbox=sandbox.id)))
    assert since["/etc/issue"] == ("removed",) and since["/etc/motd"] == ("changed", "mode", "owner")
    assert not [path for path in since if path.startswith(("/run", "/proc", "/dev", "/sys"))]


async def test_large_directories_of_guest_and_template_are_listed_whole(engine: Engine) -> None:
    """More than one read of a directory and one frame of the channel hold, on the file systems that guests have."""
    sandbox = await engine.sandboxes.create(spec(), "base")
    await run(sandbox, "mkdir /big; cd /big; seq 3000 | xargs mkdir; seq 3000 | sed 's,$,/file,' | xargs touch")
    inside = (await run(sandbox, "cd /usr/share/zoneinfo 2>/dev/null || cd /usr/bin; pwd; ls -A")).split()
    directory, names = inside[0], inside[1:]
    # /usr/bin is what everything runs with: keep the shell's own tools in reach while it is gone
    await run(sandbox, f"cp -a {directory} /kept; PATH=/kept:$PATH; rm -r {directory} && mkdir {directory}")
    found = told(await engine.diffs.between(TEMPLATE, Point(sandbox=sandbox.id)))
    assert len([path for path in found if path.startswith("/big/")]) == 6000
    assert {path for path, how in found.items() if how == ("removed",)} == {f"{directory}/{name}" for name in names}
    assert len(names) > 30


async def test_directories_of_the_template_are_renamed_and_replaced(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    inside = (await run(sandbox, "find /usr/share/git-core -mindepth 1 -printf '%P\\n'")).split()
    await run(sandbox, "mv /usr/share/git-core /root/moved; mv /etc/apt /etc/apt.old; touch /etc/apt")
    await run(sandbox, "mv /usr/share/perl5 /usr/share/perl6 2>/dev/null; mv /usr/share/perl6 /usr/share/perl5; true")
    found = told(await engine.diffs.between(TEMPLATE, Point(sandbox=sandbox.id)))
    assert found.pop("/usr/share/git-core") == ("removed",)
    assert {path for path in found if path.startswith("/root/moved")} == {
        "/root/moved",
        *(f"/root/moved/{name}" for name in inside),
    }
    assert found.pop("/etc/apt") == ("changed", "kind")
    assert found["/etc/apt.old"] == ("added",)
    assert set(found.values()) == {("added",)} and not [path for path in found if "/perl5" in path]
    back = told(await engine.diffs.between(Point(sandbox=sandbox.id), TEMPLATE))
    assert {path for path in back if path.startswith("/usr/share/git-core/")} == set(), "a directory is one entry"
    assert back["/usr/share/git-core"] == ("added",)


async def test_the_names_of_a_machine_are_no_changes(engine: Engine) -> None:
    one, other = [await engine.sandboxes.create(spec(), "base") for _ in range(2)]
    between = Point(sandbox=one.id), Point(sandbox=other.id)
    assert await engine.diffs.between(*between) == []
    await run(one, "echo '10.0.0.1 db' >> /etc/hosts")
    (change,) = await engine.diffs.between(*between, patches=True)
    assert told([change]) == {"/etc/hosts": ("changed", "content")}
    assert change.patch is not None and "-10.0.0.1 db" in change.patch and "127.0.1.1" not in change.patch
    await run(other, "echo '10.0.0.1 db' >> /etc/hosts")
    assert await engine.diffs.between(*between) == []


async def test_children_of_one_fork_compared(engine: Engine) -> None:
    """The same inode number and size on both sides, written at nearly the same time: only the contents tell."""
    parent = await engine.sandboxes.create(spec(), "base")
    await run(parent, "echo shared > /root/shared; sync")
    forked = await engine.copies.fork(parent.id, [spec(), spec()])
    one, other = (engine.registry.reach(child.spec.sandbox) for child in forked.children)

    async def write(sandbox: object, text: str) -> None:
        await run(sandbox, f"echo {text} > /root/file; echo both > /root/both")  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, one, "left!")
        tasks.start_soon(write, other, "right")
    found = await engine.diffs.between(Point(sandbox=one.id), Point(sandbox=other.id))
    assert told(found) == {"/root/file": ("changed", "content")}


async def test_contents_are_compared_within_a_budget(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    write = "head -c 3000000 /dev/zero > /root/same; head -c 3000000 /dev/zero > /root/other; {}"
    await run(sandbox, write.format("true"))
    taken = await snapshot(engine, sandbox.id)
    await run(sandbox, write.format("printf x | dd of=/root/other bs=1 seek=2999999 conv=notrunc status=none"))
    now = Point(sandbox=sandbox.id)
    assert told(await engine.diffs.between(taken, now)) == {"/root/other": ("changed", "content")}
    unread = await engine.diffs.between(taken, now, budget=Budget(content_bytes=1_000_000))
    assert [(each.difference.path, each.unread) for each in unread] == [(b"/root/other", True), (b"/root/same", True)]


async def test_what_runs_in_a_snapshot_does_not_go_on_in_the_machine_that_is_looked_at(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    writer = "setsid sh -c 'while :; do sleep 0.5; date +%s%N > /root/ticks; done' </dev/null >/dev/null 2>&1 &"
    await run(sandbox, writer)
    taken = await snapshot(engine, sandbox.id)
    origin = engine.saved.get(str(taken.snapshot))
    async with engine.restorer.temporary(origin) as (looked_at,):
        before = await looked_at.channel.changes(30)
        await anyio.sleep(1.2)  # twice the time after which it would have written
        assert await looked_at.channel.changes(30) == before


async def test_machines_that_are_looked_at_are_in_no_list_and_end(lone: Engine) -> None:
    engine = lone
    sandbox = await engine.sandboxes.create(spec(), "base")
    one = await snapshot(engine, sandbox.id)
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(len(engine.registry.list()))
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await engine.diffs.between(one, Point(sandbox=sandbox.id))
        tasks.cancel_scope.cancel()
    assert set(seen) == {1}
    with anyio.move_on_after(0.05):
        await engine.diffs.between(one, TEMPLATE)  # its caller leaves in the middle
    with pytest.raises(NotFoundError):
        await engine.diffs.between(one, Point(snapshot=str(uuid.uuid4())))
    await engine.sandboxes.delete(sandbox.id)
    assert list(engine.pool.machines.iterdir()) == []


async def test_states_of_different_templates_are_refused_before_anything_is_done(lone: Engine) -> None:
    engine = lone
    sandbox = await engine.sandboxes.create(spec(), "base")
    point = await snapshot(engine, sandbox.id)
    image = engine.saved.path(str(point.snapshot)) / "base.img"
    image.unlink()
    image.write_bytes(b"another")
    before = set(engine.pool.machines.iterdir())
    with pytest.raises(BadRequestError, match="different builds"):
        await engine.diffs.between(point, Point(sandbox=sandbox.id))
    assert set(engine.pool.machines.iterdir()) == before
