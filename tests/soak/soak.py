"""Random operations on random sandboxes, with a server that is killed in the middle of them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from random import Random

import httpx

from tests.soak.driver import Driver, Made
from tests.soak.model import FAILED, PAUSED, RUNNING, Box, Content, Operation, World, after, choose, outcomes
from tests.support.installation import Installation, eventually

MOST_CHECKPOINTS = 3
SETTINGS = {
    "PANDASTACK_READY_MACHINES": "1",
    "PANDASTACK_IDLE_AFTER": "0",
    "PANDASTACK_MAX_CHECKPOINTS": str(MOST_CHECKPOINTS),
}
_KILLS = 0.2
"""Share of the rounds in which the server is killed."""
_REBOOTS = 0.15
"""Share of those in which every machine is killed too."""
_LONGEST_DELAY = 0.25
"""Seconds from the beginning of a round to the server's death."""
_AT_ONCE = 3


class Soak:
    """One run. The model is changed only between rounds, when nothing is under way."""

    def __init__(self, place: Installation, seed: int, say: Callable[[str], None]) -> None:
        self._place = place
        self._random = Random(seed)
        self._say = say
        self._world = World()
        self._stack = ExitStack()
        self._driver: Driver
        self._history: deque[str] = deque(maxlen=60)
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()

    def __enter__(self) -> Soak:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, operations: int) -> None:
        """About so many operations, then every sandbox is looked at and deleted."""
        try:
            done = 0
            while done < operations:
                done += self._round()
                if done // 25 > (done - _AT_ONCE) // 25:
                    self._progress(done)
            self._look_at_everything()
            self._progress(done)
            self._delete_everything()
        except BaseException as error:
            error.add_note("what happened before:\n  " + "\n  ".join(self._history))
            error.add_note("the server's log:\n" + (self._place.home / "server.log").read_text()[-4000:])
            raise

    def summary(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items()))
        return f"{time.monotonic() - self._began:.0f} s: {counts}"

    def _round(self) -> int:
        chosen = self._choose()
        contents = {each: self._content_of(each) for each in chosen}
        kill = self._random.random() < _KILLS
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = {each: pool.submit(self._driver.perform, each, contents[each]) for each in chosen}
            if kill:
                wait(list(running.values()), self._random.random() * _LONGEST_DELAY)
                self._driver.server.kill()
        interrupted = [each for each in chosen if not self._settled(each, contents[each], running[each], kill)]
        if kill:
            self._restart(interrupted, contents)
        return len(chosen)

    def _choose(self) -> list[Operation]:
        chosen: list[Operation] = []
        busy: set[str] = set()
        for _ in range(self._random.randint(1, _AT_ONCE)):
            if operation := choose(self._random, self._world, busy):
                if operation.name == "create":
                    operation = replace(operation, argument=uuid.UUID(int=self._random.getrandbits(128)).hex[:12])
                chosen.append(operation)
                busy |= {operation.target or f"new {len(chosen)}"}
        return chosen

    def _content_of(self, operation: Operation) -> Content:
        if operation.name == "create":
            return Content(operation.argument)
        box = self._world.boxes.get(operation.target)
        return box.content if box else self._world.snapshots[operation.target]

    def _settled(self, operation: Operation, content: Content, future: Future[Made], killed: bool) -> bool:
        """Enter what an operation did into the model; False: it is not known whether it did it."""
        try:
            made = future.result()
        except (httpx.TransportError, AssertionError) as error:
            if not killed or (isinstance(error, AssertionError) and "50" not in str(error)):
                error.add_note(f"operation: {operation}")
                raise
            self._note(f"{operation}: interrupted")
            return False
        self._note(f"{operation} -> {made.id[:8] or 'done'}")
        self._counts[operation.name] += 1
        self._enter(operation, content, made)
        return True

    def _enter(self, operation: Operation, content: Content, made: Made) -> None:
        boxes, snapshots = self._world.boxes, self._world.snapshots
        if operation.name == "delete_snapshot":
            del snapshots[operation.target]
        elif operation.target in boxes:
            self._put(operation.target, after(boxes[operation.target], operation))
        if operation.name == "snapshot":
            snapshots[made.id] = content
        elif operation.name == "checkpoint":
            self._add_checkpoint(operation.target, made.id, content)
        elif made.id:
            boxes[made.id] = Box(made.id, RUNNING, content)

    def _put(self, sandbox_id: str, box: Box | None) -> None:
        if box is None:
            del self._world.boxes[sandbox_id]
        else:
            self._world.boxes[sandbox_id] = box

    def _add_checkpoint(self, sandbox_id: str, checkpoint: str, content: Content) -> None:
        box = self._world.boxes[sandbox_id]
        kept = (*box.checkpoints, (checkpoint, content))[-MOST_CHECKPOINTS:]
        self._world.boxes[sandbox_id] = replace(box, checkpoints=kept)

    def _start(self) -> None:
        self._driver = Driver(self._stack.enter_context(self._place.serving()))
        self._stack.enter_context(self._driver.http)

    def _restart(self, interrupted: list[Operation], contents: dict[Operation, Content]) -> None:
        self._stack.close()
        reboot = self._random.random() < _REBOOTS
        self._counts["reboots" if reboot else "kills"] += 1
        self._note(f"--- {'reboot' if reboot else 'kill'}; under way: {', '.join(map(str, interrupted)) or 'nothing'}")
        if reboot:
            self._kill_machines()
        self._start()
        self._compare(interrupted, contents, reboot)

    def _kill_machines(self) -> None:
        for pid in self._place.machines():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self._place.machines(), 60, "every machine is gone")

    def _compare(self, interrupted: list[Operation], contents: dict[Operation, Content], reboot: bool) -> None:
        """Everything is as it was, but for what was under way: that has happened or not."""
        found = self._driver.statuses()
        under_way = {each.target: each for each in interrupted}
        for box in list(self._world.boxes.values()):
            operation = under_way.get(box.id)
            allowed = outcomes(box, operation) if operation else [box]
            if reboot:
                allowed = [each and _rebooted(each) for each in allowed]
            self._put(box.id, self._actual(box.id, found.get(box.id), allowed, operation))
        self._find_checkpoints(interrupted, contents)
        self._find_snapshots(interrupted, contents)
        self._find_new(found, interrupted, contents)
        for box in [each for each in self._world.boxes.values() if each.status == FAILED and not each.checkpoints]:
            self._driver.perform(Operation("delete", box.id), box.content)
            del self._world.boxes[box.id]

    def _actual(
        self, sandbox_id: str, status: str | None, allowed: list[Box | None], operation: Operation | None
    ) -> Box | None:
        alike = [each for each in allowed if (each.status if each else None) == status]
        what = f"sandbox {sandbox_id[:8]} is {status} after {operation or 'nothing'}, allowed: {allowed}"
        assert alike, what
        if status != RUNNING:
            return alike[0]
        seen = self._driver.look(sandbox_id)
        same = [each for each in alike if each and each.content == seen]
        assert same, f"{what}, and has {seen}"
        return same[0]

    def _find_checkpoints(self, interrupted: list[Operation], contents: dict[Operation, Content]) -> None:
        taking = {each.target: contents[each] for each in interrupted if each.name == "checkpoint"}
        for box in list(self._world.boxes.values()):
            found, known = self._driver.checkpoints(box.id), dict(box.checkpoints)
            for each in [each for each in found if each not in known]:
                assert box.id in taking, f"nobody took checkpoint {each} of {box}"
                self._add_checkpoint(box.id, each, taking[box.id])
            expected = [each for each, _ in self._world.boxes[box.id].checkpoints]
            assert found[-MOST_CHECKPOINTS:] == expected, f"{found} instead of {expected}"

    def _find_snapshots(self, interrupted: list[Operation], contents: dict[Operation, Content]) -> None:
        found, known = self._driver.snapshots(), self._world.snapshots
        taking = [contents[each] for each in interrupted if each.name == "snapshot"]
        deleting = {each.target for each in interrupted if each.name == "delete_snapshot"}
        assert known.keys() - found <= deleting, "snapshots are gone"
        assert len(found - known.keys()) <= len(taking), "snapshots appeared"
        for each in known.keys() - found:
            del known[each]
        for each, content in zip(found - known.keys(), taking, strict=False):
            if len(taking) == 1:
                known[each] = content
            else:  # which of them it is cannot be told
                self._driver.http.delete(f"/snapshots/{each}")

    def _find_new(
        self, found: dict[str, str], interrupted: list[Operation], contents: dict[Operation, Content]
    ) -> None:
        """Sandboxes whose maker was not told of them: what they have is right, and they go."""
        making = [each for each in interrupted if each.name in ("create", "create_from", "fork")]
        new = [each for each in found if each not in self._world.boxes]
        known_before = {each.target for each in interrupted}
        new = [each for each in new if each not in known_before]
        assert len(new) <= len(making), f"{len(new)} sandboxes that nobody made"
        for each in new:
            self._note(f"{each[:8]} is there although its maker was not told")
            if found[each] == RUNNING and all(one.name != "create" for one in making):
                assert self._driver.look(each) in [contents[one] for one in making]
            self._driver.perform(Operation("delete", each), Content(""))

    def _look_at_everything(self) -> None:
        for box in list(self._world.boxes.values()):
            if box.status == FAILED and not box.checkpoints:
                continue
            wake = Operation("wake", box.id)
            self._driver.perform(wake, box.content)
            self._put(box.id, after(box, wake))
            self._driver.perform(Operation("check", box.id), self._world.boxes[box.id].content)
        for each, content in self._world.snapshots.items():
            made = self._driver.perform(Operation("create_from", each), content)
            self._driver.perform(Operation("check", made.id), content)
            self._driver.perform(Operation("delete", made.id), content)

    def _delete_everything(self) -> None:
        for each in self._world.snapshots:
            self._driver.perform(Operation("delete_snapshot", each), Content(""))
        for each in self._world.boxes:
            self._driver.perform(Operation("delete", each), Content(""))
        assert (self._driver.statuses(), self._driver.snapshots()) == ({}, set())

    def _progress(self, done: int) -> None:
        statuses = Counter(box.status for box in self._world.boxes.values())
        self._say(f"{done:4} operations, {time.monotonic() - self._began:4.0f} s, {dict(statuses)}")

    def _note(self, text: str) -> None:
        self._history.append(f"{time.monotonic() - self._began:6.2f} {text}")


def _rebooted(box: Box) -> Box:
    return replace(box, status=FAILED) if box.status in (RUNNING, PAUSED) else box
