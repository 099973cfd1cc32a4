"""Which names a slot was told belong to an address: the only name of a connection whose protocol states none."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable

ADDRESSES, NAMES = 4096, 8
"""The most addresses of a slot, and names of an address, that are remembered; the oldest are forgotten first."""

FLOOR = 600.0
"""Seconds that an answer is remembered at least: programs keep addresses for longer than their time to live."""


class AnsweredNames:
    def __init__(self) -> None:
        self._names: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()

    def add(self, name: str, addresses: Iterable[str], ttl: float) -> None:
        until = time.monotonic() + max(ttl, FLOOR)
        for address in addresses:
            names = self._names.setdefault(address, OrderedDict())
            names[name] = until
            names.move_to_end(name)
            self._names.move_to_end(address)
            if len(names) > NAMES:
                names.popitem(last=False)
            if len(self._names) > ADDRESSES:
                self._names.popitem(last=False)

    def of(self, address: str) -> list[str]:
        """The names of the address, the latest answer first."""
        now = time.monotonic()
        return [name for name, until in reversed(self._names.get(address, {}).items()) if until > now]
