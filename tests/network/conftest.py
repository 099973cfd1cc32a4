"""Pools of slots, and the world that they lead to."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from pandastack.engine.layout import open_runtime_directory, runtime_directory
from pandastack.host import facts
from pandastack.model.network import FORBIDDEN
from pandastack.network.gate import Gate
from pandastack.network.making import find_slots
from pandastack.network.pool import SlotPool, open_slot_pool
from pandastack.network.subnets import Subnets
from pandastack.vmm.plan import GUEST_MAC
from tests.support.slots import MTU, SUBNETS, OpenPool
from tests.support.world import World, open_world


@pytest.fixture
def tag() -> str:
    return secrets.token_hex(4)


@pytest.fixture
def open_pool(tag: str) -> Iterator[OpenPool]:
    """A pool of one installation, with its gate open by default; nothing of it may be left.

    It shares the host's directory with every installation: the last one that routes returns the host's switch.
    """
    if not facts.is_root() or facts.program("nft") is None:
        pytest.skip("slots need root and nftables")
    open_runtime_directory()

    @asynccontextmanager
    async def open_one(
        *, keep: list[str] | None = None, ready: int = 0, subnets: Subnets = SUBNETS, gate: bool = True
    ) -> AsyncIterator[SlotPool]:
        async with open_slot_pool(
            tag,
            subnets,
            FORBIDDEN,
            guest_mac=GUEST_MAC,
            mtu=MTU,
            locks=runtime_directory(),
            keep=keep or [],
            ready=ready,
        ) as pool:
            opened = Gate(tag).open() if gate else None
            try:
                yield pool
            finally:
                if opened is not None:
                    os.close(opened)

    yield open_one
    assert find_slots(tag) == set()


@pytest.fixture
def world() -> Iterator[World]:
    with open_world() as world:
        yield world
