"""Databases of the larger sizes, in real machines of templates that are baked for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pandastack import Client
from pandastack.errors import CapacityError
from pandastack.host import facts
from tests.support.databases import connected
from tests.support.installation import Install, Installation, serving

GIB = 1024**3
ROOM_GB = 12
"""The memory that this server may promise: for two of 4 GiB, not for one of 16."""

SHOWN = "current_setting('shared_buffers'), current_setting('max_connections'), current_setting('effective_cache_size')"


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    overcommit = ROOM_GB * GIB / facts.memory_bytes()
    return install(
        "postgres-4g", "postgres-16g", PANDASTACK_READY_MACHINES="0", PANDASTACK_OVERCOMMIT=f"{overcommit:.3f}"
    )


@pytest.fixture(scope="module")
def client(place: Installation) -> Iterator[Client]:
    with serving(place) as (_, client):
        yield client


@pytest.mark.slow
def test_a_database_of_4g_uses_its_memory(client: Client) -> None:
    made = client.databases.create(size="4g")
    try:
        assert (made["template"], made["disk_gb"]) == ("postgres-4g", 40)
        with connected(made) as session:
            assert session.execute(f"SELECT {SHOWN}").fetchone() == ("1GB", "200", "2GB")
            filled = "CREATE UNLOGGED TABLE much AS SELECT g, repeat('x', 7000) AS x FROM generate_series(1, 40000) g"
            session.execute("ALTER ROLE CURRENT_USER SET work_mem = '64MB'")
            session.execute(filled)  # TOAST compresses it: what is sorted below is 280 MB
            assert session.execute("SELECT count(DISTINCT x || g), sum(length(x)) FROM much").fetchone() == (
                40_000,
                280_000_000,
            )
        numbers = client.databases.stats(made["id"])
        assert numbers["max_connections"] == 200 and numbers["disk_size_bytes"] > 36 * GIB
        copy = client.databases.clone(made["id"])
        try:
            assert copy["size"] == "4g"
            with connected(copy) as session:
                assert session.execute("SELECT max(g) FROM much").fetchone() == (40_000,)
        finally:
            client.databases.delete(copy["id"])
    finally:
        client.databases.delete(made["id"])


@pytest.mark.slow
def test_one_that_does_not_fit_is_refused_before_it_is_made(client: Client) -> None:
    with pytest.raises(CapacityError) as refused:
        client.databases.create(size="16g")
    assert refused.value.status_code == 507 and refused.value.detail["asked_mb"] == 16384
    assert client.databases.list() == []
