"""What a caller may ask a build for, and what surrounds its command."""

from __future__ import annotations

import math
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandastack.errors import BadRequestError
from pandastack.products.builds.spec import (
    EARLIEST_CLOCK,
    LATEST_CLOCK,
    PINNED_VARIABLES,
    BuildSpec,
    Fetch,
    Network,
    clock_of,
    planned_build,
)
from pandastack.products.builds.surroundings import (
    MISSING,
    Surroundings,
    build_command,
    collect_command,
    different,
    pinned,
    prepare_command,
    variables,
)
from tests.cluster.scripted_engine import TEMPLATE

WIDE = replace(TEMPLATE, cpu=1, max_cpu=2)


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("command", {"command": ""}),
        ("command", {"command": " \n"}),
        ("command", {"command": "a\0b"}),
        ("command", {"command": "x" * 40_000}),
        ("template", {"template": "t" * 200}),
        ("artifacts", {"artifacts": ["/etc/passwd"]}),
        ("artifacts", {"artifacts": ["a/../../b"]}),
        ("artifacts", {"artifacts": [""]}),
        ("artifacts", {"artifacts": ["."]}),
        ("artifacts", {"artifacts": ["a\0"]}),
        ("artifacts", {"artifacts": ["a"] * 101}),
        ("env", {"env": {"A=B": "1"}}),
        ("env", {"env": {"": "1"}}),
        ("env", {"env": {"1A": "1"}}),
        ("env", {"env": {"A": "\0"}}),
        ("env", {"env": {"A": "x" * 40_000}}),
        *(("env", {"env": {name: "x"}}) for name in PINNED_VARIABLES),
        ("source_date_epoch", {"source_date_epoch": EARLIEST_CLOCK - 1}),
        ("source_date_epoch", {"source_date_epoch": LATEST_CLOCK + 1}),
        ("cpu", {"cpu": 0}),
        ("cpu", {"cpu": 10**9}),
        ("timeout_seconds", {"timeout_seconds": 0}),
        ("timeout_seconds", {"timeout_seconds": -1.0}),
        ("timeout_seconds", {"timeout_seconds": math.nan}),
        ("timeout_seconds", {"timeout_seconds": math.inf}),
        ("timeout_seconds", {"timeout_seconds": 10**6}),
        ("lock", {"record": True, "locked": True}),
        ("refetch", {"refetch": True}),
        ("explain", {"explain": "diffoscope"}),
        ("explain", {"explain": "t" * 200, "verify": True}),
    ],
)
def test_a_bad_request_names_its_field(field: str, wanted: Mapping[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=f"^{field}:") as refused:
        planned_build(**{"command": "make", **_grouped(wanted)})
    assert refused.value.field == field


def _grouped(wanted: Mapping[str, Any]) -> dict[str, Any]:
    fetch = {name: value for name, value in wanted.items() if name in ("record", "locked", "refetch")}
    return {**{name: value for name, value in wanted.items() if name not in fetch}, "fetch": Fetch(**fetch)}


def test_a_request_is_put_into_one_spelling() -> None:
    spec = planned_build("make", artifacts=["./dist//a/"], env={"B": "2", "A": "1"})
    assert spec.artifacts == ("dist/a",)
    assert list(spec.env) == ["A", "B"]
    assert (spec.template, spec.network) == ("base", Network.NONE)
    assert planned_build("make", fetch=Fetch(record=True)).network is Network.RECORD
    assert planned_build("make", fetch=Fetch(locked=True)).network is Network.REPLAY


@pytest.mark.parametrize(
    ("given", "newest", "clock"),
    [
        (None, 1_700_000_000, 1_700_000_000),
        (1_600_000_000, 1_700_000_000, 1_600_000_000),
        (None, 0, EARLIEST_CLOCK),
        (None, 1 << 33, LATEST_CLOCK),
    ],
)
def test_the_clock_is_the_newest_file_unless_it_is_given(given: int | None, newest: int, clock: int) -> None:
    assert clock_of(BuildSpec("make", source_date_epoch=given), newest) == clock


def test_the_second_machine_differs_in_everything_but_the_epoch() -> None:
    first = pinned(BuildSpec("make"), 1_700_000_000, WIDE)
    second = different(first, WIDE)
    same = {name for name in Surroundings.__dataclass_fields__ if getattr(first, name) == getattr(second, name)}
    assert same == {"epoch", "network"}
    for name in ("source", "out", "home"):
        assert getattr(first, name) != getattr(second, name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Network.NONE, Network.NONE),
        (Network.RECORD, Network.REPLAY),
        (Network.REPLAY, Network.REPLAY),
    ],
)
def test_only_a_first_build_records(first: Network, second: Network) -> None:
    at = pinned(BuildSpec("make", network=first), 0, WIDE)
    assert (at.network, different(at, WIDE).network) == (first, second)
    assert at.described()["network"] == first


@pytest.mark.parametrize(("cpu", "most", "second"), [(1, 2, 2), (2, 2, 1), (4, 8, 5), (1, 1, 1), (1, 0, 1)])
def test_the_second_machine_has_another_number_of_cpus_if_the_template_allows(cpu: int, most: int, second: int) -> None:
    template = replace(TEMPLATE, cpu=cpu, max_cpu=most)
    assert different(pinned(BuildSpec("make"), 0, template), template).cpu == second


