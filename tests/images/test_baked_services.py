"""The services of ``template.toml``."""

from __future__ import annotations

import json

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.template import parse_settings
from pandastack.model.baked_services import BakedService, Readiness, Restart
from pandastack.model.template import Template
from tests.support.manifests import TEMPLATE

ALL = """
[[services]]
name = "database"
command = "postgres -D /data"
user = "postgres"
env = { PGDATA = "/data" }
cwd = "/data"
ready = { command = "pg_isready", timeout_seconds = 90 }

[[services]]
name = "web"
command = "python3 -m http.server 8000"
restart = "no"
ready = { port = 8000 }

[[services]]
name = "plain"
command = "sleep inf"
"""

SERVICES = (
    BakedService(
        *("database", "postgres -D /data", "postgres", {"PGDATA": "/data"}, "/data"),
        ready=Readiness(command="pg_isready", timeout_seconds=90),
    ),
    BakedService("web", "python3 -m http.server 8000", restart=Restart.NO, ready=Readiness(port=8000)),
    BakedService("plain", "sleep inf"),
)


def test_all_fields_in_their_order() -> None:
    _, settings = parse_settings(ALL, default_name="x")
    assert settings.services == SERVICES
    assert settings.min_memory_mb == settings.memory_mb  # they run within the smallest memory


def test_a_templates_record_has_them() -> None:
    template = Template(**{**vars(TEMPLATE), "services": SERVICES})
    assert Template.from_json(json.dumps(template.to_json())) == template
    old = {key: value for key, value in TEMPLATE.to_json().items() if key != "services"}
    assert Template.from_json(json.dumps({**old, "start": ["go"]})) == TEMPLATE


def one(**fields: str) -> str:
    values = {"name": '"a"', "command": '"b"', **fields}
    return "\n".join(["[[services]]", *(f"{key} = {value}" for key, value in values.items() if value)])


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("services = 1", "services"),
        ("services = [1]", "services[0]"),
        ('[services.a]\ncommand = "b"', "services"),
        ("\n".join([one()] * 17), "services"),
        (one(name=""), "services[0].name"),
        (one(command=""), "services[0].command"),
        (one(name='"A"'), "services[0].name"),
        (one(name='"a\\n"'), "services[0].name"),
        (one(name=f'"{"a" * 28}"'), "services[0].name"),
        (one(command='" "'), "services[0].command"),
        (one(command='"a\\u0000"'), "services[0].command"),
        (one(command=f'"{"a" * 4097}"'), "services[0].command"),
        (one(name='"a b"'), "services[0].name"),
        (f"{one()}\n{one()}", "services[1].name"),
        (one(user='"a:b"'), "services[0].user"),
        (one(user="0"), "services[0].user"),
        (one(cwd='"here"'), "services[0].cwd"),
        (one(env="[]"), "services[0].env"),
        (one(env='{"1a" = "x"}'), "services[0].env.1a"),
        (one(env="{A = 1}"), "services[0].env.A"),
        (one(env="{" + ", ".join(f'A{each} = ""' for each in range(65)) + "}"), "services[0].env"),
        (one(restart="true"), "services[0].restart"),
        (one(restart='"sometimes"'), "services[0].restart"),
        (one(after='"b"'), "services[0].after"),
        (one(ready="5432"), "services[0].ready"),
        (one(ready="{}"), "services[0].ready"),
        (one(ready='{port = 1, file = "/x"}'), "services[0].ready"),
        (one(ready="{port = 0}"), "services[0].ready.port"),
        (one(ready="{port = 65536}"), "services[0].ready.port"),
        (one(ready="{port = true}"), "services[0].ready.port"),
        (one(ready='{port = "80"}'), "services[0].ready.port"),
        (one(ready='{file = "run"}'), "services[0].ready.file"),
        (one(ready='{command = ""}'), "services[0].ready.command"),
        (one(ready="{port = 1, timeout_seconds = 0}"), "services[0].ready.timeout_seconds"),
        (one(ready="{port = 1, timeout_seconds = 601}"), "services[0].ready.timeout_seconds"),
        (one(ready="{port = 1, host = 2}"), "services[0].ready.host"),
    ],
)
def test_a_wrong_field_is_named(text: str, field: str) -> None:
    with pytest.raises(BadRequestError, match=r"template\.toml: ") as wrong:
        parse_settings(text, default_name="x")
    assert wrong.value.field == field
