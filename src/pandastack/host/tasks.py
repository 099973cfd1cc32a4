"""Tasks that run concurrently with a block, or with one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


@asynccontextmanager
async def beside(*works: Callable[[], Coroutine[Any, Any, object]]) -> AsyncIterator[TaskGroup]:
    """Run ``works`` while the block runs, and cancel them at its end.

    An error of the block comes out as itself rather than in an exception group, so that it can be caught by its class.
    """
    failed: Exception | None = None
    async with anyio.create_task_group() as tasks:
        for work in works:
            tasks.start_soon(work)
        try:
            yield tasks
        except Exception as error:
            failed = error
        tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed


@asynccontextmanager
async def ahead(work: Callable[[], Awaitable[T]]) -> AsyncIterator[Callable[[], Awaitable[T]]]:
    """Run ``work`` while the block runs; what is yielded waits for its result, and raises its error. A block that ends
    without waiting cancels it."""
    done, results, errors = anyio.Event(), list[T](), list[Exception]()

    async def run() -> None:
        try:
            results.append(await work())
        except Exception as error:
            errors.append(error)
        finally:
            done.set()

    async def result() -> T:
        await done.wait()
        if errors:
            raise errors[0]
        return results[0]

    async with beside(run):
        yield result


async def together(*works: Callable[[], Awaitable[T]]) -> list[T]:
    """Run ``works`` concurrently; their results in order. An error of one cancels the others and is raised bare."""
    results: dict[int, T] = {}
    failed: list[Exception] = []

    async def run(index: int, work: Callable[[], Awaitable[T]]) -> None:
        try:
            results[index] = await work()
        except Exception as error:
            failed.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for index, work in enumerate(works):
            tasks.start_soon(run, index, work)
    if failed:
        raise failed[0]
    return [results[index] for index in range(len(works))]
