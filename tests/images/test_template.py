from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.plan import base_name, plan
from pandastack.images.template import REHEARSE_LENGTH, REHEARSE_MOST, TemplateSettings, load_template, parse_settings

SHIPPED = Path(__file__).parents[2] / "templates"


def test_a_folder_without_settings(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM base\nCOPY Dockerfile /x\n")
    template = load_template(folder)
    assert (template.name, template.settings) == ("mine", TemplateSettings())
    assert plan(template.dockerfile, template.context, parent_key="p").actions


def test_all_fields() -> None:
    name, settings = parse_settings(
        'name = "x"\ndescription = "d"\ncategory = "c"\ncpu = 2\nmemory_mb = 2048\ndisk_mb = 512\n'
        'tools = ["a"]\naliases = ["ubuntu-24.04"]\nwarm_up = ["true"]\nrehearse = ["ls"]\n[env]\nA = "1"\n',
        default_name="folder",
    )
    assert name == "x"
    assert settings == TemplateSettings(
        "d", "c", 2, 2048, 512, ("a",), ("ubuntu-24.04",), ("true",), ("ls",), {"A": "1"}
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("cpu = 0", "cpu"),
        ("cpu = true", "cpu"),
        ("cpu = 1.5", "cpu"),
        ("cpu = 65", "cpu"),
        ("memory_mb = 64", "memory_mb"),
        ('disk_mb = "1g"', "disk_mb"),
        ('name = "a b"', "name"),
        ('name = "a\\n"', "name"),
        ('tools = "git"', "tools"),
        ("tools = [1]", "tools[0]"),
        ('aliases = ["ok", "not ok"]', "aliases[1]"),
        ('warm_up = [" "]', "warm_up[0]"),
        ('rehearse = "ls"', "rehearse"),
        ('rehearse = ["ls", 1]', "rehearse[1]"),
        ('rehearse = ["\\t"]', "rehearse[0]"),
        ('rehearse = ["a\\u0000b"]', "rehearse[0]"),
        (f'rehearse = ["{"x" * (REHEARSE_LENGTH + 1)}"]', "rehearse[0]"),
        (f"rehearse = {['ls'] * (REHEARSE_MOST + 1)}", "rehearse"),
        ('env = {"1A" = "x"}', "env.1A"),
        ("env = {A = 1}", "env.A"),
        ("memory = 512", "memory"),
        ("cpu = ", "template.toml"),
    ],
)
def test_errors_name_the_field(text: str, field: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_settings(text, default_name="x")
    assert caught.value.field == field


def test_a_folder_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="no Dockerfile"):
        load_template(tmp_path)


@pytest.mark.parametrize(("name", "base"), [("base", "debian:bookworm"), ("code-interpreter", "base")])
def test_shipped_recipes_can_be_planned(name: str, base: str) -> None:
    template = load_template(SHIPPED / name)
    assert template.name == name
    assert base_name(template.dockerfile) == base
    assert plan(template.dockerfile, template.context, parent_key="p").actions
    assert template.settings.warm_up and template.settings.tools and template.settings.description


def test_the_alias_that_clients_ask_for() -> None:
    assert "ubuntu-24.04" in load_template(SHIPPED / "base").settings.aliases
