"""What doctor says of side channels, from the files of a host that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandastack.host.side_channels import side_channels

SWAPS = "Filename Type Size Used Priority\n"
CLOSED = {
    "sys/devices/system/cpu/smt/active": "0\n",
    "sys/kernel/mm/ksm/run": "0\n",
    "proc/swaps": SWAPS,
    "sys/devices/system/cpu/vulnerabilities/l1tf": "Mitigation: PTE Inversion\n",
    "sys/devices/system/cpu/vulnerabilities/mds": "Not affected\n",
}


def host(root: Path, **files: str) -> Path:
    for name, text in (CLOSED | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_host_without_any(tmp_path: Path) -> None:
    assert list(side_channels(host(tmp_path))) == []
    assert list(side_channels(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("sys/devices/system/cpu/smt/active", "1\n", "smt"),
        ("sys/kernel/mm/ksm/run", "1\n", "ksm"),
        ("proc/swaps", SWAPS + "/dev/vda2 partition 1 0 -2\n", "swap"),
        ("sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: Clear CPU buffers attempted\n", "cpu"),
    ],
)
def test_each_is_named_with_what_closes_it(tmp_path: Path, file: str, text: str, name: str) -> None:
    ((found, detail, fix),) = side_channels(host(tmp_path, **{file: text}))
    assert found == name and detail and fix
    assert "mds" in detail or name != "cpu"
