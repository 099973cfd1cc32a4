"""What must be true of every sandbox: a model beside the real thing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

RUNNING, PAUSED, HIBERNATED, FAILED = "running", "paused", "hibernated", "failed"


@dataclass(frozen=True)
class Content:
    """What a sandbox holds: a number on its disk, and one in the memory of a process that has a ``cookie``."""

    cookie: str
    disk: int = 0
    memory: int = 0

    def bumped(self) -> Content:
        return replace(self, disk=self.disk + 1, memory=self.memory + 1)


@dataclass(frozen=True)
class Box:
    """A sandbox. ``checkpoints`` are pairs of id and content, oldest first."""

    id: str
    status: str
    content: Content
    checkpoints: tuple[tuple[str, Content], ...] = ()


@dataclass
class World:
    boxes: dict[str, Box] = field(default_factory=dict)
    snapshots: dict[str, Content] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """``target`` is a sandbox or, for some, a snapshot; ``argument`` a checkpoint, or the cookie of a new sandbox."""

    name: str
    target: str = ""
    argument: str = ""

    def __str__(self) -> str:
        return " ".join([self.name, *(each[:8] for each in (self.target, self.argument) if each)])


MOST_BOXES, MOST_SNAPSHOTS = 12, 5

_WEIGHTS = {
    "create": 3,
    "bump": 9,
    "check": 3,
    "pause": 2,
    "resume": 2,
    "hibernate": 4,
    "wake": 3,
    "snapshot": 2,
    "create_from": 2,
    "fork": 3,
    "checkpoint": 3,
    "rewind": 2,
    "delete": 2,
    "delete_snapshot": 1,
    "kill_machine": 1,
}


def possible(world: World, busy: set[str]) -> Iterator[Operation]:
    """Every operation that makes sense now and touches nothing in ``busy``."""
    room = len(world.boxes) + len(busy) < MOST_BOXES
    if room:
        yield Operation("create")
        yield from (Operation("create_from", each) for each in world.snapshots if each not in busy)
    yield from (Operation("delete_snapshot", each) for each in world.snapshots if each not in busy)
    for box in world.boxes.values():
        if box.id not in busy:
            yield from _of(box, room, len(world.snapshots) < MOST_SNAPSHOTS)


def _of(box: Box, room: bool, room_for_snapshot: bool) -> Iterator[Operation]:
    yield Operation("delete", box.id)
    yield from (Operation("rewind", box.id, each) for each, _ in box.checkpoints)
    if box.status == FAILED:
        if box.checkpoints:
            yield Operation("wake", box.id)
        return
    yield from (Operation(name, box.id) for name in ("hibernate", "wake"))
    if box.status == PAUSED:
        yield Operation("resume", box.id)
        return
    yield from (Operation(name, box.id) for name in ("bump", "check", "checkpoint"))
    if room_for_snapshot:
        yield Operation("snapshot", box.id)
    if room:
        yield Operation("fork", box.id)
    if box.status == RUNNING:
        yield from (Operation(name, box.id) for name in ("pause", "kill_machine"))


def choose(random: Random, world: World, busy: set[str]) -> Operation | None:
    """One of the possible operations, the kind by its weight."""
    kinds: dict[str, list[Operation]] = {}
    for each in possible(world, busy):
        kinds.setdefault(each.name, []).append(each)
    if not kinds:
        return None
    (name,) = random.choices(list(kinds), [_WEIGHTS[each] for each in kinds])
    return random.choice(kinds[name])


def after(box: Box, operation: Operation) -> Box | None:
    """The box when the operation has happened to it; None: it is gone. What the operation made is not part of this."""
    awake = replace(box, status=RUNNING)
    match operation.name:
        case "delete":
            return None
        case "pause":
            return replace(box, status=PAUSED)
        case "hibernate":
            return replace(box, status=HIBERNATED)
        case "kill_machine":
            return replace(box, status=FAILED)
        case "bump":
            return replace(awake, content=box.content.bumped())
        case "rewind":
            return replace(awake, content=dict(box.checkpoints)[operation.argument])
        case "wake" if box.status == FAILED:
            return replace(awake, content=box.checkpoints[-1][1])
        case _:
            return awake


def outcomes(box: Box, operation: Operation) -> list[Box | None]:
    """Everything that may be found when the server was killed while the operation was under way."""
    done = after(box, operation)
    found = [box, done]
    if box.status == HIBERNATED and done is not None:  # woken for the operation, which then did not happen
        found.append(replace(box, status=RUNNING))
    if operation.name == "bump":  # two writes of one command: the server's end cuts the command off anywhere
        awake = replace(box, status=RUNNING)
        found += [replace(awake, content=replace(box.content, memory=box.content.memory + 1))]
    return found
