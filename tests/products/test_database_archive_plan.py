"""What archives have, and what follows from that: the base of a restore, what may be deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.products.databases.archive import plan
from pandastack.products.databases.archive.place import place_of
from pandastack.products.databases.archive.plan import Base, Epoch, Retention, Window
from pandastack.products.databases.archive.wal import (
    SEGMENT,
    position_of,
    seconds_of,
    segment_name,
    segment_position,
    segment_start,
    text_of,
)
from pandastack.products.databases.spec import checked_clone
from pandastack.store.databases import DatabaseRecord, DatabaseState

SOURCE = DatabaseRecord("one", "default", "orders", "1g", DatabaseState.READY, 0.0)


def base(number: int, ended_at: float, segment: int) -> Base:
    return Base(number, segment * SEGMENT + 40, segment * SEGMENT + 400, ended_at, 100)


def epoch(number: int, *bases: Base, ended_at: float | None = None, segments: range = range(0)) -> Epoch:
    names = {segment_name(1, each * SEGMENT): 10 for each in segments}
    return Epoch(number, "7", 1, segments.start * SEGMENT, ended_at, bases, names)


FIRST = epoch(1, base(1, 100.0, 2), base(2, 200.0, 5), ended_at=250.0, segments=range(1, 8))
SECOND = epoch(2, base(1, 300.0, 20), base(2, 400.0, 22), segments=range(20, 25))
BOTH = [FIRST, SECOND]


@pytest.mark.parametrize(
    ("moment", "found"),
    [
        (99.9, None),
        (100.0, (FIRST, FIRST.bases[0])),
        (199.9, (FIRST, FIRST.bases[0])),
        (200.0, (FIRST, FIRST.bases[1])),
        (250.0, (FIRST, FIRST.bases[1])),
        (250.1, None),
        (299.9, None),
        (300.0, (SECOND, SECOND.bases[0])),
        (500.0, (SECOND, SECOND.bases[1])),
        (500.1, None),
    ],
)
def test_a_restore_begins_with_the_newest_base_that_had_ended(moment: float, found: object) -> None:
    assert plan.find_base(BOTH, moment, 500.0) == found


def test_a_window_for_each_epoch_that_has_a_base() -> None:
    assert plan.windows([*BOTH, epoch(3)], 500.0) == [Window(100.0, 250.0), Window(300.0, 500.0)]
    assert plan.windows([SECOND], 0.0) == [Window(300.0, 400.0)]
    window = Window(1.2, 3.8)
    assert (window.earliest_text, window.latest_text) == ("1970-01-01T00:00:02Z", "1970-01-01T00:00:03Z")


def test_what_no_restore_needs_goes() -> None:
    assert plan.plan_retention(BOTH, 50.0).bases == ()
    assert [name for _, name in plan.plan_retention(BOTH, 50.0).segments] == [segment_name(1, SEGMENT)]
    later = plan.plan_retention(BOTH, 220.0)
    assert (later.epochs, later.bases) == ((), ((1, 1),))
    assert [segment_position(name) // SEGMENT for _, name in later.segments] == [1, 2, 3, 4]
    assert plan.plan_retention(BOTH, 1000.0) == Retention(
        (1,), ((2, 1),), tuple((2, segment_name(1, each * SEGMENT)) for each in (20, 21))
    )


def test_the_last_base_stays_also_in_an_epoch_that_has_ended() -> None:
    ended = [FIRST, epoch(2, segments=range(20, 22))]
    gone = plan.plan_retention(ended, 1000.0)
    assert gone.epochs == () and gone.bases == ((1, 1),)
    assert [each.number for each in plan.without(ended, gone)] == [1, 2]


def test_an_epoch_without_a_base_goes_when_it_has_ended() -> None:
    empty = epoch(3, ended_at=900.0, segments=range(40, 42))
    assert plan.plan_retention([*BOTH, empty], 50.0).epochs == (3,)
    assert plan.plan_retention([empty], 50.0).epochs == (3,)
    assert plan.plan_retention([epoch(1, segments=range(2))], 50.0) == Retention()
    assert (SECOND.backed_up, empty.backed_up) == (22 * SEGMENT + 400, 40 * SEGMENT)


moments = st.floats(0, 1000, allow_nan=False)


@given(st.lists(st.tuples(moments, st.integers(0, 3)), max_size=12), moments, moments)
def test_whatever_goes_each_time_that_is_kept_can_be_restored_as_before(
    made: list[tuple[float, int]], oldest: float, wanted: float
) -> None:
    times = sorted(each for each, _ in made)
    epochs, place = list[Epoch](), 0
    for number in range(4):
        mine = [times[n] for n, (_, chosen) in enumerate(sorted(made)) if chosen == number]
        bases = tuple(base(n + 1, ended, place + n) for n, ended in enumerate(mine))
        if not epochs or not mine or not (epochs[-1].ended_at or 0) > mine[0]:
            epochs = [replace(each, ended_at=each.ended_at or 0.0) for each in epochs]
            end = max(mine, default=0.0)
            epochs.append(epoch(number + 1, *bases, ended_at=end, segments=range(place, place + len(mine) + 1)))
        place += 20
    epochs[-1] = replace(epochs[-1], ended_at=None)
    left = plan.without(epochs, plan.plan_retention(epochs, oldest))
    if wanted >= oldest:
        before, after = plan.find_base(epochs, wanted, 2000.0), plan.find_base(left, wanted, 2000.0)
        assert before and (before[0].number, before[1]) if before else before is None
        if before is not None:
            assert after is not None and (after[0].number, after[1]) == (before[0].number, before[1])
            needed = {name for name in before[0].segments if segment_position(name) >= segment_start(before[1].start)}
            assert needed <= set(after[0].segments)


def test_the_oldest_backups_of_all_make_room_but_the_newest_of_each_stays() -> None:
    archives = {"a": BOTH, "b": [epoch(1, base(1, 150.0, 1), segments=range(1, 30))]}
    assert plan.plan_budget(archives, 10**6) == {}
    total = sum(map(plan.size_of, archives.values()))
    (going,) = plan.plan_budget(archives, total - 1)["a"]
    assert going.bases == ((1, 1),)
    everything = plan.plan_budget(archives, 0)
    assert set(everything) == {"a"}
    left = BOTH
    for each in everything["a"]:
        left = plan.without(left, each)
    assert [base for each in left for base in each.bases] == [SECOND.bases[1]]


def test_what_is_kept_is_read_again() -> None:
    sizes = {f"{each.name}/wal/{name}.gz": 10 for each in BOTH for name in each.segments}
    documents = {f"{each.name}/epoch.json": plan.epoch_to_json(each) for each in BOTH}
    documents |= {f"{e.name}/bases/{b.number:04d}.json": plan.base_to_json(b) for e in BOTH for b in e.bases}
    assert plan.read_epochs(sizes, documents) == BOTH
    broken = {**documents, "0003/epoch.json": b"{", "0001/bases/0009.json": b"[]"}
    assert plan.read_epochs({**sizes, "0001/wal/nonsense.gz": 1}, broken) == BOTH


def test_what_interrupted_work_has_left() -> None:
    names = {f"{each.name}/epoch.json" for each in BOTH}
    names |= {f"{e.name}/bases/{b.number:04d}.{kind}" for e in BOTH for b in e.bases for kind in ("json", "tar.gz")}
    names |= {f"{each.name}/wal/{name}.gz" for each in BOTH for name in each.segments}
    names |= {"archive.json", "drill.json", f"0002/partial/{segment_name(1, 25 * SEGMENT)}.gz"}
    assert plan.find_leftovers(names, BOTH) == []
    left = ["0002/bases/0003.tar.gz", "0003/wal/x.gz", "0001/wal/x.gz", f"0002/partial/{segment_name(1, SEGMENT)}.gz"]
    assert plan.find_leftovers([*names, *left], BOTH) == left


@given(st.integers(0, 2**63))
def test_positions_have_one_name(position: int) -> None:
    assert position_of(text_of(position)) == position
    assert segment_position(segment_name(3, position)) == segment_start(position) <= position


@pytest.mark.parametrize("text", ["", "0", "0/", "G/0", "0/123456789", "0/0\n"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(ValueError):
        position_of(text)


def test_times_of_servers() -> None:
    assert seconds_of(0) == 946684800.0
    assert segment_name(1, 0x1_0000_0000) == "000000010000000100000000"
    with pytest.raises(ValueError):
        segment_position("0000000100000001000001FF")


def test_a_copy_of_another_size_or_time_is_restored() -> None:
    assert not checked_clone(SOURCE, None, "1g", None).restored
    assert checked_clone(SOURCE, None, "4g", None).restored
    wanted = checked_clone(SOURCE, "x", None, "2026-01-31T09:30:00.25+01:00")
    assert (wanted.restored, wanted.size, wanted.target_time) == (True, "1g", 1769848200.25)
    for text in ("2026-01-31 09:30:00Z", "2026-01-31T09:30:00", "2026-02-31T09:30:00Z", "now", ""):
        with pytest.raises(BadRequestError):
            checked_clone(SOURCE, None, None, text)


def test_where_archives_are(tmp_path: Path) -> None:
    beside = f"sqlite+aiosqlite:///{tmp_path}/pandastack.db"
    assert place_of("none", beside)[0] is None is place_of("", "postgresql://x")[0]
    for configured, url, root in (
        ("", beside, tmp_path / "backups"),
        (f"{tmp_path}/b", "postgresql://x", tmp_path / "b"),
    ):
        target, pending = place_of(configured, url)
        assert target is not None and pending == root / ".pending"
        target.put_bytes("a/b", b"c")
        assert (root / "a/b").read_bytes() == b"c"
    with pytest.raises(BadRequestError, match="s3://BUCKET/PREFIX"):
        place_of("s3://", beside)
