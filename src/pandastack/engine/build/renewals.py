"""Builds without the cache: their steps get new keys, and later builds find those steps in place of the older ones.

The same instructions, carried out twice, make different files. A layer is an overlay on one disk, and a snapshot is of
one, so whatever is made anew needs a key of its own: the key of a stage's first step gets a number that is drawn for
the build, and the keys of all that follows contain it. Nothing that exists is replaced.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from pandastack.images.cache import Cache, content_key

_KIND = "renewed"
_NUMBER = "number"


class Renewals:
    """The keys of the first steps of stages, in one build. With ``anew`` each is new; else it is that of the newest
    build without the cache that succeeded, if there was one."""

    def __init__(self, cache: Cache, *, anew: bool = False) -> None:
        self._cache = cache
        self._number = uuid.uuid4().hex if anew else ""
        self._renewed: set[str] = set()

    def key(self, key: str) -> str:
        """The key to use for a step whose instruction and parent determine ``key``."""
        if self._number:
            self._renewed.add(key)
        number = self._number or _number_in(self._cache.find(_KIND, key))
        return content_key(_KIND, key, number) if number else key

    def older(self) -> Renewals:
        """The same for what this build builds on, which it takes from the cache."""
        return Renewals(self._cache)

    async def record(self) -> None:
        """Have later builds find what this one has made."""
        for key in sorted(self._renewed):
            await self._cache.forget(_KIND, key)
            async with self._cache.entry(_KIND, key) as entry:
                if not entry.ready:
                    (entry.work / _NUMBER).write_text(self._number)
                    entry.commit()


def _number_in(entry: Path | None) -> str:
    try:
        return (entry / _NUMBER).read_text() if entry else ""
    except FileNotFoundError:  # pruned just now
        return ""
