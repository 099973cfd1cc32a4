"""The events of one build: recorded as they come, read by any number of followers, each from its own position."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import anyio

from pandastack.contract.builds import BuildEvent, LinesDropped, StepAdvanced, StepBegan, StepEnded, StepPrinted

EVENTS_MAX = 10_000
"""How many events of a build are retained, the newest; a build prints a few hundred lines a minute."""

LINE_MAX = 2000
"""How many characters of a line are retained: a recipe decides what it prints, not how much memory that takes."""


class BuildLog:
    """A :class:`~pandastack.engine.build.progress.Progress` that any number of readers can follow."""

    def __init__(self) -> None:
        self._events: deque[BuildEvent] = deque(maxlen=EVENTS_MAX)
        self._count = 0
        self._closed = False
        self._news = anyio.Event()

    def begin(self, title: str) -> None:
        self.add(StepBegan(title[:LINE_MAX]))

    def line(self, text: str) -> None:
        self.add(StepPrinted(text[:LINE_MAX]))

    def advance(self, done: int, total: int) -> None:
        self.add(StepAdvanced(done, total))

    def end(self, title: str, seconds: float, note: str) -> None:
        self.add(StepEnded(title[:LINE_MAX], round(seconds, 3), note))

    def add(self, event: BuildEvent) -> None:
        self._events.append(event)
        self._count += 1
        self._announce()

    def close(self) -> None:
        """No more events will come: followers end."""
        self._closed = True
        self._announce()

    def _announce(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def read(self, *, follow: bool) -> AsyncIterator[BuildEvent]:
        """All retained events; with ``follow``, those to come too, until the log is closed.

        A reader that falls too far behind gets a :class:`LinesDropped` in place of what it missed.
        """
        position = 0
        while True:
            first = self._count - len(self._events)
            if position < first:
                yield LinesDropped(first - position)
                position = first
            elif position < self._count:
                event = self._events[position - first]
                position += 1
                yield event
            elif self._closed or not follow:
                return
            else:
                await self._news.wait()
