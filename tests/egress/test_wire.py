"""Messages and descriptors between the engine and the process."""

from __future__ import annotations

import os
import socket

import anyio
import pytest

from pandastack.egress.wire import Link, policy_from_wire, policy_to_wire
from pandastack.model.network import Egress, Limits, NetworkPolicy, Protocol, Rule

pytestmark = pytest.mark.anyio


def test_policies() -> None:
    policy = NetworkPolicy(
        Egress.LIST,
        allow=(Rule("a.test"), Rule("203.0.113.0/24", 53, Protocol.UDP)),
        deny=(Rule("b.a.test", 443),),
        services=("db:1",),
        secrets=("TOKEN",),
        limits=Limits(1, 2, 3),
    )
    assert policy_from_wire(policy_to_wire(policy)) == policy


async def test_descriptors_stay_with_their_message() -> None:
    ends = socket.socketpair()
    near, far = Link(ends[0]), Link(ends[1])
    files = [os.memfd_create(f"file-{each}") for each in range(6)]

    async def send() -> None:
        await near.send({"n": 1, "fds": 3}, files[:3])
        await near.send({"n": 2, "padding": "x" * 3_000_000})
        await near.send({"n": 3, "fds": 3}, files[3:])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        for number, count in ((1, 3), (2, 0), (3, 3)):
            received = await far.receive()
            assert received is not None
            message, descriptors = received
            assert (message["n"], len(descriptors)) == (number, count)
            for ours, theirs in zip(files[3:] if number == 3 else files, descriptors, strict=False):
                assert os.path.sameopenfile(ours, theirs)
                os.close(theirs)
    near.close()
    assert await far.receive() is None
    far.close()
    for each in files:
        os.close(each)
