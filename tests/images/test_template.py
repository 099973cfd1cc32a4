from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.actions import CopyAction, RunAction
from pandastack.images.plan import plan
from pandastack.images.stages import base_name
from pandastack.images.template import REHEARSE_LENGTH, REHEARSE_MOST, TemplateSettings, load_template, parse_settings
from pandastack.model.network import Egress, Limits, NetworkPolicy, Rule
from pandastack.model.previews import Visibility, WakePolicy

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
        "max_cpu = 4\nmin_memory_mb = 1024\nmax_memory_mb = 3072\n"
        "disk_mb_per_second = 100\ndisk_operations_per_second = 2000\ndisks = 14\n"
        'tools = ["a"]\naliases = ["ubuntu-24.04"]\nwarm_up = ["true"]\nrehearse = ["ls"]\n'
        'nested = true\nnetwork = "deny"\npreviews = "private"\nwake = "authed"\n'
        '[env]\nA = "1"\n',
        default_name="folder",
    )
    assert name == "x"
    assert settings == TemplateSettings(
        *("d", "c", 2, 2048, 4, 1024, 3072, 512, 100, 2000, 14, ("a",), ("ubuntu-24.04",)),
        *((), ("true",), ("ls",), {"A": "1"}),
        nested=True,
        network=NetworkPolicy(Egress.DENY),
        previews=Visibility.PRIVATE,
        wake=WakePolicy.AUTHED,
    )


@pytest.mark.parametrize("text", ['previews = "closed"', "previews = true", 'wake = "never"', "wake = 1"])
def test_preview_settings_without_a_meaning(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"template\.toml: (previews must be open|wake must be any)") as refused:
        parse_settings(text, default_name="x")
    assert refused.value.field == text.partition(" ")[0]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('network = "all"', "network.egress"),
        ("network = 1", "network"),
        ('[network.egress]\nallow = ["x"]', "network.egress.allow[0]"),
        ('[network]\nsecrets = ["not a name"]', "network.secrets[0]"),
        ('[network]\nsecrets = "KEY"', "network.secrets"),
        ('[network]\nservices = ["db:1"]', "network"),
    ],
)
def test_a_network_policy_that_a_template_cannot_have(text: str, field: str) -> None:
    with pytest.raises(BadRequestError, match=r"template\.toml: network") as refused:
        parse_settings(text, default_name="x")
    assert refused.value.field == field


def test_a_template_may_name_secrets() -> None:
    _, settings = parse_settings('[network]\negress = "allow"\nsecrets = ["API_KEY"]', default_name="x")
    assert settings.network == NetworkPolicy(secrets=("API_KEY",))


def test_a_template_may_have_lists() -> None:
    _, settings = parse_settings(
        '[network]\nlimits = {packets_per_second = 9}\n[network.egress]\nallow = ["*.Example.org:443"]',
        default_name="x",
    )
    assert settings.network == NetworkPolicy(
        Egress.LIST, (Rule("*.example.org", 443),), limits=Limits(packets_per_second=9)
    )


def test_the_default_sizes_are_the_limits_unless_it_says_otherwise() -> None:
    _, settings = parse_settings("cpu = 3\nmemory_mb = 1000", default_name="x")
    assert (settings.max_cpu, settings.min_memory_mb, settings.max_memory_mb) == (3, 1000, 1000)


@pytest.mark.parametrize(
    ("memory_mb", "least"), [(256, 256), (512, 512), (2048, 512), (2000, 2000), (8192, 3200), (16384, 4096)]
)
def test_a_sandbox_may_be_smaller(memory_mb: int, least: int) -> None:
    _, settings = parse_settings(f"memory_mb = {memory_mb}", default_name="x")
    assert settings.min_memory_mb == least


def test_a_sandbox_may_not_be_smaller_where_commands_of_the_bake_must_fit() -> None:
    _, settings = parse_settings('memory_mb = 2048\nwarm_up = ["true"]', default_name="x")
    assert settings.min_memory_mb == 2048


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("cpu = 0", "cpu"),
        ("cpu = true", "cpu"),
        ("cpu = 1.5", "cpu"),
        ("cpu = 65", "cpu"),
        ("memory_mb = 64", "memory_mb"),
        ("max_memory_mb = 65537", "max_memory_mb"),
        ("min_memory_mb = 0", "min_memory_mb"),
        ("max_cpu = 65", "max_cpu"),
        ("cpu = 4\nmax_cpu = 2", "max_cpu"),
        ("max_memory_mb = 256", "max_memory_mb"),
        ("min_memory_mb = 640", "min_memory_mb"),
        ("max_memory_mb = 2176", "min_memory_mb"),  # more than four times the kernel's part
        ("memory_mb = 1024\nmax_memory_mb = 4096", "min_memory_mb"),  # its firmware's tables are at 3 GiB
        ("memory_mb = 3200\nmin_memory_mb = 3072", "min_memory_mb"),
        ("max_memory_mb = 1000", "max_memory_mb"),
        ("memory_mb = 600\nmin_memory_mb = 512", "memory_mb"),
        ("disks = 15", "disks"),
        ("nested = 1", "nested"),
        ('disk_mb = "1g"', "disk_mb"),
        ('name = "a b"', "name"),
        ('name = "a\\n"', "name"),
        ('tools = "git"', "tools"),
        ("tools = [1]", "tools[0]"),
        ('aliases = ["ok", "not ok"]', "aliases[1]"),
        ('warm_up = [" "]', "warm_up[0]"),
        ('start = ["go"]', "start"),
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
    actions = plan(template.dockerfile, template.context, parent_key="p").actions
    assert not any(isinstance(action, RunAction | CopyAction) for action in actions), "the host makes it by itself"
    assert (
        (template.settings.services or template.settings.warm_up)
        and template.settings.tools
        and template.settings.description
    )


def test_the_alias_that_clients_ask_for() -> None:
    assert "ubuntu-24.04" in load_template(SHIPPED / "base").settings.aliases
