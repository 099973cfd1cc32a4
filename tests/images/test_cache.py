import multiprocessing
import stat
from pathlib import Path

import anyio
import pytest

from pandastack.images.cache import Cache, content_key

KEY = content_key("anything")


async def make(cache: Cache, made: list[int], number: int, seconds: float = 0.0) -> None:
    async with cache.entry("kind", KEY) as entry:
        if not entry.ready:
            (entry.work / "file").write_text(str(number))
            await anyio.sleep(seconds)
            made.append(number)
            entry.commit()
    assert (entry.path / "file").exists()


async def test_many_tasks_make_it_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), list[int]()
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(make, cache, made, number, 0.01)
    assert len(made) == 1
    assert cache.find("kind", KEY) == tmp_path / "kind" / KEY


def _in_process(root: Path, number: int, results: "multiprocessing.Queue[list[int]]") -> None:
    made: list[int] = []
    anyio.run(make, Cache(root), made, number, 0.05)
    results.put(made)


def test_many_processes_make_it_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    results = spawn.Queue()
    workers = [spawn.Process(target=_in_process, args=(tmp_path, number, results)) for number in range(4)]
    for worker in workers:
        worker.start()
    made = [number for _ in workers for number in results.get(timeout=30)]
    for worker in workers:
        worker.join(30)
    assert len(made) == 1


async def test_without_a_commit_nothing_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        async with cache.entry("kind", KEY) as entry:
            (entry.work / "half").write_text("x")
            raise RuntimeError("broken")
    assert cache.find("kind", KEY) is None
    assert not entry.work.exists()
    async with cache.entry("kind", KEY) as entry:
        assert not entry.ready
        assert list(entry.work.iterdir()) == []


async def test_what_a_killed_process_left_is_not_taken_over(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    left = tmp_path / "kind" / f".{KEY}.making"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    async with cache.entry("kind", KEY) as entry:
        assert not entry.ready
        assert list(entry.work.iterdir()) == []


async def test_a_cancelled_waiter_does_not_keep_the_lock(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), list[int]()
    async with cache.entry("kind", KEY):
        with anyio.move_on_after(0.05) as waiting:
            await make(cache, made, 1)
        assert waiting.cancelled_caught
    with anyio.fail_after(10):
        await make(cache, made, 2)
    assert made == [2]


async def test_only_its_owner_can_look_or_lock(tmp_path: Path) -> None:
    """A stranger who could open a lock could hold it, and stop every build."""
    old = tmp_path / "kind" / f".{KEY}.lock"
    old.parent.mkdir()
    old.touch(0o644)
    await make(Cache(tmp_path), list[int](), 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in old.parent.iterdir()}
    assert modes == {old.name: 0o600, KEY: 0o700}


async def test_forget(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), list[int]()
    await cache.forget("kind", KEY)
    await make(cache, made, 1)
    await cache.forget("kind", KEY)
    assert cache.find("kind", KEY) is None
    await make(cache, made, 2)
    assert made == [1, 2]


def test_keys_depend_on_every_part() -> None:
    keys = {
        content_key("a", {"x": 1, "y": 2}),
        content_key("a", {"x": 1}),
        content_key("a"),
        content_key(["a"], {}),
    }
    assert len(keys) == 4
    assert content_key({"x": 1, "y": 2}) == content_key({"y": 2, "x": 1})


async def test_who_has_to_wait_is_told(tmp_path: Path) -> None:
    cache, made, told = Cache(tmp_path), list[int](), list[str]()

    async def waiting() -> None:
        async with cache.entry("kind", KEY, lambda: told.append("waits")) as entry:
            assert entry.ready

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make, cache, made, 1, 0.05)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(waiting)
    assert told == ["waits"]


async def test_who_does_not_want_to_wait_need_not(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def refuse() -> None:
        raise TimeoutError

    async with cache.entry("kind", KEY):
        with pytest.raises(TimeoutError):
            async with cache.entry("kind", KEY, refuse):
                raise AssertionError("two have the right to make it")
    async with cache.entry("kind", KEY, refuse) as entry:
        assert not entry.ready


async def test_a_wait_that_is_cancelled_leaves_the_lock_free(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    async with cache.entry("kind", KEY):
        with anyio.move_on_after(0.05) as scope:
            async with cache.entry("kind", KEY):
                raise AssertionError("two have the right to make it")
        assert scope.cancelled_caught
    with anyio.fail_after(10):
        async with cache.entry("kind", KEY) as entry:
            assert not entry.ready


async def test_what_is_held_or_being_made_is_not_dropped(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), list[int]()
    async with cache.entry("kind", KEY):
        assert not cache.drop("kind", "other") or not (tmp_path / "kind/other").exists()
    await make(cache, made, 1)
    path = tmp_path / "kind" / KEY
    with cache.holding(path), Cache(tmp_path).holding(path):
        assert not cache.drop("kind", KEY) and (path / "file").exists()
    assert cache.drop("kind", KEY)
    assert [each.name for each in (tmp_path / "kind").iterdir() if each.is_dir()] == []


async def test_only_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    left = tmp_path / "kind/.left.making"
    (left / "sub").mkdir(parents=True)
    left.with_suffix(".lock").touch()
    async with cache.entry("kind", KEY) as entry:
        cache.sweep()
        assert entry.work.is_dir() and not left.exists()
