"""A slot with a guest, an internet and the egress process between them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pandastack.egress.client import Slot, open_egress
from pandastack.egress.log import Decision
from pandastack.model.network import FORBIDDEN
from tests.support.egress import POLICY, UID, Subject
from tests.support.egress_world import HERE, THERE, World, a_world, inside


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def broker_socket() -> Iterator[Path]:
    """Where the process finds the broker, if a test runs one: a place that its user can reach."""
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory) / "broker.sock"


@pytest.fixture
def gateway_socket(broker_socket: Path) -> Path:
    """The same for the gateway's door inward."""
    return broker_socket.with_name("gateway.sock")


@pytest.fixture
async def subject(world: World, tmp_path: Path, broker_socket: Path, gateway_socket: Path) -> AsyncIterator[Subject]:
    world.names.asked.clear()
    world.names.records = {
        "allowed.test": [[HERE]],
        "denied.test": [[HERE]],
        "other.test": [[THERE]],
        "a.wild.test": [[HERE]],
        "git.test": [[HERE]],
        "xn--bcher-kva.test": [[HERE]],
        "private.test": [["10.9.9.9"]],
        "meta.test": [["169.254.169.254"]],
        "flip.test": [[HERE], ["127.0.0.1"]],
    }
    decisions: list[Decision] = []
    listeners = world.listeners()
    with inside(world.host):
        opened = open_egress(
            tmp_path,
            UID,
            (*FORBIDDEN, "203.0.113.1/32"),
            lambda _, decision: decisions.append(decision),
            broker=broker_socket,
            gateway=gateway_socket,
            servers=[("127.0.0.1", world.names.port)],
        )
        async with opened as egress:
            slot = Slot("ps0001", "sbx-1", *(each.fileno() for each in listeners))
            await egress.open(slot, POLICY)
            for each in listeners:
                each.close()
            yield Subject(world, egress, slot, decisions)
