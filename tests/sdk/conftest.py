from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack import AsyncClient, Client, Sandbox
from tests.sdk.wire_server import RECORD, WireServer, serving


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PANDASTACK_API", "PANDASTACK_API_KEY", "PANDASTACK_MAX_CREATE_RETRY_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with serving() as server:
        yield server


@pytest.fixture
def client(wire: WireServer) -> Iterator[Client]:
    with Client(wire.url, "pds_key") as each:
        yield each


@pytest.fixture
def async_client(wire: WireServer) -> AsyncClient:
    return AsyncClient(wire.url, "pds_key")


@pytest.fixture
def sandbox(client: Client) -> Sandbox:
    return Sandbox.from_dict(RECORD, client)
