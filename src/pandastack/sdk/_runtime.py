"""The few things that asyncio code and blocking code do differently, in both flavours under matching names.

The generator turns ``async_pause`` into ``pause`` and so on; nothing else in this package knows its
flavour.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_IN_MEMORY = 4 * 1024 * 1024  # bytes of a spooled file


class CancelEvent(Protocol):
    """The type of ``cancel=``: :class:`threading.Event`, or anything that blocks like it."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> Any: ...


class AsyncCancelEvent(Protocol):
    """The type of ``cancel=`` in the asyncio client: :class:`asyncio.Event`, or anything that waits like it."""

    def is_set(self) -> bool: ...

    async def wait(self) -> Any: ...


def check_cancel(event: CancelEvent | None) -> None:
    """Raise TypeError, before anything is sent, for an event without a blocking ``wait``."""
    _check(event, awaitable=False)


def async_check_cancel(event: AsyncCancelEvent | None) -> None:
    """Raise TypeError, before anything is sent, for an event that would block the event loop."""
    _check(event, awaitable=True)


def _check(event: object, *, awaitable: bool) -> None:
    if event is None:
        return
    wait = getattr(event, "wait", None)
    if not callable(getattr(event, "is_set", None)) or not callable(wait):
        raise TypeError("cancel must be an event with is_set() and wait()")
    if inspect.iscoroutinefunction(wait) != awaitable:
        wanted = "asyncio.Event" if awaitable else "threading.Event"
        raise TypeError(f"cancel must be an event like {wanted} for this client")


def pause(seconds: float, cancel: CancelEvent | None = None) -> None:
    """Wait for ``seconds`` or until ``cancel`` is set."""
    if cancel is None:
        time.sleep(seconds)
    else:
        cancel.wait(seconds)


async def async_pause(seconds: float, cancel: AsyncCancelEvent | None = None) -> None:
    """Wait for ``seconds`` or until ``cancel`` is set."""
    if cancel is None:
        await asyncio.sleep(seconds)
        return
    try:
        await asyncio.wait_for(cancel.wait(), seconds)
    except TimeoutError:
        return


def read_piece(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """At most ``size`` bytes of a local file from ``offset`` on; none at its end. Raises OSError."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


async def async_read_piece(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """The same outside the event loop."""
    return await asyncio.to_thread(read_piece, path, offset, size)


def read_next(file: IO[bytes], size: int) -> bytes:
    """The next bytes of an open file, at most ``size``; none at its end."""
    return file.read(size)


async def async_read_next(file: IO[bytes], size: int) -> bytes:
    """The same outside the event loop."""
    return await asyncio.to_thread(read_next, file, size)


def spool() -> IO[bytes]:
    """A temporary file, in memory while it is small; closing it deletes it."""
    return SpooledTemporaryFile(_IN_MEMORY)


def append(file: IO[bytes], piece: bytes) -> None:
    """Write to a temporary file. Raises OSError."""
    file.write(piece)


async def async_append(file: IO[bytes], piece: bytes) -> None:
    """The same outside the event loop."""
    await asyncio.to_thread(append, file, piece)


def write_file(path: str | os.PathLike[str], content: IO[bytes]) -> None:
    """Create or replace a local file with all of ``content``. Raises OSError."""
    content.seek(0)
    with Path(path).open("wb") as file:
        shutil.copyfileobj(content, file)


async def async_write_file(path: str | os.PathLike[str], content: IO[bytes]) -> None:
    """The same outside the event loop."""
    await asyncio.to_thread(write_file, path, content)


def pack_tree(directory: str | os.PathLike[str]) -> bytes:
    """A local directory as a tar archive. Raises OSError."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(directory, arcname=".")
    return packed.getvalue()


async def async_pack_tree(directory: str | os.PathLike[str]) -> bytes:
    """A local directory as a tar archive, read outside the event loop. Raises OSError."""
    return await asyncio.to_thread(pack_tree, directory)


def unpack_tree(packed: IO[bytes], directory: str | os.PathLike[str]) -> list[str]:
    """Unpack a tar archive into a local directory, which is created. Returns the names that the server left out.

    Raises OSError and tarfile.TarError.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    packed.seek(0)
    # Our server sends safe archives; this protects against servers that do not, if Python supports it (3.11.4).
    rules: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(directory, **rules)
        return _left_out(archive.getmembers()[-1:])


def _left_out(last: list[tarfile.TarInfo]) -> list[str]:
    """What the comment of the archive's last member says."""
    comments = [each.pax_headers.get("comment", "").partition("pandastack ")[2] for each in last]
    return [str(name) for text in comments if text for name in json.loads(text)["names"]]


async def async_unpack_tree(packed: IO[bytes], directory: str | os.PathLike[str]) -> list[str]:
    """The same outside the event loop."""
    return await asyncio.to_thread(unpack_tree, packed, directory)


def in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """The result of work on local files."""
    return function(*arguments)


async def async_in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """The same outside the event loop."""
    return await asyncio.to_thread(function, *arguments)


def run_all(function: Callable[[T], R], items: Sequence[T], limit: int) -> list[R]:
    """Call ``function`` with every item, in threads, at most ``limit`` at a time; results are in the items' order."""
    with ThreadPoolExecutor(max_workers=limit) as pool:
        return list(pool.map(function, items))


async def async_run_all(function: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int) -> list[R]:
    """Call ``function`` with every item, at most ``limit`` at a time; results are in the items' order."""
    room = asyncio.Semaphore(limit)

    async def run(item: T) -> R:
        async with room:
            return await function(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(each)) for each in items]
    return [each.result() for each in tasks]


def settled(value: Any) -> Any:
    """The result of a function of the program."""
    return value


async def async_settled(value: Any) -> Any:
    """The result of a function of the program, awaited if necessary."""
    return await value if inspect.isawaitable(value) else value


def scope() -> object | None:
    """The owner of open connections: none, in blocking code."""
    return None


def async_scope() -> object | None:
    """The owner of open connections: the running event loop, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
