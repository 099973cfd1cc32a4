"""A baked template goes from one installation to another as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.installation import Install, serving


@pytest.fixture(scope="module")
def exported(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "base.tar.zst"
    told = install("base").json("template", "export", "base", str(file))
    assert (told["name"], told["bytes"]) == ("base", file.stat().st_size)
    return file


def test_a_template_is_exported_and_imported_although_an_import_is_killed(install: Install, exported: Path) -> None:
    place = install(PANDASTACK_READY_MACHINES="1")
    for point in ("unpacked", "brought_in"):
        killed = replace(place, settings={"PANDASTACK_CRASH_AT": point})
        assert killed.cli("template", "import", str(exported)).returncode == -9
        assert not list(place.layout.templates.glob("*.json"))
    assert place.json("template", "import", str(exported), "--as", "mine")["name"] == "mine"
    with serving(place) as (_, client):
        pool = place.layout.engine / "pool"
        assert not list(pool.glob("pandastack-work-*"))
        (template,) = client.templates.list()
        assert (template.name, (template.meta or {})["state"]) == ("mine", "current")
        with client.sandboxes.create("mine", on_memory_loss="fail") as sandbox:
            assert sandbox.exec("python3 -c 'print(6 * 7)'", check=True).stdout == "42\n"
            sandbox.hibernate()
            assert sandbox.exec("git --version", check=True).stdout.startswith("git version")
        again = place.cli("template", "import", str(exported), "--as", "mine")
        assert again.returncode == 1
        assert "template mine exists already" in again.stderr and "--replace" in again.stderr
    assert place.left_behind() == []


def test_a_damaged_file_is_refused_before_anything_is_installed(
    install: Install, exported: Path, tmp_path: Path
) -> None:
    place, damaged = install(), tmp_path / "damaged"
    whole = exported.read_bytes()
    middle = len(whole) // 2
    damaged.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    done = place.cli("template", "import", str(damaged), "--json")
    assert done.returncode == 1
    assert "not a usable template archive" in json.loads(done.stderr.splitlines()[-1])["error"]
    assert place.left_behind() == []
