"""How policies and guests spell services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.model.services import KINDS, Service, is_inward, listed, parse_service, service_at

ID = "0a1b2c3d-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("text", "service", "host"),
    [
        (f"sandbox:{ID}", Service("sandbox", ID), f"PORT-{ID}.sandbox.pandastack.internal"),
        (f"sandbox:{ID}:8000", Service("sandbox", ID, 8000), f"8000-{ID}.sandbox.pandastack.internal"),
        ("sandbox:b:65535", Service("sandbox", "b", 65535), "65535-b.sandbox.pandastack.internal"),
        ("sandbox:1-b:1", Service("sandbox", "1-b", 1), "1-1-b.sandbox.pandastack.internal"),
        ("db:4c5e", Service("db", "4c5e"), "4c5e.db.pandastack.internal"),
        ("app:Web_1", Service("app", "Web_1"), "Web_1.app.pandastack.internal"),
    ],
)
def test_services(text: str, service: Service, host: str) -> None:
    assert parse_service(text) == service
    assert (str(service), service.host) == (text, host)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sandbox",
        "sandbox:",
        "sandbox:b:",
        "sandbox:b:0",
        "sandbox:b:08000",
        "sandbox:b:65536",
        "sandbox:b:8000:1",
        "sandbox:b:+80",
        "sandbox:b:８０",
        "sandbox:B",
        "sandbox:-b",
        "sandbox:b.c",
        f"sandbox:{'b' * 58}",
        "sandbox:b\n",
        " sandbox:b",
        "db:4c5e:5432",
        "db:../x",
        "box:b",
        "SANDBOX:b",
        "sandbox:b" + ":8000" * 10_000,
    ],
)
def test_what_is_not_spelled_like_one(text: str) -> None:
    assert parse_service(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "pandastack.internal",
        "gateway.pandastack.internal",
        "sandbox.pandastack.internal",
        "b.sandbox.pandastack.internal",
        "0-b.sandbox.pandastack.internal",
        "080-b.sandbox.pandastack.internal",
        "65536-b.sandbox.pandastack.internal",
        "80-.sandbox.pandastack.internal",
        "a.80-b.sandbox.pandastack.internal",
        "80-b.box.pandastack.internal",
        "80-b.sandbox",
        "80-b.sandbox.pandastack.internal.test",
        "80-b.sandbox.otherpandastack.internal",
        "",
    ],
)
def test_names_of_no_service(name: str) -> None:
    assert service_at(name) is None


def test_own_names() -> None:
    assert is_inward("pandastack.internal") and is_inward("80-b.sandbox.pandastack.internal")
    assert not is_inward("pandastack.internal.test") and not is_inward("mypandastack.internal")


@given(st.sampled_from(sorted(KINDS)), st.from_regex(r"[a-z0-9][a-z0-9-]{0,56}", fullmatch=True), st.integers(1, 65535))
def test_a_name_leads_to_the_service_that_has_it(kind: str, id: str, port: int) -> None:
    service = Service(kind, id, port if KINDS[kind].has_ports else None)
    assert service_at(service.host) == service == parse_service(str(service))
    assert listed([str(service)], service) == str(service)
    assert listed(["db:other", f"{kind}:{id}"], service) == f"{kind}:{id}"
    assert all(len(label) <= 63 for label in service.host.split("."))


@given(st.text(max_size=80))
def test_any_text_is_a_service_or_none(text: str) -> None:
    for found in (parse_service(text), service_at(text)):
        assert found is None or found.id
