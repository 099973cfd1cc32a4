"""A guest that is played by the test: it writes frames to the tap device of a slot, as a VMM would."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from pandastack.network.pool import SlotPool
from pandastack.network.slot import NetworkSlot
from pandastack.network.subnets import parse_subnets
from tests.support.frames import Heard, parse

SUBNETS = parse_subnets("10.231.0.0/20", "x")
MTU = 1400


class PlayedGuest:
    """The guest of a slot."""

    def __init__(self, slot: NetworkSlot) -> None:
        assert slot.tap is not None
        self._tap = slot.tap

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            os.write(self._tap, frame)

    def hear(self, wanted: Callable[[Heard], bool] = lambda heard: True, seconds: float = 2.0) -> Heard | None:
        """The next packet that is ``wanted``."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if select.select([self._tap], [], [], left)[0]:
                heard = parse(os.read(self._tap, 65536))
                if heard is not None and wanted(heard):
                    return heard
        return None


OpenPool = Callable[..., AbstractAsyncContextManager[SlotPool]]