def test_a_caller_chooses_the_cpus() -> None:
    assert pinned(BuildSpec("make", cpu=2), 0, WIDE).cpu == 2
    assert pinned(BuildSpec("make"), 0, WIDE).cpu == 1


def test_the_environment_is_the_templates_the_callers_and_what_is_pinned() -> None:
    at = pinned(BuildSpec("make"), 1_700_000_000, WIDE)
    found = variables(at, BuildSpec("make", env={"CC": "gcc"}), {"PATH": "/opt/bin", "LANG": "de_DE", "CC": "x"})
    assert set(found) == {"PATH", "CC", *PINNED_VARIABLES}
    assert (found["PATH"], found["CC"], found["LANG"]) == ("/opt/bin", "gcc", "C.UTF-8")
    assert (found["SOURCE_DATE_EPOCH"], found["TZ"], found["OUT"]) == ("1700000000", "UTC", "/build/out")


def test_clients_find_the_proxy_and_its_certificate_unless_the_caller_says_otherwise() -> None:
    spec = BuildSpec("make", env={"PIP_CERT": "/own"}, network=Network.REPLAY)
    found = variables(pinned(spec, 0, WIDE), spec, {})
    assert found["https_proxy"] == found["HTTP_PROXY"] == "http://127.0.0.1:3128"
    assert (found["PIP_CERT"], found["SSL_CERT_FILE"]) == ("/own", "/etc/ssl/certs/ca-certificates.crt")
    assert "https_proxy" not in variables(pinned(BuildSpec("make"), 0, WIDE), BuildSpec("make"), {})


def test_only_a_build_with_a_proxy_trusts_it() -> None:
    at = pinned(BuildSpec("make"), 0, WIDE)
    assert "ca-certificates" not in prepare_command(at)
    prepared = prepare_command(at, "a 'certificate'\n")
    assert "printf %s 'a '\"'\"'certificate'\"'\"'\n' | sh -c" in prepared
    assert subprocess.run(["sh", "-n", "-c", prepared], check=False).returncode == 0


def here(tmp_path: Path, name: str = "build") -> Surroundings:
    return replace(pinned(BuildSpec("x"), 1_700_000_000, WIDE), root=str(tmp_path / name))


def run(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, **options)


def test_the_command_sees_the_environment_and_nothing_else(tmp_path: Path) -> None:
    """Without the clock: a test does not set that of its host."""
    at, spec = here(tmp_path, "it's a place"), BuildSpec("env; umask; pwd; exit 7", env={"A": "x' $(id) \"y"})
    Path(at.source).mkdir(parents=True)
    command = build_command(at, spec, {})
    clock, _, rest = command.partition("\n")
    assert clock.startswith(f"date -u -s @{at.clock} ")
    done = run(rest, env={"LEAKED": "1", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 7
    *env, umask, place = done.stdout.splitlines()
    seen = dict(line.split("=", 1) for line in env)
    assert {key: value for key, value in seen.items() if key not in ("PWD", "OLDPWD", "_", "SHLVL")} == variables(
        at, spec, {}
    )
    assert (umask, place) == ("0022", at.source)


def test_collecting_copies_paths_as_they_are(tmp_path: Path) -> None:
    at = here(tmp_path)
    (Path(at.source) / "dist/sub").mkdir(parents=True)
    (Path(at.source) / "dist/sub/-a b").write_text("1")
    (Path(at.source) / "-rf").write_text("2")
    Path(at.out).mkdir()
    done = run(collect_command(at, BuildSpec("x", artifacts=("dist", "./-rf"))))
    assert done.returncode == 0, done.stderr
    assert sorted(str(each.relative_to(at.out)) for each in Path(at.out).rglob("*") if each.is_file()) == [
        "-rf",
        "dist/sub/-a b",
    ]


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    at = here(tmp_path)
    Path(at.source).mkdir(parents=True)
    done = run(collect_command(at, BuildSpec("x", artifacts=("not there",))))
    assert (done.returncode, done.stdout) == (MISSING, "not there\n")


def test_the_input_gets_one_time(tmp_path: Path) -> None:
    at = here(tmp_path)
    (Path(at.source) / "d").mkdir(parents=True)
    (Path(at.source) / "d/f").write_text("1")
    (Path(at.source) / "l").symlink_to("nowhere")
    lines = prepare_command(at).splitlines()
    assert "hostname" in lines[-2]
    done = run("\n".join(lines[:-2]))  # the host keeps its name
    assert done.returncode == 0, done.stderr
    assert {each.lstat().st_mtime for each in Path(at.source).rglob("*")} == {float(at.epoch)}
    assert Path(at.out).is_dir()
    assert Path(at.home).is_dir()


def test_commands_are_one_word_to_the_shell() -> None:
    line = build_command(here(Path("/x")), BuildSpec("echo 'a b'; false || echo \"$HOME\""), {}).splitlines()[-1]
    assert shlex.split(line)[-1] == "echo 'a b'; false || echo \"$HOME\""
