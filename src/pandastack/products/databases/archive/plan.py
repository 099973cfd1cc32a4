"""What an archive has, and what follows from that: which base a restore begins with, what may be deleted. Pure.

An archive is a row of *epochs*. In one epoch the log is without a gap; whatever breaks it begins another one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pandastack.products.databases.archive.wal import SEGMENT, is_segment, segment_position, segment_start


@dataclass(frozen=True, slots=True)
class Base:
    """A base backup. A server that begins with it needs the log from ``start`` on, and must reach ``end``; it can be
    any time from ``ended_at`` on, in epoch seconds of the database's clock. ``size`` is in bytes, as it is kept."""

    number: int
    start: int
    end: int
    ended_at: float
    size: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """The log of the cluster ``system`` from ``start`` on. ``ended_at`` None: it is the last one, and goes on.
    ``segments``: the complete files, by name, with their bytes."""

    number: int
    system: str
    timeline: int
    start: int
    ended_at: float | None = None
    bases: tuple[Base, ...] = ()
    segments: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its directory."""
        return f"{self.number:04d}"

    @property
    def next_segment(self) -> int:
        """Where the first file begins that is not complete."""
        return max((segment_position(name) + SEGMENT for name in self.segments), default=self.start)

    @property
    def backed_up(self) -> int:
        """Up to where the newest base has what is in the log."""
        return self.bases[-1].end if self.bases else self.start


@dataclass(frozen=True, slots=True)
class Window:
    """The times that a database can be restored to: every one between both, but for gaps. In epoch seconds."""

    earliest: float
    latest: float

    @property
    def earliest_text(self) -> str:
        """The first whole second."""
        return _text(math.ceil(self.earliest))

    @property
    def latest_text(self) -> str:
        """The last whole second."""
        return _text(math.floor(self.latest))


@dataclass(frozen=True, slots=True)
class Retention:
    """What no restore needs: bases, files of the log, and whole epochs, by their numbers and names."""

    epochs: tuple[int, ...] = ()
    bases: tuple[tuple[int, int], ...] = ()
    segments: tuple[tuple[int, str], ...] = ()


def windows(epochs: Iterable[Epoch], latest: float) -> list[Window]:
    """The times that can be restored, oldest first. ``latest`` is the end of what goes on."""
    found = []
    for each in epochs:
        if each.bases:
            end = latest if each.ended_at is None else each.ended_at
            found.append(Window(each.bases[0].ended_at, max(end, each.bases[-1].ended_at)))
    return found


def find_base(epochs: Sequence[Epoch], moment: float, latest: float) -> tuple[Epoch, Base] | None:
    """The newest base that had ended at ``moment``, if the log goes on from there until then."""
    for epoch in reversed(epochs):
        end = latest if epoch.ended_at is None else epoch.ended_at
        for base in reversed(epoch.bases):
            if base.ended_at <= moment:
                return (epoch, base) if moment <= max(end, base.ended_at) else None
    return None


def plan_retention(epochs: Sequence[Epoch], oldest: float) -> Retention:
    """What is needed for no time from ``oldest`` on. The newest base and its log always stay."""
    last = next((each.number for each in reversed(epochs) if each.bases), None)
    gone, bases, segments = list[int](), list[tuple[int, int]](), list[tuple[int, str]]()
    for epoch in epochs:
        unused = not epoch.bases or (epoch.ended_at or 0.0) < oldest
        if epoch.ended_at is not None and unused and epoch.number != last:
            gone.append(epoch.number)
            continue
        kept = [base for base in epoch.bases if base.ended_at > oldest]
        older = [base for base in epoch.bases if base.ended_at <= oldest]
        kept = [*older[-1:], *kept]
        bases += [(epoch.number, base.number) for base in older[:-1]]
        if kept:
            least = segment_start(kept[0].start)
            segments += [(epoch.number, name) for name in sorted(epoch.segments) if segment_position(name) < least]
    return Retention(tuple(gone), tuple(bases), tuple(segments))


def plan_budget(archives: Mapping[str, Sequence[Epoch]], most: int) -> dict[str, list[Retention]]:
    """What goes, so that all archives together take ``most`` bytes: the oldest bases of all, one by one, with the
    log that only they need. The newest base of each archive always stays."""
    left, gone = {name: list(epochs) for name, epochs in archives.items()}, dict[str, list[Retention]]()
    sizes = {name: size_of(epochs) for name, epochs in left.items()}
    while sum(sizes.values()) > most:
        bases = {name: [base for epoch in epochs for base in epoch.bases] for name, epochs in left.items()}
        several = {name: each for name, each in bases.items() if len(each) > 1}
        if not several:
            break
        name = min(several, key=lambda each: several[each][0].ended_at)
        going = plan_retention(left[name], several[name][1].ended_at)
        if going == Retention():
            break
        gone.setdefault(name, []).append(going)
        left[name] = without(left[name], going)
        sizes[name] = size_of(left[name])
    return gone


def size_of(epochs: Iterable[Epoch]) -> int:
    """The bytes that are kept."""
    return sum(sum(each.segments.values()) + sum(base.size for base in each.bases) for each in epochs)


def without(epochs: Sequence[Epoch], gone: Retention) -> list[Epoch]:
    """The epochs that are left."""
    bases, segments = set(gone.bases), set(gone.segments)
    return [
        replace(
            each,
            bases=tuple(base for base in each.bases if (each.number, base.number) not in bases),
            segments={name: size for name, size in each.segments.items() if (each.number, name) not in segments},
        )
        for each in epochs
        if each.number not in gone.epochs
    ]


def epoch_to_json(epoch: Epoch) -> bytes:
    """What is kept of an epoch, without what it consists of."""
    kept = {name: getattr(epoch, name) for name in ("number", "system", "timeline", "start", "ended_at")}
    return json.dumps(kept).encode()


def base_to_json(base: Base) -> bytes:
    """What is kept of a base."""
    return json.dumps(asdict(base)).encode()


def read_epochs(sizes: Mapping[str, int], documents: Mapping[str, bytes]) -> list[Epoch]:
    """The epochs of an archive, by the names in it, such as ``0001/wal/NAME.gz``, and what is in the ``.json``. What is
    incomplete is left out."""
    found = dict[int, Epoch]()
    for name, content in sorted(documents.items()):
        parts = name.split("/")
        if len(parts) == 2 and parts[1] == "epoch.json" and (values := _values(content)):
            found[int(parts[0])] = Epoch(**values)
    for number, epoch in found.items():
        prefix = f"{epoch.name}/wal/"
        names = {name.removeprefix(prefix)[:24]: size for name, size in sizes.items() if name.startswith(prefix)}
        segments = {name: size for name, size in names.items() if _is_of(epoch, name)}
        bases = [
            Base(**values)
            for name, content in sorted(documents.items())
            if name.startswith(f"{epoch.name}/bases/") and (values := _values(content))
        ]
        found[number] = replace(epoch, bases=tuple(bases), segments=segments)
    return [found[number] for number in sorted(found)]


def find_leftovers(names: Iterable[str], epochs: Iterable[Epoch]) -> list[str]:
    """Of the names in an archive: what belongs to nothing, as a deletion or a base that was interrupted leaves it."""
    known, partial = set[str](), dict[str, int]()
    for each in epochs:
        known |= {f"{each.name}/epoch.json", *(f"{each.name}/wal/{name}.gz" for name in each.segments)}
        known |= {f"{each.name}/bases/{base.number:04d}.{kind}" for base in each.bases for kind in ("json", "tar.gz")}
        partial[f"{each.name}/partial/"] = each.next_segment
    found = []
    for name in names:
        directory, last = name[: name.rfind("/") + 1], name[name.rfind("/") + 1 :].removesuffix(".gz")
        needed = directory in partial and is_segment(last) and segment_position(last) >= partial[directory]
        if directory and name not in known and not needed:
            found.append(name)
    return found


def _is_of(epoch: Epoch, name: str) -> bool:
    try:
        return segment_position(name) >= epoch.start and int(name[:8], 16) == epoch.timeline
    except ValueError:
        return False


def _text(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _values(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
