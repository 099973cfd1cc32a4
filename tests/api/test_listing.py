"""Lists in parts: by status and metadata, and a page at a time."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.services.records.listing import cursor_of, parsed_cursor
from pandastack.store.position import Position
from tests.support.api import Api, refusal

pytestmark = pytest.mark.anyio

ID = "00000000-0000-4000-8000-000000000000"


async def create(api: Api, **metadata: str) -> str:
    made = await api.http.post("/v1/sandboxes", json={"template": "base", "metadata": metadata})
    return str(made.json()["id"])


async def listed(api: Api, query: str) -> list[str]:
    answer = await api.http.get(f"/v1/sandboxes{query}")
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()]


async def pages(api: Api, path: str, key: str | None = None) -> list[list[str]]:
    """The ids on each page, to the last."""
    found: list[list[str]] = []
    cursor = ""
    while True:
        answer: httpx.Response = await api.http.get(path + cursor)
        body: Any = answer.json()
        found.append([each["id"] for each in (body if key is None else body[key])])
        if "x-next-cursor" not in answer.headers:
            return found
        cursor = f"&cursor={answer.headers['x-next-cursor']}"


async def test_by_status_and_metadata(api: Api) -> None:
    one, two = await create(api, team="a", **{"a.b": "1"}), await create(api, team="a")
    three = await create(api, team="b")
    await api.http.post(f"/v1/sandboxes/{two}/pause")
    assert await listed(api, "") == [three, two, one]
    assert await listed(api, "?status=running") == [three, one]
    assert await listed(api, "?status=paused&status=running") == [three, two, one]
    assert await listed(api, "?metadata.team=a") == [two, one]
    assert await listed(api, "?metadata.team=a&metadata.a.b=1") == [one]
    assert await listed(api, "?metadata.team=a&metadata.team=b") == []
    assert await listed(api, "?status=paused&metadata.team=b") == []
    assert await listed(api, "?metadata.nobody=") == []


async def test_a_page_at_a_time(api: Api) -> None:
    made = [await create(api, team="ab"[index % 2]) for index in range(5)][::-1]
    assert await pages(api, "/v1/sandboxes?limit=2") == [made[:2], made[2:4], made[4:]]
    assert await pages(api, "/v1/sandboxes?limit=5") == [made]
    assert await pages(api, "/v1/sandboxes?limit=2&metadata.team=a") == [made[::2][:2], made[::2][2:]]


async def test_what_comes_and_goes_between_two_pages_moves_no_other(api: Api) -> None:
    made = [await create(api) for _ in range(4)][::-1]
    first = await api.http.get("/v1/sandboxes?limit=2")
    await api.http.delete(f"/v1/sandboxes/{made[1]}")
    await create(api)
    rest = await listed(api, f"?limit=2&cursor={first.headers['x-next-cursor']}")
    assert rest == made[2:]
    assert await listed(api, f"?cursor={first.headers['x-next-cursor']}") == made[2:]


async def test_snapshots_a_page_at_a_time(api: Api) -> None:
    path, other = await api.sandbox(), await api.sandbox()
    made = [(await api.http.post(f"{path}/snapshots")).json()["id"] for _ in range(3)][::-1]
    await api.http.post(f"{other}/snapshots")
    query = f"/v1/snapshots?limit=2&sandbox_id={path.rpartition('/')[2]}"
    assert await pages(api, query, "snapshots") == [made[:2], made[2:]]
    assert len((await api.http.get("/v1/snapshots")).json()["snapshots"]) == 4


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/v1/sandboxes", "status=asleep", "status"),
        ("/v1/sandboxes", "status=running&status=", "status"),
        ("/v1/sandboxes", "metadata.=x", "metadata."),
        ("/v1/sandboxes", "metadata.secret.key=x", "metadata.secret.key"),
        ("/v1/sandboxes", "&".join(f"metadata.k{index}=v" for index in range(33)), "metadata"),
        ("/v1/sandboxes", "limit=0", "limit"),
        ("/v1/sandboxes", "limit=1001", "limit"),
        ("/v1/sandboxes", "limit=ten", "limit"),
        ("/v1/sandboxes", "limit=" + "9" * 5000, "limit"),
        ("/v1/sandboxes", "limit=1&cursor=x", "cursor"),
        ("/v1/sandboxes", "cursor=", "cursor"),
        ("/v1/sandboxes", f"cursor={base64.urlsafe_b64encode(f'0x1.0p+9999 {ID}'.encode()).decode()}", "cursor"),
        ("/v1/snapshots", "limit=0", "limit"),
        ("/v1/snapshots", "cursor=!", "cursor"),
        (f"/v1/sandboxes/{ID}/processes", "status=asleep", "status"),
    ],
)
async def test_a_wrong_value_is_refused_by_name(api: Api, path: str, query: str, field: str) -> None:
    answer = refusal(await api.http.get(f"{path}?{query}"), 400)
    assert answer["field"] == field
    assert answer["error"].startswith(field.partition(".")[0])


@given(at=st.floats(1, 4e9))
def test_a_cursor_is_read_as_it_was_written(at: float) -> None:
    assert parsed_cursor(cursor_of(Position(at, ID))) == (at, ID)


@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_any_other_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        parsed_cursor(text)
