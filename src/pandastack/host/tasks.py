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
