"""How tests are run: what each needs, for how long it may run, and which run beside each other.

A pytest plugin; ``tests/conftest.py`` loads it. Markers are described in ``pyproject.toml`` and in CONTRIBUTING.md.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import inspect
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from pandastack.host import facts

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so by all programs that tests start

NEEDS = {
    "installed": "vm",
    "root": "root",
    "mountable": "root",
    "outside_world": "root",
    "shared_cache": "network",
    "python_sdk": "network",
    "npm_package": "network",
}
"""What a test needs that uses a fixture, however indirectly."""

MACHINE_SECONDS = 600
"""The limit of a test that starts machines. Its fixtures have limits of their own: a first one may build templates."""

_GRACE_SECONDS = 5
"""What an asynchronous test is given to end after it was cancelled and before it is interrupted by a signal."""

LONGEST = tuple(
    f"tests/{name}.py::"
    for name in (
        "engine/test_volume_crashes",
        "system/test_boot",
        "system/test_copies",
        "system/test_database_data",
        "system/test_database_durability",
        "system/test_fail_closed",
        "system/test_shipped",
        "system/test_survival",
        "trials/test_trials",
    )
)
"""Modules that take more than a minute. The last of all are short, so that no worker has nothing to do for long."""

hypothesis.settings.register_profile("default", deadline=None, max_examples=20)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500)
hypothesis.settings.load_profile("default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    for item in items:
        _mark(item)
    if "slow" not in config.option.markexpr:
        skipped = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=skipped)
        items[:] = [item for item in items if item not in skipped]
    if any(item.get_closest_marker("vm") for item in items):
        # Clients of real servers are closed by the collector in many of these tests: said, but no failure.
        config.addinivalue_line("filterwarnings", "default::pytest.PytestUnraisableExceptionWarning")
    items.sort(key=_begins_late)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: the collector of garbage looks through it neither meanwhile, again and
    again, nor while the tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _begins_late(item: pytest.Function) -> tuple[bool, bool]:
    """What is quick comes first, and says first what is broken; after it what is longest."""
    machines = item.get_closest_marker("vm") is not None
    return machines, machines and not item.nodeid.startswith(LONGEST)


def _mark(item: pytest.Function) -> None:
    if unknown := set(item.fixturenames) - item._fixtureinfo.name2fixturedefs.keys() - {"request"}:
        raise pytest.UsageError(
            f"{item.nodeid}: no fixture {', '.join(unknown)}"
        )  # said on hosts without machines, too
    for fixture in NEEDS.keys() & set(item.fixturenames):
        item.add_marker(NEEDS[fixture])
    if item.get_closest_marker("timeout") is None:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))
        elif item.get_closest_marker("vm"):
            item.add_marker(pytest.mark.timeout(MACHINE_SECONDS, func_only=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not facts.is_root():
        pytest.skip("this user is not root")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Cancel an asynchronous test at its limit. A signal would stop its loop, and then its fixtures could not end."""
    if inspect.iscoroutinefunction(pyfuncitem.obj) and (seconds := _limit(pyfuncitem)):
        pyfuncitem.obj = _within(seconds, pyfuncitem.obj)
    return (yield)


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))


def _within(seconds: float, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(**arguments: Any) -> None:
        with anyio.fail_after(max(seconds - _GRACE_SECONDS, seconds / 2)):
            await test(**arguments)

    return bounded


TOGETHER = ("tests/conformance/", "tests/network/")
"""All of ``conformance`` shares answers, all of ``network`` the host's addresses: each runs in one worker."""


class _ByModule(LoadScopeScheduling):
    """The tests of a module share fixtures, so they run in one worker."""

    def _split_scope(self, nodeid: str) -> str:
        together = next((each for each in TOGETHER if nodeid.startswith(each)), None)
        return together or str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # the order is that of pytest_collection_modifyitems
    return _ByModule(config, log)


_kept: list[ExitStack] = []
"""The turn of a test that was alone and whose successor is alone as well. To wait for the other workers once is dear
enough: each of them is in the middle of a test."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    if _kept:
        turn = _kept.pop()
    else:
        turn = ExitStack()
        turn.enter_context(_turn(alone=_is_alone(item)))
    try:
        return (yield)
    finally:
        if nextitem is not None and _is_alone(item) and _is_alone(nextitem):
            _kept.append(turn)
        else:
            turn.close()


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Take turns with the other workers. A test marked ``alone`` waits until none of theirs runs, and they wait for it.

    The locks are on two files that every worker of this checkout has. A waiter holds the first one, so that the others
    cannot pass it for ever.
    """
    with Path(__file__).open() as turn:
        with Path(__file__).parents[1].joinpath("conftest.py").open() as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
