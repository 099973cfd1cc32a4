"""What differs between the files of two guests, or of one guest at two times.

Guests list what they have changed since their template. The host compares the lists (``listing.py``) and reads the
files that the lists cannot decide. For this a snapshot is restored into a temporary machine in which only the agent
runs. Everything is bounded: entries, bytes, time.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import anyio

from pandastack.engine.compare.contents import PATCH_FILE_BYTES, patch, same_files
from pandastack.engine.compare.listing import Difference, differences
from pandastack.engine.compare.names import has_name, without_name
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.registry import Registry
from pandastack.errors import BadRequestError, PandastackError
from pandastack.guest import Channel, Listing, Node
from pandastack.host.tasks import together

LIST_SECONDS = 30.0
CONTENT_SECONDS = 15.0
CONTENT_BYTES = 64 * 1024 * 1024
"""How many bytes of each side are read to compare contents; the remaining files are reported as unread."""

PATCH_SECONDS = 5.0
PATCH_BYTES = 1024 * 1024
CHANGES_MAX = 10_000
AT_ONCE = 2


@dataclass(frozen=True)
class Point:
    """A state of a guest: of a running sandbox, a snapshot, or a template that ``owner`` may use; exactly one of the
    three is not None."""

    sandbox: str | None = None
    snapshot: str | None = None
    template: str | None = None
    owner: str = ""


@dataclass(frozen=True)
class Change:
    """A difference. With ``unread`` the two may still be equal, because their contents were not compared."""

    difference: Difference
    unread: bool = False
    patch: str | None = None


@dataclass
class Budget:
    """The bytes and time that one comparison may still spend on contents."""

    content_bytes: int = CONTENT_BYTES
    content_end: float = field(default_factory=lambda: time.monotonic() + CONTENT_SECONDS)
    patch_bytes: int = PATCH_BYTES
    patch_seconds: float = PATCH_SECONDS


class Diffs:
    """Comparisons. Only a few run at once, because each may take two machines."""

    def __init__(
        self, registry: Registry, admission: Admission, restorer: Restorer, templates: Templates, saved: CaptureStore
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._restorer = restorer
        self._templates = templates
        self._saved = saved
        self._places = anyio.CapacityLimiter(AT_ONCE)

    async def between(
        self, before: Point, after: Point, *, patches: bool = False, budget: Budget | None = None
    ) -> list[Change]:
        """What differs, by path. Raises :class:`BadRequestError` for states of different templates (before anything is
        done) and for guests that have changed too much to list."""
        async with self._places, self._reached(before, after) as (one, other):
            listings = await together(
                partial(one.channel.changes, LIST_SECONDS), partial(other.channel.changes, LIST_SECONDS)
            )
            return await _settled(one.channel, other.channel, *listings, patches=patches, budget=budget or Budget())

    @asynccontextmanager
    async def _reached(self, *points: Point) -> AsyncIterator[list[Sandbox]]:
        """Running guests in the states ``points``, in that order."""
        found = [self._registry.reach(point.sandbox) if point.sandbox else self._origin(point) for point in points]
        _check_kinship([each.origin if isinstance(each, Sandbox) else each for each in found])
        wanted = [each for each in found if isinstance(each, Origin)]
        with self._admission.admitted(*wanted):
            async with self._restorer.temporary(*wanted) as made:
                crash_at("looking")
                waiting = iter(made)
                yield [each if isinstance(each, Sandbox) else next(waiting) for each in found]

    def _origin(self, point: Point) -> Origin:
        if point.snapshot is not None:
            return self._saved.get(point.snapshot)
        assert point.template is not None
        return self._templates.get(point.template, point.owner)


def _check_kinship(origins: list[Origin]) -> None:
    """Raise unless all ``points`` descend from the same image: only then can their lists be compared."""
    first = origins[0]
    for each in origins[1:]:
        if not first.snapshot.base.samefile(each.snapshot.base):
            raise BadRequestError(
                f"the states are of different templates: {first.name!r} and {each.name!r}"
                if first.name != each.name
                else f"the states are of different builds of the template {first.name!r}",
                field="from",
                hint="only sandboxes and snapshots that were made from the same build of a template can be compared",
            )


async def _settled(
    before: Channel, after: Channel, one: Listing, other: Listing, *, patches: bool, budget: Budget
) -> list[Change]:
    changes: list[Change] = []
    for difference in await anyio.to_thread.run_sync(differences, one, other):
        change = Change(difference)
        if difference.undecided or (has_name(difference.path) and "content" in difference.what):
            decided = await _decided(before, after, difference, budget)
            if decided is None:
                continue
            change = decided
        if patches and len(changes) < CHANGES_MAX:
            change = replace(change, patch=await _patch(before, after, change.difference, budget))
        changes.append(change)
    return changes


async def _decided(before: Channel, after: Channel, difference: Difference, budget: Budget) -> Change | None:
    """The change between two files whose sizes do not tell it; None when they are equal."""
    assert difference.after is not None
    if has_name(difference.path):
        return await _decided_but_for_names(before, after, difference)
    size, path = difference.after.size, os.fsdecode(difference.path)
    left = budget.content_end - time.monotonic()
    equal: bool | None = None
    if size <= budget.content_bytes and left > 0:
        budget.content_bytes -= size
        with anyio.move_on_after(left):
            equal = await _equal(before, after, path, size)
    if equal and not difference.what:
        return None
    what = difference.what if equal else ("content", *difference.what)
    return Change(replace(difference, what=what, undecided=False), unread=equal is None)


async def _decided_but_for_names(before: Channel, after: Channel, difference: Difference) -> Change | None:
    """The change between two files that the agents write names to; None when nothing else in them differs."""
    what = tuple(each for each in difference.what if each != "content")
    texts = await _texts(before, after, difference)
    if texts is None or texts[0] != texts[1]:
        what = ("content", *what)
    return Change(replace(difference, what=what, undecided=False), unread=texts is None) if what else None


async def _equal(before: Channel, after: Channel, path: str, size: int) -> bool | None:
    """Whether a file is the same in both guests; None when one of them cannot read it."""
    try:
        return await same_files(before.read_file(path, length=size), after.read_file(path, length=size))
    except PandastackError:
        before.check()
        after.check()
        return None


async def _patch(before: Channel, after: Channel, difference: Difference, budget: Budget) -> str | None:
    nodes = [difference.before, difference.after]
    if budget.patch_bytes <= 0 or budget.patch_seconds <= 0 or not all(map(_may_be_text, nodes)):
        return None
    if difference.what and "content" not in difference.what and "kind" not in difference.what:
        return None
    began = time.monotonic()
    texts = await _texts(before, after, difference)
    if texts is None:
        return None
    made = await anyio.to_thread.run_sync(partial(patch, difference.path, *texts))
    budget.patch_seconds -= time.monotonic() - began
    budget.patch_bytes -= len(made or "")
    return made if budget.patch_bytes >= 0 else None


async def _texts(before: Channel, after: Channel, difference: Difference) -> list[bytes | None] | None:
    """The beginnings of both files, without names of machines; None when a guest cannot read its file."""
    try:
        return await together(
            partial(_text, before, difference.path, difference.before),
            partial(_text, after, difference.path, difference.after),
        )
    except PandastackError:
        before.check()
        after.check()
        return None


def _may_be_text(node: Node | None) -> bool:
    return node is None or (node.kind == "-" and node.size <= PATCH_FILE_BYTES)


async def _text(channel: Channel, path: bytes, node: Node | None) -> bytes | None:
    if node is None:
        return None
    pieces = [piece async for piece in channel.read_file(os.fsdecode(path), length=PATCH_FILE_BYTES + 1)]
    return without_name(path, b"".join(pieces))
