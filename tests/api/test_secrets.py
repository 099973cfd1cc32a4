"""Secrets over the API: written, listed, never read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api, refusal

pytestmark = pytest.mark.anyio

VALUE = "real-value-0123456789"
BODY = {"name": "API_KEY", "value": VALUE, "hosts": ["api.example.org"]}


async def test_a_secret_is_made_listed_changed_and_deleted(api: Api) -> None:
    made = await api.http.post("/v1/secrets", json=BODY)
    assert made.status_code == 201
    record = made.json()
    assert record["name"] == "API_KEY" and record["hosts"] == ["api.example.org"]
    assert record["placeholder"].startswith("pds-secret-")
    assert (await api.http.get("/v1/secrets")).json() == {"secrets": [record]}
    assert (await api.http.get("/v1/secrets/API_KEY")).json() == record
    changed = (await api.http.put("/v1/secrets/API_KEY", json={"value": "another-value"})).json()
    assert changed["placeholder"] == record["placeholder"]
    answers = [made, await api.http.get("/v1/secrets"), await api.http.post("/v1/secrets/rotate-key")]
    assert not any(VALUE in each.text or "another-value" in each.text for each in answers)
    assert answers[-1].json() == {"secrets": 1}
    assert (await api.http.delete("/v1/secrets/API_KEY")).status_code == 204
    refusal(await api.http.get("/v1/secrets/API_KEY"), 404)
    refusal(await api.http.delete("/v1/secrets/API_KEY"), 404)


async def test_a_secret_without_hosts_has_no_placeholder(api: Api) -> None:
    made = await api.http.post("/v1/secrets", json={"name": "PLAIN", "value": "x"})
    assert made.json()["placeholder"] is None and made.json()["hosts"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "1"}, "name"),
        ({"name": None}, "name"),
        ({"value": ""}, "value"),
        ({"value": 7}, "value"),
        ({"value": "short"}, "value"),
        ({"hosts": ["203.0.113.7"]}, "hosts"),
        ({"hosts": ["203.0.113.0/24"]}, "hosts"),
        ({"hosts": ["*.com"]}, "hosts"),
        ({"hosts": "api.example.org"}, "hosts"),
        ({"hosts": ["a.example.org"] * 33}, "hosts"),
    ],
)
async def test_bad_input_names_its_field_and_does_not_repeat_the_value(
    api: Api, change: dict[str, Any], field: str
) -> None:
    answer = await api.http.post("/v1/secrets", json={**BODY, **change})
    assert refusal(answer, 400)["field"].startswith(field)
    assert VALUE not in answer.text
    assert (await api.http.get("/v1/secrets")).json() == {"secrets": []}


async def test_a_name_is_taken_once(api: Api) -> None:
    await api.http.post("/v1/secrets", json=BODY)
    assert refusal(await api.http.post("/v1/secrets", json=BODY), 409)["field"] == "name"
