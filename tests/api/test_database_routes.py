"""What the gateway's door for PostgreSQL is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from pandastack.api.internal.app import create_internal_app
from pandastack.errors import NotFoundError
from pandastack.model.databases import DatabaseRoute, is_database_id

pytestmark = pytest.mark.anyio


class Directory:
    """One database."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.asked: list[str] = []

    async def route(self, database: str) -> DatabaseRoute:
        self.asked.append(database)
        if database != "calm-panda-1":
            raise NotFoundError("there is no such database")
        return DatabaseRoute("a-sandbox", 5432, 97)

    def announced(self, port: int) -> None:
        self.ports.append(port)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def http(directory: Directory) -> AsyncIterator[httpx.AsyncClient]:
    app = create_internal_app()
    app.state.databases = directory
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://control") as http:
        yield http


async def test_a_route_of_a_database(http: httpx.AsyncClient, directory: Directory) -> None:
    answer = await http.post("/internal/databases/calm-panda-1/route")
    assert answer.json() == {"sandbox": "a-sandbox", "port": 5432, "max_connections": 97}
    for other in ("other", "Calm-panda-1", "-x", "a.b", "x" * 64):
        assert (await http.post(f"/internal/databases/{other}/route")).status_code == 404
    assert directory.asked == ["calm-panda-1", "other"]


async def test_the_port_of_the_door(http: httpx.AsyncClient, directory: Directory) -> None:
    assert (await http.post("/internal/databases/door", json={"port": 5432})).status_code == 200
    for wrong in ({"port": 0}, {"port": 70000}, {}, {"port": 1, "more": 1}):
        assert (await http.post("/internal/databases/door", json=wrong)).status_code == 400
    assert directory.ports == [5432]


async def test_nobody_answers_for_databases_yet() -> None:
    transport = httpx.ASGITransport(app=create_internal_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
        assert (await http.post("/internal/databases/x/route")).status_code == 503


@pytest.mark.parametrize(
    ("text", "is_one"), [("a", True), ("a-1", True), ("a" * 63, True), ("", False), ("a\n", False)]
)
def test_ids(text: str, is_one: bool) -> None:
    assert is_database_id(text) == is_one
