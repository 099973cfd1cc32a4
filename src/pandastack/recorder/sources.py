"""Where answers come from: hosts, which are recorded, or the lock and the bodies that it names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from pandastack.recorder.answers import Answer, Budget, fetch, file_sha256
from pandastack.recorder.lock import MOST_ENTRIES, Entry, Lock, lock_of
from pandastack.recorder.outside import Outside
from pandastack.recorder.requests import RECORDED, Pairs, Refused, accept_of
from pandastack.recorder.urls import Url, parse_url

_MOST_REFUSALS = 50
_REFETCHES = 8
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Refusals:
    """Requests that got no answer of a host: the first ones, each once."""

    listed: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, method: str, url: str, reason: str) -> None:
        if len(self.listed) < _MOST_REFUSALS:
            self.listed.setdefault((method, url[:1024]), reason[:1024])


class Spool:
    """New bodies in a directory: each gets its digest for a name once it is whole."""

    def __init__(self, directory: int) -> None:
        self.directory = directory
        self._names = itertools.count()

    def begin(self) -> Answer:
        """An empty answer. Raises :class:`Refused` when it cannot be stored."""
        name = f".{next(self._names)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        try:
            return Answer(os.open(name, flags, 0o644, dir_fd=self.directory), name=name)
        except OSError as error:
            raise Refused(502, f"what is fetched cannot be stored: {error.strerror}") from error

    @contextmanager
    def ending(self, answer: Answer) -> Iterator[None]:
        """Fill the answer in the block. Afterwards its file has its name if it is to be ``kept``, else it is gone."""
        try:
            yield
            if answer.kept:
                os.rename(answer.name, answer.digest, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(answer.name, dir_fd=self.directory)
            answer.release()


class Recording:
    """Fetches each resource once: a program that asks again in the same build gets the same answer.

    A fetch continues when the program that asked for it is gone, so that the lock does not depend on its patience.
    """

    def __init__(self, outside: Outside, spool: Spool, budget: Budget, tasks: TaskGroup) -> None:
        self._outside = outside
        self._spool = spool
        self._budget = budget
        self._tasks = tasks
        self._fetching: dict[tuple[str, str, str], Answer] = {}
        self._made: dict[tuple[str, str], list[Entry]] = {}
        self._count = 0
        self._ended = anyio.Event()

    async def answer(self, method: str, url: Url, headers: Pairs) -> Answer:
        """Raises :class:`Refused`. The caller releases the answer."""
        accept = accept_of(headers)
        for entry in self._made.get((method, str(url)), ()):
            if entry.headers.get("accept") in (None, accept):
                return stored(self._spool.directory, entry)
        key = (str(url), method, accept)
        if key not in self._fetching:
            self._count += 1
            if self._count > MOST_ENTRIES:
                raise Refused(403, f"the build has fetched more than {MOST_ENTRIES} resources")
            self._fetching[key] = self._spool.begin()  # before anything else runs: another request finds it
            self._tasks.start_soon(self._fetch, key, url, headers)
        answer = self._fetching[key]
        answer.users += 1
        return answer

    async def _fetch(self, key: tuple[str, str, str], url: Url, headers: Pairs) -> None:
        method, answer = key[1], self._fetching[key]
        with self._spool.ending(answer):
            await fetch(answer, self._outside, url, method, headers, self._budget)
            answer.kept = answer.whole and answer.status in RECORDED
        if answer.kept:
            self._made.setdefault((method, str(url)), []).append(answer.entry(method, url))
        del self._fetching[key]
        self._ended.set()
        self._ended = anyio.Event()

    async def lock(self) -> Lock:
        """Everything that was recorded, once no fetch runs any more."""
        while self._fetching:
            await self._ended.wait()
        return lock_of(entry for entries in self._made.values() for entry in entries)


class Replay:
    """Answers what the lock names, from the bodies in the directory ``store``, and nothing else."""

    def __init__(self, lock: Lock, store: int) -> None:
        self._store = store
        self._named: dict[tuple[str, str], list[Entry]] = {}
        for entry in lock.entries:
            self._named.setdefault((entry.method, entry.url), []).append(entry)
        self._used: dict[tuple[str, str, str], Entry] = {}
        self._checked: set[str] = set()

    async def answer(self, method: str, url: Url, headers: Pairs) -> Answer:
        """Raises :class:`Refused` for a request that the lock does not name. The caller releases the answer."""
        accept = accept_of(headers)
        for entry in self._named.get((method, str(url)), ()):
            if entry.headers.get("accept") in (None, accept):
                return await self._stored(entry)
        raise Refused(403, f"the lock does not name {method} {url}")

    async def _stored(self, entry: Entry) -> Answer:
        answer = stored(self._store, entry)
        if entry.sha256 not in self._checked:
            if await anyio.to_thread.run_sync(file_sha256, answer.fd) != entry.sha256:
                answer.release()
                raise Refused(502, f"the stored body of {entry.url} has another hash than the lock names")
            self._checked.add(entry.sha256)
        self._used[entry.key] = entry
        return answer

    async def lock(self) -> Lock:
        """What the build has asked for of the lock."""
        return lock_of(self._used.values())


def stored(directory: int, entry: Entry) -> Answer:
    """The answer of an entry whose body is in a directory. Raises :class:`Refused`."""
    try:
        fd = os.open(entry.sha256, _READ, dir_fd=directory)
    except OSError as error:
        raise Refused(502, f"the body of {entry.url} is not stored") from error
    return Answer(fd, entry.status, dict(entry.headers), entry.size, entry.size, True, digest=entry.sha256)


async def refetch(lock: Lock, outside: Outside, spool: Spool, budget: Budget, refusals: Refusals) -> Lock:
    """Fetch the bodies of all entries of ``lock``. Returns those whose body is what the lock names."""
    made: list[Entry] = []
    limit = anyio.CapacityLimiter(_REFETCHES)

    async def one(entry: Entry) -> None:
        async with limit:
            accept = entry.headers.get("accept", "*/*").encode("latin-1")
            try:
                answer = spool.begin()
            except Refused as error:
                refusals.add(entry.method, entry.url, error.reason)
                return
            with spool.ending(answer):
                await fetch(answer, outside, parse_url(entry.url), entry.method, [(b"accept", accept)], budget)
                answer.kept = answer.whole and answer.digest == entry.sha256
            if answer.kept:
                made.append(entry)
            else:
                refusals.add(entry.method, entry.url, answer.failure or "what is there now has another hash")

    async with anyio.create_task_group() as tasks:
        for entry in lock.entries:
            tasks.start_soon(one, entry)
    return lock_of(made)
